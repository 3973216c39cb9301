"""The public sets: a function per set, which says what the columns of its rows hold.

Rows come from a set's official file or from its copy on the hub, whose columns differ. To add a
set, write its function and its line in `SETS`, and one in docs/datasets.md.
"""

import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from inbol_jax.data.columns import first, is_null, number_text, read_flag
from inbol_jax.data.folder import Unusable
from inbol_jax.data.rows import RawRow, record_id
from inbol_jax.questions import LETTERS

# What a row of a text file has beside its columns: the file's name, and the split of COCO's
# pictures that the names of files tell.
FILE, COCO = "official file", "coco"
# MMBench and MM-UPD add this to the index of a question whose options are in another order.
ROTATED = 1_000_000


class Spec(NamedTuple):
    """How a set is read."""

    # The columns of `data.jsonl` that a row gives, the pictures as `image`, as the row holds them.
    # It may raise what a row of other columns makes it raise.
    columns: Callable[[RawRow], dict[str, Any]] | None
    metric: str | None = None  # how answers are matched; None is the row's own
    prompt: str | None = None  # the preset of its own evaluation, written into the header
    hub: str | None = None  # a copy for the `datasets` library
    annotations: bool = False  # whether the official answers are in a file of their own
    splits: bool = False  # whether the official file holds several
    by_id: str | None = None  # the column of a row's key, if the file is an object of objects
    base64: bool = False  # whether the official file holds pictures as text in base64


def _vqav2(row: RawRow) -> dict[str, Any]:
    """VQAv2 (Goyal et al. 2017, arXiv 1612.00837), ten answers per question; OK-VQA (Marino et al.
    2019, arXiv 1906.00067) has its layout."""
    if not row.get("image") and row.get(COCO, "") is None:
        raise Unusable("split not known (--split train2014, val2014 or test2015)")
    return _asked(row, "COCO_{coco}_{image_id:012d}.jpg") | {
        "answers": row.get("answers"),
        "kind": row.get("answer_type"),
        "question_type": row.get("question_type"),
        "split": row.get(COCO),
    }


def _gqa(row: RawRow) -> dict[str, Any]:
    """GQA (Hudson and Manning 2019, arXiv 1902.09506): one answer."""
    kind = (row.get("types") or {}).get("structural")
    return _asked(row, "{imageId}.jpg") | {"answers": row["answer"], "kind": kind}


def _vizwiz(row: RawRow) -> dict[str, Any]:
    """VizWiz (Gurari et al. 2018, arXiv 1802.08218): pictures by blind people."""
    kind = first(row, "category", "answer_type")
    # The hub's copy has the type of the most frequent answer in place of a flag.
    answerable = None if kind is None else kind != "unanswerable"
    return _asked(row) | {
        "id": first(row, "question_id", "image"),
        # Unanswerable questions keep the answers that annotators ventured.
        "answers": row["answers"],
        "answerable": row.get("answerable", answerable),
        "kind": kind,
    }


def _textvqa(row: RawRow) -> dict[str, Any]:
    """TextVQA (Singh et al. 2019, arXiv 1904.08920): questions about text in pictures."""
    return _asked(row, "{image_id}.jpg") | {"answers": row["answers"]}


def _pope(row: RawRow) -> dict[str, Any]:
    """POPE (Li et al. 2023, arXiv 2305.10355): is there such an object."""
    # Its three parts number their questions alike; the copy names them, the files are called so.
    file = row.get(FILE, "")
    parts = (part for part in ("adversarial", "popular", "random") if part in file)
    part = row.get("category") or next(parts, file)
    return _asked(row) | {
        "id": f"{part}-{row['question_id']}",
        "question": first(row, "question", "text"),
        "answers": first(row, "answer", "label"),
        "kind": part,
    }


def _haloquest(row: RawRow) -> dict[str, Any]:
    """HaloQuest (Wang et al. 2024, arXiv 2407.15680): false premises, missing context."""
    # Where `image_name` is blank (18 rows), the name that ends `url`; nothing is fetched.
    image = cell(row["image_name"]) or unquote_plus(cell(row["url"]).rpartition("/")[2])
    # It has no ids; of the 13 questions that it has twice, the second is set aside.
    checksum = zlib.crc32(str(row["question"]).encode("utf-8", "surrogateescape"))
    kind = cell(row["hallucination type"])
    lacks = any(lack in kind.lower() for lack in ("false premise", "insufficient context"))
    answers = cell(row["groundtruth responses"]).split(";")
    return _asked(row) | {
        "id": f"{image}-{checksum:08x}",
        "image": image,
        "split": row["split"],
        "answers": [answer.strip() for answer in answers if answer.strip()],
        "answerable": not lacks if kind else None,
        "kind": kind or None,
        "image_type": cell(row["image type"]) or None,
    }


# What UNK-VQA calls the ways in which its questions and pictures were altered.
ALTERED = {
    "T-1": "word replacement",
    "T-2": "semantic negation",
    "I-1": "image replacement",
    "I-2": "image mask",
    "I-3": "image copy and move",
}


def _unkvqa(row: RawRow) -> dict[str, Any]:
    """UNK-VQA (Guo et al. 2023, arXiv 2310.10942): altered until it cannot be answered."""
    answerability = row["answerability"]
    # Beside the answer of a question that has one stand other options.
    other = answerability.get("other") or {}
    other = other if read_flag(answerability["binary"]) else {}
    return _asked(row) | {
        "image": row["image_name"],
        "answers": other.get("answer"),
        "answerable": answerability["binary"],
        "kind": ALTERED.get(row["alter_type"], row["alter_type"]),
        "other_options": other.get("options"),
    }


def _mmbench(row: RawRow) -> dict[str, Any]:
    """MMBench (Liu et al. 2023, arXiv 2307.06281): choices, some in several orders."""
    index = record_id(row.get("index")) or ""
    # As in the set's own prompts, the question stands behind its hint.
    hint, question = cell(row.get("hint")), row["question"]
    # The options are columns A, B, ... up to the first that is empty.
    options = itertools.takewhile(bool, (cell(row.get(letter)) for letter in LETTERS))
    return _asked(row) | {
        "id": index or None,
        "question": f"{hint}\n{question}" if hint else question,
        "options": list(options),
        "answers": cell(row["answer"]),
        # A question is right if all its rotations are: they are a pair.
        "pair": str(int(index) % ROTATED) if index.isdecimal() else None,
        "kind": first(row, "l2-category", "L2-category"),
        "category": row.get("category"),
    }


def _mmupd(row: RawRow) -> dict[str, Any]:
    """MM-UPD (Miyai et al. 2024, arXiv 2403.20331): is there a right option at all."""
    columns, type = _mmbench(row), cell(row["type"])
    # A question and the one made of it that cannot be answered have one index, and are a pair.
    columns["id"] = f"{columns['id']}-{type}" if columns["id"] and type else None
    columns["answerable"] = type == "standard" if type else None
    if columns["answerable"] is False:
        # Only a letter that says so is an answer: in the setting "option" the last one, in
        # "instruction" the "F" that the question asks for.
        letters = {*LETTERS[: len(columns["options"])]}
        letters |= {"F"} if '"F.' in columns["question"] else set()
        columns["answers"] = [*letters & {columns["answers"]}]
    others = {name: cell(row.get(name)) or None for name in ("type", "masked_answer", "task")}
    return columns | others


SETS = {
    "columns": Spec(None),  # any set, by the names of its columns
    "vqav2": Spec(_vqav2, "vqa", "short", "lmms-lab/VQAv2", annotations=True),
    "okvqa": Spec(_vqav2, "vqa", "short", "lmms-lab/OK-VQA", annotations=True),
    "gqa": Spec(_gqa, "exact", "short", by_id="question_id"),
    "vizwiz": Spec(_vizwiz, "vqa", "vizwiz", "lmms-lab/VizWiz-VQA"),
    "textvqa": Spec(_textvqa, "vqa", "short", "lmms-lab/textvqa"),
    "pope": Spec(_pope, "yes_no", "short", "lmms-lab/POPE"),
    "haloquest": Spec(_haloquest, prompt="bare", splits=True),
    "unkvqa": Spec(_unkvqa, prompt="short"),
    "mmupd": Spec(_mmupd, "choice", "letter", "MM-Hallu/MM-UPD", base64=True),
    "mmbench": Spec(_mmbench, "choice", "letter", "lmms-lab/MMBench", base64=True),
}


def _asked(row: RawRow, official_path: str = "") -> dict[str, Any]:
    """What most sets have: an id, the question, and the column `image`; in official files without
    that column, a path made of others."""
    image = row.get("image")
    if not image and official_path and FILE in row:
        image = official_path.format_map(row)
    id = first(row, "question_id", "id", "index")
    return {"id": id, "question": row.get("question"), "image": image}


def cell(value: Any) -> str:
    """The text of a table's cell, empty if it holds nothing ("nan" and "None" are pandas')."""
    text = "" if is_null(value) else str(number_text(value)).strip()
    return "" if text.lower() in ("nan", "none") else text
