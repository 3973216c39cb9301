"""The public sets, each a short function from a row as the set has it to the columns of `data.jsonl`.

A row comes from the set's official file or from its copy on the hub; the columns differ, and an adapter reads either. Where the row held
a picture, `image` is already the name of its file. To add a set, write one such function and name it in `ADAPTERS`.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from inbol_jax.data.config import DataConfig
from inbol_jax.data.vqa import Unusable
from inbol_jax.records import METRICS

Row = Mapping[str, Any]
YES = frozenset((True, 1, "1", "true", "yes", "answerable"))
NO = frozenset((False, 0, "0", "false", "no", "unanswerable"))


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How a set is read.

    Attributes:
      columns: a row in the columns of `data.jsonl`; raises `Unusable` where it cannot be read.
      metric: how its answers are matched; a row may have one of its own.
      annotations: whether the official answers are in a file of their own.
      hub: whether there are copies for the `datasets` library.
      by_id: the column that gets a row's key, where the official file is an object of objects.
      join: the suffixes of the two subsets on the hub with questions and with pictures, and the column that leads from one to the other.
    """

    columns: Callable[[Row, DataConfig], dict[str, Any]]
    metric: str = METRICS[0]
    annotations: bool = False
    hub: bool = True
    by_id: str | None = None
    join: tuple[str, str, str] | None = None


def _flag(value: Any) -> bool | None:
    """True or false, however a set spells it."""
    value = value.strip().lower() if isinstance(value, str) else value
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float) or value not in YES | NO:
        raise Unusable("answerable not true or false")
    return value in YES


def _single(answer: Any) -> list[Any]:
    return [] if answer is None or answer == "" else [answer]


def _answered(answers: Any) -> bool | None:
    """A set of answerable questions with the answers of one: none in the test splits, whose answers are not public."""
    return True if answers else None


def _coco_split(config: DataConfig) -> str | None:
    """The split of COCO's pictures, as --data.split says it, else the name of a file."""
    names = [
        path.name
        for path in (config.questions, config.annotations, config.images)
        if path is not None
    ]
    return next(
        (
            split
            for name in (config.split or "", *names)
            for split in ("train2014", "val2014", "test2015")
            if split in name
        ),
        None,
    )


def _coco_name(row: Row, config: DataConfig) -> str:
    """COCO_train2014_000000123456.jpg: the official files name pictures by number and split."""
    id, split = row.get("image_id"), _coco_split(config)
    if split is None:
        raise Unusable("split not known (--data.split train2014, val2014 or test2015)")
    if not isinstance(id, int):
        raise Unusable("image_id not a number")
    return f"COCO_{split}_{id:012d}.jpg"


def vqa(row: Row, config: DataConfig) -> dict[str, Any]:
    """VQAv2 and OK-VQA: ten answers, as objects or strings (Goyal et al. 2017, arXiv 1612.00837; Marino et al. 2019, arXiv 1906.00067)."""
    return {
        "id": row.get("question_id"),
        "image": row["image"] if row.get("image") else _coco_name(row, config),
        "question": row.get("question"),
        "answers": row.get("answers"),
        "answerable": _answered(row.get("answers")),
        "split": config.split or _coco_split(config),
        "kind": row.get("answer_type"),
        "question_type": row.get("question_type"),
    }


def gqa(row: Row, config: DataConfig) -> dict[str, Any]:
    """GQA: one answer, exact match (Hudson and Manning 2019, arXiv 1902.09506)."""
    types = row.get("types")
    return {
        "id": row.get("id", row.get("question_id")),
        "image": row["image"] if row.get("image") else f"{row.get('imageId')}.jpg",
        "question": row.get("question"),
        "answers": _single(row.get("answer")),
        "answerable": _answered(row.get("answer")),
        "kind": types.get("structural") if isinstance(types, dict) else None,
    }


def vizwiz(row: Row, config: DataConfig) -> dict[str, Any]:
    """VizWiz: pictures by blind people, ten answers; unanswerable ones keep theirs (Gurari et al. 2018, arXiv 1802.08218).

    The hub's copy has no `answerable`; its `category` is the type of the most frequent answer, "unanswerable" among them.
    """
    kind = row.get("category", row.get("answer_type"))
    answerable = (
        _flag(row["answerable"])
        if "answerable" in row
        else None
        if kind is None
        else kind != "unanswerable"
    )
    image = row.get("image")
    return {
        "id": row.get("question_id", image),
        "image": image,
        "question": row.get("question"),
        "answers": row.get("answers"),
        "answerable": answerable if row.get("answers") or answerable is False else None,
        "kind": kind,
    }


def textvqa(row: Row, config: DataConfig) -> dict[str, Any]:
    """TextVQA: questions about the text in pictures, ten answers (Singh et al. 2019, arXiv 1904.08920)."""
    return {
        "id": row.get("question_id"),
        "image": row["image"] if row.get("image") else f"{row.get('image_id')}.jpg",
        "question": row.get("question"),
        "answers": row.get("answers"),
        "answerable": _answered(row.get("answers")),
    }


def pope(row: Row, config: DataConfig) -> dict[str, Any]:
    """POPE: is there such an object, yes or no (Li et al. 2023, arXiv 2305.10355). Its three parts number their questions alike."""
    file = config.questions.stem if config.questions else ""
    part = row.get("category") or next(
        (p for p in ("adversarial", "popular", "random") if p in file), file
    )
    answer = row.get("answer", row.get("label"))
    return {
        "id": None if row.get("question_id") is None else f"{part}-{row['question_id']}",
        "image": row.get("image"),
        "question": row.get("question", row.get("text")),
        "answers": _single(answer),
        "answerable": _answered(answer),
        "kind": part,
    }


def tubench(row: Row, config: DataConfig) -> dict[str, Any]:
    """TUBench: unanswerable questions about code, photographs, geometry and tables (He et al. 2024, arXiv 2410.04107).

    Its parts have answers of several kinds; each row is matched as its own answer is: yes or no, an option's letter, a number, or words.
    """
    unanswerable, answer = _flag(row.get("is_unanswerable")), row.get("answer")
    answer = str(answer).strip() if isinstance(answer, str | int | float) else None
    id = "-".join(
        str(row.get(part)) for part in ("dataset", "item_id", "image_variant", "question_idx")
    )
    return {
        "id": id,
        "image": row.get("image"),
        "question": row.get("question"),
        "answers": [] if unanswerable else _single(answer),
        "answerable": None if unanswerable is None else not unanswerable,
        "metric": metric_of(answer or ""),
        "kind": row.get("dataset"),
        "strategy": row.get("strategy"),
    }


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


def haloquest(row: Row, config: DataConfig) -> dict[str, Any]:
    """HaloQuest: false premises, missing context, and hard ones (Wang et al. 2024, arXiv 2407.15680); no ids, so they are made.

    Pictures are looked for under `image_name`; what the column `url` names is not fetched. Reference answers are sentences parted by ";".
    """
    name, question = row.get("image_name"), row.get("question")
    if config.split and (row.get("split") or "").strip() != config.split:
        raise Skip
    kind = (row.get("hallucination type") or "").strip().lower()
    responses = [said.strip() for said in (row.get("groundtruth responses") or "").split(";")]
    return {
        "id": f"{name}-{zlib.crc32((question or '').encode('utf-8', 'surrogateescape')):08x}"
        if name
        else None,
        "image": name,
        "question": question,
        "answers": [said for said in responses if said],
        "answerable": not ("false premise" in kind or "insufficient context" in kind)
        if kind
        else None,
        "split": row.get("split"),
        "kind": kind,
        "image_type": row.get("image type"),
    }


def unkvqa(row: Row, config: DataConfig) -> dict[str, Any]:
    """UNK-VQA: questions or pictures altered until they cannot be answered (Guo et al. 2023, arXiv 2310.10942).

    Its file holds no answers, so an answerable question can be scored only where the row has them all the same.
    """
    answers = (
        row["answers"]
        if row.get("answers")
        else _single(row.get("answer", row.get("multiple_choice_answer")))
    )
    answerable = _flag(row.get("answerability"))
    return {
        "id": row.get("question_id"),
        "image": row.get("image_name"),
        "question": row.get("question"),
        "answers": [] if answerable is False else answers,
        "answerable": answerable if answers or answerable is False else None,
        "kind": None if row.get("alter_type") is None else str(row["alter_type"]),
    }


def columns(row: Row, config: DataConfig) -> dict[str, Any]:
    """Any set, by the names of its columns; all others are kept where JSON can hold them."""
    for column in (config.image_column, config.question_column):
        if column not in row:
            raise Unusable(f"no column {column!r}")
    if config.id_column and config.id_column not in row:
        raise Unusable(f"no column {config.id_column!r}")
    id = config.id_column or next((name for name in ("id", "question_id") if name in row), None)
    flag = config.answerable_column or "answerable"
    answers = row.get(config.answers_column)
    answers = answers if isinstance(answers, list) else _single(answers)
    answers = [answer if isinstance(answer, str | dict) else str(answer) for answer in answers]
    used = {config.image_column, config.question_column, config.answers_column, id, flag, NUMBER}
    known = _flag(row[flag]) if flag in row else _answered(answers)
    return {
        name: kept
        for name, value in row.items()
        if name not in used and (kept := _plain(value)) is not None
    } | {
        "id": f"{config.split}-{row[NUMBER]}" if id is None else row.get(id),
        "image": row[config.image_column],
        "question": row[config.question_column],
        "answers": answers,
        "answerable": known,
    }


NUMBER = " number"  # the column that the importer gives a row: its place among those of the source


def _plain(value: Any) -> Any:
    """A value that JSON can hold, None for any other."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None


class Skip(Exception):
    """A row of another split than the one that was asked for."""


ADAPTERS = {
    "columns": Adapter(columns),
    "vqav2": Adapter(vqa, annotations=True),
    "okvqa": Adapter(vqa, annotations=True),
    "gqa": Adapter(gqa, "exact", by_id="question_id", join=("_instructions", "_images", "imageId")),
    "vizwiz": Adapter(vizwiz),
    "textvqa": Adapter(textvqa),
    "pope": Adapter(pope, "yes_no"),
    "tubench": Adapter(tubench, "exact"),
    "haloquest": Adapter(haloquest, "exact", hub=False),
    "unkvqa": Adapter(unkvqa, hub=False),
}
