"""The public sets: for each a few lines of a table, which say what its columns hold.

Rows come from a set's official file or from its copy on the hub, whose columns differ. To add a
set, write its lines in `SETS`, and one in docs/datasets.md.
"""

from typing import Any
from urllib.parse import unquote_plus

from inbol_jax.data.columns import (
    BY_ANSWER,
    COCO,
    FILE,
    Spec,
    cell,
    checksum,
    dashed,
    lettered_columns,
    official_path,
    pair,
    read_flag,
    text,
    with_hint,
)
from inbol_jax.data.rows import RawRow
from inbol_jax.questions import LETTERS


def _vizwiz_answerable(row: RawRow) -> bool | None:
    """The hub's copy has the type of the most frequent answer, possibly "unanswerable"."""
    if "answerable" in row:
        return row["answerable"]
    kind = row.get("category", row.get("answer_type"))
    return None if kind is None else kind != "unanswerable"


def _pope_part(row: RawRow) -> str:
    """One of POPE's three parts, which number their questions alike."""
    file = row.get(FILE, "")
    parts = (part for part in ("adversarial", "popular", "random") if part in file)
    return row.get("category") or next(parts, file)


def _tubench_answerable(row: RawRow) -> bool | None:
    flag = read_flag(row["is_unanswerable"])
    return None if flag is None else not flag


def _haloquest_image(row: RawRow) -> str:
    """Where `image_name` is blank (18 rows), the name that ends `url`; nothing is fetched."""
    return cell(row["image_name"]) or unquote_plus(cell(row["url"]).rpartition("/")[2])


def _haloquest_answerable(row: RawRow) -> bool | None:
    kind = cell(row["hallucination type"]).lower()
    return not ("false premise" in kind or "insufficient context" in kind) if kind else None


def _haloquest_answers(row: RawRow) -> list[str]:
    answers = cell(row["groundtruth responses"]).split(";")
    return [answer.strip() for answer in answers if answer.strip()]


# What UNK-VQA calls the ways in which its questions and pictures were altered.
_ALTERED = {
    "T-1": "word replacement",
    "T-2": "semantic negation",
    "I-1": "image replacement",
    "I-2": "image mask",
    "I-3": "image copy and move",
}


def _unkvqa_answer(row: RawRow, key: str = "answer") -> Any:
    """The answer of a question that has one, beside which other options stand."""
    other = row["answerability"].get("other") or {}
    return other.get(key) if read_flag(row["answerability"]["binary"]) else None


def _mmupd_answerable(row: RawRow) -> bool | None:
    kind = cell(row["type"])
    return kind == "standard" if kind else None


def _mmupd_answers(row: RawRow) -> list[str]:
    """Of a question without a right option, only a letter that says so: in the setting "option" the
    last one, in "instruction" the "F" that the question asks for."""
    letters = {cell(row["answer"])} - {""}
    if _mmupd_answerable(row) is False:
        told = "F" if '"F.' in with_hint(row) else ""
        letters &= {*LETTERS[: len(lettered_columns(row))], told}
    return list(letters)


# fmt: off
# VQAv2 (Goyal et al. 2017, arXiv 1612.00837): ten answers per question.
_VQAV2 = Spec(
    "vqa", "short", "lmms-lab/VQAv2", annotations=True, split=COCO,
    image=official_path("COCO_{coco}_{image_id:012d}.jpg"),
    extra={"kind": "answer_type", "question_type": "question_type"},
)

SETS = {
    # Any set, by the names of its columns.
    "columns": Spec(
        numbered=True, id=("id", "question_id"), image=("image", "images"),
        options=("options", "choices"), answers=("answers", "answer"), answerable="answerable",
        extra=None,
    ),
    "vqav2": _VQAV2,
    # OK-VQA (Marino et al. 2019, arXiv 1906.00067), in the layout of VQAv2.
    "okvqa": _VQAV2._replace(hub="lmms-lab/OK-VQA"),
    # GQA: one answer (Hudson and Manning 2019, arXiv 1902.09506).
    "gqa": Spec(
        "exact", "short", by_id="question_id", image=official_path("{imageId}.jpg"),
        answers="answer", extra={"kind": lambda row: (row.get("types") or {}).get("structural")},
    ),
    # VizWiz: pictures by blind people (Gurari et al. 2018, arXiv 1802.08218). Unanswerable
    # questions keep the answers that annotators ventured.
    "vizwiz": Spec(
        "vqa", "vizwiz", "lmms-lab/VizWiz-VQA", id=("question_id", "image"),
        answerable=_vizwiz_answerable, extra={"kind": ("category", "answer_type")},
    ),
    # TextVQA: questions about text in pictures (Singh et al. 2019, arXiv 1904.08920).
    "textvqa": Spec("vqa", "short", "lmms-lab/textvqa", image=official_path("{image_id}.jpg")),
    # POPE: is there such an object (Li et al. 2023, arXiv 2305.10355).
    "pope": Spec(
        "yes_no", "short", "lmms-lab/POPE", id=dashed(_pope_part, "question_id"),
        question=("question", "text"), answers=("answer", "label"), extra={"kind": _pope_part},
    ),
    # TUBench: code, photographs, geometry and tables (He et al. 2024, arXiv 2410.04107). The copy
    # has letters without options; `examples/tubench.py` reads the official zips, with options.
    "tubench": Spec(
        BY_ANSWER, None, "MM-Hallu/TUBench",
        id=dashed("dataset", "item_id", "image_variant", "question_idx"), options="options",
        answers=lambda row: [] if _tubench_answerable(row) is False else cell(row["answer"]),
        answerable=_tubench_answerable, extra={"kind": "dataset", "strategy": "strategy"},
    ),
    # HaloQuest: false premises, missing context (Wang et al. 2024, arXiv 2407.15680). It has no
    # ids; of the 13 questions that it has twice, the second is set aside.
    "haloquest": Spec(
        prompt="bare", split=text("split"), splits=True, id=dashed(_haloquest_image, checksum),
        image=_haloquest_image, answers=_haloquest_answers, answerable=_haloquest_answerable,
        extra={"kind": text("hallucination type"), "image_type": text("image type")},
    ),
    # UNK-VQA: altered until it cannot be answered (Guo et al. 2023, arXiv 2310.10942).
    "unkvqa": Spec(
        prompt="short", image="image_name", answers=_unkvqa_answer,
        answerable=lambda row: row["answerability"]["binary"],
        extra={"kind": lambda row: _ALTERED.get(row["alter_type"], row["alter_type"]),
               "other_options": lambda row: _unkvqa_answer(row, "options")},
    ),
    # MM-UPD: is there a right option at all (Miyai et al. 2024, arXiv 2403.20331). A question and
    # the one made of it that cannot be answered are a pair; dual accuracy counts pairs.
    "mmupd": Spec(
        "choice", "letter", "MM-Hallu/MM-UPD", base64=True, numbered=True,
        id=dashed("index", "type"), question=with_hint, options=lettered_columns,
        answers=_mmupd_answers, answerable=_mmupd_answerable,
        extra={"pair": pair, "kind": "l2-category", "category": "category", "type": text("type"),
               "masked_answer": text("masked_answer"), "task": text("task")},
    ),
    # MMBench (Liu et al. 2023, arXiv 2307.06281). A question whose options come rotated as well is
    # right if all rotations are: they are a pair.
    "mmbench": Spec(
        "choice", "letter", "lmms-lab/MMBench", base64=True, id=text("index"), question=with_hint,
        options=lettered_columns, answers=text("answer"),
        extra={"pair": pair, "kind": ("l2-category", "L2-category"), "category": "category"},
    ),
}
# fmt: on
