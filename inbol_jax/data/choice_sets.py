"""Adapters of multiple-choice sets, and of MME: as those of `adapters.py`."""

import itertools
import zlib
from typing import Any

from inbol_jax.data.columns import (
    Columns,
    cell,
    letter_of,
    metric_of,
    option_list,
    single,
    usual_columns,
)
from inbol_jax.data.config import DataConfig
from inbol_jax.data.rows import RawRow
from inbol_jax.data.sources import literal_list
from inbol_jax.questions import LETTERS

# MMBench and MM-UPD add this to the index of a question whose options are in another order.
ROTATED = 1_000_000


def _lettered_columns(row: RawRow) -> list[str]:
    """The options in columns A, B, ... up to the first that is empty."""
    return list(itertools.takewhile(bool, (cell(row.get(letter)) for letter in LETTERS)))


def _with_hint(row: RawRow) -> Any:
    """The question behind its hint, as the set's own prompts have them."""
    hint = cell(row.get("hint"))
    return f"{hint}\n{row.get('question')}" if hint else row.get("question")


def _index(row: RawRow) -> int | None:
    try:
        return int(row.get("index"))
    except (TypeError, ValueError):
        return None


def mmbench(row: RawRow, config: DataConfig) -> Columns:
    """MMBench: multiple choice of up to four options (Liu et al. 2023, arXiv 2307.06281).

    A question that comes with rotated options is right if all rotations are: they are a `pair`.
    """
    index = _index(row)
    answer = cell(row.get("answer"))
    return usual_columns(
        row,
        id=None if index is None else str(index),
        question=_with_hint(row),
        answers=single(answer),
        options=_lettered_columns(row),
        pair=None if index is None else str(index % ROTATED),
        kind=row.get("l2-category", row.get("L2-category")),
        category=row.get("category"),
    )


def mmupd(row: RawRow, config: DataConfig) -> Columns:
    """MM-UPD: is there a right option at all (Miyai et al. 2024, arXiv 2403.20331).

    A standard question and the one that cannot be answered share their index, and are a `pair`: its
    share of pairs with both right is the set's dual accuracy. In the setting "option" the last
    option says that none is right; who chooses it refuses. In the setting "instruction" the
    question asks for an "F" where no option is right.
    """
    index, type = _index(row), cell(row.get("type"))
    answers, options = single(cell(row.get("answer"))), _lettered_columns(row)
    answerable, question = None if not type else type == "standard", _with_hint(row)
    if answerable is False:
        told = "F" if '"F.' in str(question) else ""
        answers = [a for a in answers if a in (*LETTERS[: len(options)], told)]
    task = cell(row.get("task"))
    return usual_columns(
        row,
        id=row.get("id") if index is None else f"{index}-{type}",
        question=question,
        answers=answers,
        answerable=answerable if answers or answerable is False else None,
        options=options,
        pair=None if index is None else str(index % ROTATED),
        kind=row.get("l2-category"),
        category=row.get("category"),
        type=type or None,
        masked_answer=cell(row.get("masked_answer")) or None,
        task=task or None,
    )


def scienceqa(row: RawRow, config: DataConfig) -> Columns | None:
    """ScienceQA: school questions, about half of them without a picture (Lu et al. 2022,
    arXiv 2209.09513).

    In the official file a row's key is its id, and pictures lie in a folder per split and id.
    """
    if config.questions and config.split and row.get("split") != config.split:
        return None
    options, image = option_list(row.get("choices")), row.get("image")
    if config.questions and isinstance(image, str):
        image = f"{row.get('split')}/{row.get('id')}/{image}"
    return usual_columns(
        row,
        id=row.get("id"),
        image=image,
        question=_with_hint(row),
        answers=letter_of(row.get("answer"), options),
        options=options,
        split=row.get("split"),
        kind=row.get("subject"),
        topic=row.get("topic"),
    )


def mmmu(row: RawRow, config: DataConfig) -> Columns:
    """MMMU: college questions with up to seven pictures (Yue et al. 2023, arXiv 2311.16502).

    Open questions are matched as numbers or words; the official evaluation also takes an answer
    that the response only holds. A test split has "?" for answers.
    """
    options = option_list(row.get("options") or [])
    answers = literal_list(row.get("answer"))
    answers = [str(a) for a in (answers if isinstance(answers, list) else single(answers))]
    answers = [] if answers == ["?"] else answers
    return usual_columns(
        row,
        id=row.get("id"),
        answers=answers,
        options=options,
        metric="choice" if options else metric_of(answers[0] if answers else ""),
        kind=row.get("question_type"),
        subfield=row.get("subfield"),
    )


def aokvqa(row: RawRow, config: DataConfig) -> Columns:
    """A-OKVQA with its four choices (Schwenk et al. 2022, arXiv 2206.01718)."""
    options = option_list(row.get("choices"))
    answers = letter_of(row.get("correct_choice_idx"), options)
    return _aokvqa(row, config) | {
        "answers": answers,
        "answerable": True if answers else None,
        "options": options,
        "metric": "choice",
    }


def aokvqa_direct(row: RawRow, config: DataConfig) -> Columns:
    """A-OKVQA without its choices: ten answers in words, correct if two of them say the same."""
    answers = literal_list(row.get("direct_answers"))
    return _aokvqa(row, config) | {"answers": answers, "answerable": True if answers else None}


def _aokvqa(row: RawRow, config: DataConfig) -> Columns:
    image, number = row.get("image"), row.get("image_id")
    if not image and isinstance(number, int):  # the official file names COCO's pictures of 2017
        image = f"{number:012d}.jpg"
    hard = row.get("difficult_direct_answer")
    return usual_columns(row, image=image, split=row.get("split"), difficult_direct_answer=hard)


def mme(row: RawRow, config: DataConfig) -> Columns:
    """MME: two yes/no questions about each picture (Fu et al. 2023, arXiv 2306.13394).

    The two are a `pair`: accuracy+ is the share of pairs with both right.
    """
    picture, kind = row.get("question_id"), row.get("category")
    checksum = zlib.crc32((row.get("question") or "").encode("utf-8", "surrogateescape"))
    return usual_columns(
        row,
        id=None if picture is None else f"{kind}-{picture}-{checksum:08x}",
        answers=single(row.get("answer")),
        pair=None if picture is None else f"{kind}-{picture}",
        kind=kind,
    )
