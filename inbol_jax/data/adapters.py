"""The public sets: for each a short function from a row as the set holds it to the columns of
`data.jsonl`.

A row comes from the set's official file or from its copy on the hub; their columns differ. If a row
held a picture, `image` is already the name of the file that it was written to. To add a set, write
one such function, name it in `ADAPTERS`, and add its name to `FORMATS` in config.py.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_plus

from inbol_jax.data.choice_sets import aokvqa, aokvqa_direct, mmbench, mme, mmmu, mmupd, scienceqa
from inbol_jax.data.columns import (
    Columns,
    answer_text,
    is_null,
    letter_of,
    metric_of,
    option_list,
    plain,
    read_flag,
    single,
    usual_columns,
)
from inbol_jax.data.config import DataConfig
from inbol_jax.data.rows import RawRow, Unusable
from inbol_jax.data.sources import literal_list
from inbol_jax.records import METRICS


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
    images: tuple[str, ...] = ("image",)  # the columns of pictures, in the order of the prompt
    base64: bool = False  # whether the official file holds pictures as text in base64
    text_only: bool = False  # whether rows without a picture ask about text alone
    numbered: bool = False  # whether rows have no ids, and are numbered


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
    return usual_columns(
        row,
        image=image,
        split=config.split or split,
        kind=row.get("answer_type"),
        question_type=row.get("question_type"),
    )


def gqa(row: RawRow, config: DataConfig) -> Columns:
    """GQA: one answer, exact match (Hudson and Manning 2019, arXiv 1902.09506)."""
    types = row.get("types")
    return usual_columns(
        row,
        id=row.get("id", row.get("question_id")),
        image=row.get("image") or f"{row.get('imageId')}.jpg",
        answers=single(row.get("answer")),
        kind=types.get("structural") if isinstance(types, dict) else None,
    )


def vizwiz(row: RawRow, config: DataConfig) -> Columns:
    """VizWiz: pictures by blind people, ten answers (Gurari et al. 2018, arXiv 1802.08218).

    Unanswerable questions keep their answers. The hub's copy has no `answerable`; its `category` is
    the type of the most frequent answer, possibly "unanswerable".
    """
    kind = row.get("category", row.get("answer_type"))
    if "answerable" in row:
        answerable = read_flag(row["answerable"])
    else:
        answerable = None if kind is None else kind != "unanswerable"
    return usual_columns(
        row,
        id=row.get("question_id", row.get("image")),
        answerable=answerable if row.get("answers") or answerable is False else None,
        kind=kind,
    )


def textvqa(row: RawRow, config: DataConfig) -> Columns:
    """TextVQA: questions about text in pictures (Singh et al. 2019, arXiv 1904.08920)."""
    return usual_columns(row, image=row.get("image") or f"{row.get('image_id')}.jpg")


def pope(row: RawRow, config: DataConfig) -> Columns:
    """POPE: is there such an object, yes or no (Li et al. 2023, arXiv 2305.10355).

    Its three parts number their questions alike, so an id begins with the part.
    """
    file = config.questions.stem if config.questions else ""
    parts = (part for part in ("adversarial", "popular", "random") if part in file)
    part = row.get("category") or next(parts, file)
    number = row.get("question_id")
    return usual_columns(
        row,
        id=None if number is None else f"{part}-{number}",
        question=row.get("question", row.get("text")),
        answers=single(row.get("answer", row.get("label"))),
        kind=part,
    )


def tubench(row: RawRow, config: DataConfig) -> Columns:
    """TUBench: code, photographs, geometry and tables (He et al. 2024, arXiv 2410.04107).

    Each row gets the metric of its own answer. The copy on the hub has letters without options;
    `examples/tubench.py` reads the official zips, which have the options too.
    """
    unanswerable, answer = read_flag(row.get("is_unanswerable")), row.get("answer")
    answer = str(answer).strip() if isinstance(answer, str | int | float) else None
    parts = ("dataset", "item_id", "image_variant", "question_idx")
    return usual_columns(
        row,
        id="-".join(str(row.get(part)) for part in parts),
        answers=[] if unanswerable else single(answer),
        answerable=None if unanswerable is None else not unanswerable,
        options=row.get("options"),
        metric="choice" if row.get("options") else metric_of(answer or ""),
        kind=row.get("dataset"),
        strategy=row.get("strategy"),
    )


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
    return usual_columns(
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
    answers = row.get("answers") or single(answer)
    answerable = read_flag(answerability)
    return usual_columns(
        row,
        image=row.get("image_name"),
        answers=[] if answerable is False else answers,
        answerable=answerable if answers or answerable is False else None,
        kind=None if kind is None else ALTERED.get(str(kind), str(kind)),
        other_options=plain(options),
    )


def columns(row: RawRow, config: DataConfig) -> Columns:
    """Any set, by the names of its columns; all other columns are kept if JSON can hold them."""
    named = config.image_column, config.question_column, config.id_column, config.options_column
    for column in named:
        if column is not None and column not in row:
            raise Unusable(f"no column {column!r}")
    id = config.id_column or ("id" if "id" in row else "question_id")
    flag = config.answerable_column or "answerable"
    choices = config.options_column or ("options" if "options" in row else "choices")
    options = option_list(row[choices]) if row.get(choices) else []
    answers = literal_list(row.get(config.answers_column))
    number = answer_text(answers, options)  # CSV has texts
    if options and number.isdecimal() and number not in options:
        answers = letter_of(number, options)
    answers = answers if isinstance(answers, list) else single(answers)
    answers = [
        answer if isinstance(answer, dict) else answer_text(answer, options)
        for answer in answers
        if not is_null(answer)
    ]
    used = {config.image_column, config.question_column, config.answers_column, id, flag, choices}
    return {name: plain(value) for name, value in row.items() if name not in used} | {
        "options": options or None,
        "metric": row.get("metric") or ("choice" if options else None),
        "id": row.get(id),
        "image": row[config.image_column],
        "question": row[config.question_column],
        "answers": answers,
        "answerable": read_flag(row[flag]) if flag in row else bool(answers) or None,
    }


ADAPTERS = {
    "columns": Adapter(columns),
    "vqav2": Adapter(vqa, "vqa", annotations=True),
    "okvqa": Adapter(vqa, "vqa", annotations=True),
    "gqa": Adapter(
        gqa, "exact", by_id="question_id", join=Join("_instructions", "_images", "imageId")
    ),
    "vizwiz": Adapter(vizwiz, "vqa"),
    "textvqa": Adapter(textvqa, "vqa"),
    "pope": Adapter(pope, "yes_no"),
    "tubench": Adapter(tubench),
    "haloquest": Adapter(haloquest, hub=False),
    "unkvqa": Adapter(unkvqa, hub=False),
    "mmupd": Adapter(mmupd, "choice", base64=True, numbered=True),
    "mmbench": Adapter(mmbench, "choice", base64=True),
    "scienceqa": Adapter(scienceqa, "choice", by_id="id", text_only=True, numbered=True),
    "mmmu": Adapter(
        mmmu, "choice", images=tuple(f"image_{i}" for i in range(1, 8)), text_only=True
    ),
    "aokvqa": Adapter(aokvqa, "choice"),
    "aokvqa_direct": Adapter(aokvqa_direct, "vqa"),
    "mme": Adapter(mme, "yes_no", base64=True),
}
