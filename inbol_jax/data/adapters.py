"""The public sets: for each a short function from a row as the set holds it to the columns of
`data.jsonl`.

A row comes from the set's official file or from its copy on the hub; their columns differ. If a row
held a picture, `image` is already the name of the file that it was written to. To add a set, write
one such function, name it in `ADAPTERS`, and add its name to `FORMATS` in config.py.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from inbol_jax.data.config import DataConfig
from inbol_jax.data.rows import RawRow, Unusable
from inbol_jax.records import METRICS

Columns = dict[str, Any]  # those of `data.jsonl`, not validated yet, and any others

FLAGS = dict.fromkeys((True, "1", "true", "yes", "answerable"), True)
FLAGS |= dict.fromkeys((False, "0", "false", "no", "unanswerable"), False)


class Join(NamedTuple):
    """Two subsets on the hub, by the suffixes of their names."""

    questions: str
    pictures: str
    reference: str  # the column of a question that holds its picture's id


class Adapter(NamedTuple):
    """How a set is read."""

    columns: Callable[[RawRow, DataConfig], Columns | None]
    """The columns of a row, None for a row of another split; raises `Unusable`."""
    metric: str = METRICS[0]  # of answers, unless a row has a metric of its own
    annotations: bool = False  # whether the official answers are in a file of their own
    hub: bool = True  # whether there are copies for the `datasets` library
    by_id: str | None = None  # the column of a row's key, if the file is an object of objects
    join: Join | None = None  # if the pictures of the copy on the hub are in their own subset


def _columns(row: RawRow, **columns: Any) -> Columns:
    """The columns that are given; of the others those under their most frequent names.

    Without answers, as in a test split that does not publish them, `answerable` is None.
    """
    usual = {name: row.get(name) for name in ("image", "question", "answers")}
    usual["id"] = row.get("question_id")
    usual["answerable"] = True if columns.get("answers", row.get("answers")) else None
    return usual | columns


def _flag(value: Any) -> bool | None:
    """True or false, in any of the spellings that sets use."""
    value = value.strip().lower() if isinstance(value, str) else value
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float) or value not in FLAGS:
        raise Unusable("answerable not true or false")
    return FLAGS[value]


def _single(answer: Any) -> list[Any]:
    return [] if answer is None or answer == "" else [answer]


def _coco_split(config: DataConfig) -> str | None:
    """The split of COCO's pictures, from --data.split or else from the name of a file."""
    paths = filter(None, (config.questions, config.annotations, config.images))
    for name in (config.split or "", *(path.name for path in paths)):
        for split in ("train2014", "val2014", "test2015"):
            if split in name:
                return split
    return None


def vqa(row: RawRow, config: DataConfig) -> Columns:
    """VQAv2 (Goyal et al. 2017, arXiv 1612.00837); OK-VQA (Marino et al. 2019, 1906.00067)."""
    image, split = row.get("image"), _coco_split(config)
    if not image:  # the official files name pictures by number and split
        number = row.get("image_id")
        if split is None:
            raise Unusable("split not known (--data.split train2014, val2014 or test2015)")
        if not isinstance(number, int):
            raise Unusable("image_id not a number")
        image = f"COCO_{split}_{number:012d}.jpg"
    return _columns(
        row,
        image=image,
        split=config.split or split,
        kind=row.get("answer_type"),
        question_type=row.get("question_type"),
    )


def gqa(row: RawRow, config: DataConfig) -> Columns:
    """GQA: one answer, exact match (Hudson and Manning 2019, arXiv 1902.09506)."""
    types = row.get("types")
    return _columns(
        row,
        id=row.get("id", row.get("question_id")),
        image=row.get("image") or f"{row.get('imageId')}.jpg",
        answers=_single(row.get("answer")),
        kind=types.get("structural") if isinstance(types, dict) else None,
    )


def vizwiz(row: RawRow, config: DataConfig) -> Columns:
    """VizWiz: pictures by blind people, ten answers (Gurari et al. 2018, arXiv 1802.08218).

    Unanswerable questions keep their answers. The hub's copy has no `answerable`; its `category` is
    the type of the most frequent answer, possibly "unanswerable".
    """
    kind = row.get("category", row.get("answer_type"))
    if "answerable" in row:
        answerable = _flag(row["answerable"])
    else:
        answerable = None if kind is None else kind != "unanswerable"
    return _columns(
        row,
        id=row.get("question_id", row.get("image")),
        answerable=answerable if row.get("answers") or answerable is False else None,
        kind=kind,
    )


def textvqa(row: RawRow, config: DataConfig) -> Columns:
    """TextVQA: questions about text in pictures (Singh et al. 2019, arXiv 1904.08920)."""
    return _columns(row, image=row.get("image") or f"{row.get('image_id')}.jpg")


def pope(row: RawRow, config: DataConfig) -> Columns:
    """POPE: is there such an object, yes or no (Li et al. 2023, arXiv 2305.10355).

    Its three parts number their questions alike, so an id begins with the part.
    """
    file = config.questions.stem if config.questions else ""
    parts = (part for part in ("adversarial", "popular", "random") if part in file)
    part = row.get("category") or next(parts, file)
    number = row.get("question_id")
    return _columns(
        row,
        id=None if number is None else f"{part}-{number}",
        question=row.get("question", row.get("text")),
        answers=_single(row.get("answer", row.get("label"))),
        kind=part,
    )


def tubench(row: RawRow, config: DataConfig) -> Columns:
    """TUBench: code, photographs, geometry and tables (He et al. 2024, arXiv 2410.04107).

    Each row gets the metric of its own answer.
    """
    unanswerable, answer = _flag(row.get("is_unanswerable")), row.get("answer")
    answer = str(answer).strip() if isinstance(answer, str | int | float) else None
    parts = ("dataset", "item_id", "image_variant", "question_idx")
    return _columns(
        row,
        id="-".join(str(row.get(part)) for part in parts),
        answers=[] if unanswerable else _single(answer),
        answerable=None if unanswerable is None else not unanswerable,
        metric=metric_of(answer or ""),
        kind=row.get("dataset"),
        strategy=row.get("strategy"),
    )


def metric_of(answer: str) -> str:
    """The metric for a gold answer that is a yes or no, an option's letter, a number, or words."""
    plain = answer.strip(" .()").lower()
    if plain in ("yes", "no"):
        return "yes_no"
    if len(plain) == 1 and plain.isalpha():
        return "choice"
    try:
        return "numeric:0" if math.isfinite(float(plain.replace(",", ""))) else "exact"
    except ValueError:
        return "exact"


def haloquest(row: RawRow, config: DataConfig) -> Columns | None:
    """HaloQuest: false premises, missing context (Wang et al. 2024, arXiv 2407.15680).

    The set has no ids, so they are made of picture and question: of the 13 questions that it has
    twice the second is set aside. Pictures are looked for under `image_name`, or where that is
    blank (18 rows) under the name that ends their `url`; nothing is fetched. Reference answers are
    separated by ";".
    """

    def text(column: str) -> str:
        return (row.get(column) or "").strip()

    if config.split and text("split") != config.split:
        return None
    image = text("image_name") or unquote_plus(text("url").rpartition("/")[2])
    checksum = zlib.crc32((row.get("question") or "").encode("utf-8", "surrogateescape"))
    kind = text("hallucination type").lower()
    unanswerable = "false premise" in kind or "insufficient context" in kind
    answers = [answer.strip() for answer in text("groundtruth responses").split(";")]
    return _columns(
        row,
        id=f"{image}-{checksum:08x}" if image else None,
        image=image or None,
        answers=[answer for answer in answers if answer],
        answerable=not unanswerable if kind else None,
        split=row.get("split"),
        kind=kind,
        image_type=row.get("image type"),
    )


# What UNK-VQA calls the ways in which its questions and pictures were altered.
ALTERED = {
    "T-1": "word replacement",
    "T-2": "semantic negation",
    "I-1": "image replacement",
    "I-2": "image mask",
    "I-3": "image copy and move",
}


def unkvqa(row: RawRow, config: DataConfig) -> Columns:
    """UNK-VQA: altered until it cannot be answered (Guo et al. 2023, arXiv 2310.10942).

    `answerability` is an object: `binary` says whether the question can be answered, and `other`
    holds the answer, with other options, if it can. A plain flag is read as well; a row without
    answers then has none to be scored by.
    """
    answerability, kind = row.get("answerability"), row.get("alter_type")
    answer = row.get("answer", row.get("multiple_choice_answer"))
    options = None
    if isinstance(answerability, dict):
        other = answerability.get("other")
        other = other if isinstance(other, dict) else {}
        answer, options = other.get("answer"), other.get("options")
        answerability = answerability.get("binary")
    answers = row.get("answers") or _single(answer)
    answerable = _flag(answerability)
    return _columns(
        row,
        image=row.get("image_name"),
        answers=[] if answerable is False else answers,
        answerable=answerable if answers or answerable is False else None,
        kind=None if kind is None else ALTERED.get(str(kind), str(kind)),
        options=_plain(options),
    )


def columns(row: RawRow, config: DataConfig) -> Columns:
    """Any set, by the names of its columns; all other columns are kept if JSON can hold them."""
    for column in (config.image_column, config.question_column, config.id_column):
        if column is not None and column not in row:
            raise Unusable(f"no column {column!r}")
    id = config.id_column or ("id" if "id" in row else "question_id")
    flag = config.answerable_column or "answerable"
    answers = row.get(config.answers_column)
    answers = answers if isinstance(answers, list) else _single(answers)
    answers = [answer if isinstance(answer, str | dict) else str(answer) for answer in answers]
    used = {config.image_column, config.question_column, config.answers_column, id, flag}
    return {name: _plain(value) for name, value in row.items() if name not in used} | {
        "id": row.get(id),
        "image": row[config.image_column],
        "question": row[config.question_column],
        "answers": answers,
        "answerable": _flag(row[flag]) if flag in row else bool(answers) or None,
    }


def _plain(value: Any) -> Any:
    """A value that JSON can hold, None for any other."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None


ADAPTERS = {
    "columns": Adapter(columns),
    "vqav2": Adapter(vqa, annotations=True),
    "okvqa": Adapter(vqa, annotations=True),
    "gqa": Adapter(
        gqa, "exact", by_id="question_id", join=Join("_instructions", "_images", "imageId")
    ),
    "vizwiz": Adapter(vizwiz),
    "textvqa": Adapter(textvqa),
    "pope": Adapter(pope, "yes_no"),
    "tubench": Adapter(tubench, "exact"),
    "haloquest": Adapter(haloquest, "exact", hub=False),
    "unkvqa": Adapter(unkvqa, hub=False),
}
