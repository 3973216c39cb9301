"""What adapters of sets share: columns of `data.jsonl` from the many spellings of rows."""

import math
from collections.abc import Sequence
from typing import Any

from inbol_jax.data.rows import RawRow, Unusable
from inbol_jax.data.sources import literal_list
from inbol_jax.questions import LETTERS, METRICS

Columns = dict[str, Any]  # those of `data.jsonl`, not validated yet, and any others

FLAGS = dict.fromkeys((True, "1", "1.0", "true", "yes", "answerable"), True)
FLAGS |= dict.fromkeys((False, "0", "0.0", "false", "no", "unanswerable"), False)


def usual_columns(row: RawRow, **columns: Any) -> Columns:
    """The columns that are given; of the others those under their most frequent names.

    Without answers, as in a test split that does not publish them, `answerable` is None.
    """
    usual = {name: row.get(name) for name in ("image", "question", "answers")}
    usual["id"] = row.get("question_id")
    usual["answerable"] = True if columns.get("answers", row.get("answers")) else None
    return usual | columns


def read_flag(value: Any) -> bool | None:
    """True or false, in any of the spellings that sets use."""
    value = value.strip().lower() if isinstance(value, str) else value
    if is_null(value) or value == "":
        return None
    if not isinstance(value, str | int | float) or value not in FLAGS:
        raise Unusable("answerable not true or false")
    return FLAGS[value]


def is_null(value: Any) -> bool:
    """Whether a table holds nothing there; NaN is pandas' and parquet's gap among numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def single(answer: Any) -> list[Any]:
    """A list of the one answer, or of none."""
    return [] if answer is None or answer == "" else [answer]


def metric_of(answer: str) -> str:
    """The metric for a gold answer that is a yes or no, an option's letter, a number, or words."""
    plain = answer.strip(" .()").lower()
    if plain in ("yes", "no"):
        return "yes_no"
    if len(plain) == 1 and plain.isalpha():
        return "choice"
    try:
        return "numeric:0" if math.isfinite(float(plain.replace(",", ""))) else METRICS[0]
    except ValueError:
        return METRICS[0]


def plain(value: Any) -> Any:
    """A value that JSON can hold, None for any other."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None


def cell(value: Any) -> str:
    """The text of a table's cell, empty if it holds nothing ("nan" and "None" are pandas')."""
    if is_null(value):
        return ""
    text = str(value).strip()
    return "" if text.lower() in ("nan", "none") else text


def option_list(value: Any) -> list[str]:
    """A list of options, which some tables hold as a text."""
    options = literal_list(value)
    if not isinstance(options, list):
        raise Unusable("options not a list")
    return [str(option) for option in options]


def answer_text(answer: Any, options: Sequence[str] = ()) -> str:
    """The text of an answer. The text of an option goes before any other reading.

    Of 3.0 it is "3", as pandas makes floats of a column of integers with gaps. The text of one
    option that would be read as the letter of another becomes the letter of its own.
    """
    text = str(answer)
    if text in options[: len(LETTERS)]:
        lettered = text.strip(" ().").upper() in {*LETTERS[: len(options)]}
        return LETTERS[options.index(text)] if lettered else text
    whole = isinstance(answer, float) and answer.is_integer()
    return str(int(answer)) if whole else text


def letter_of(index: Any, options: list[Any]) -> list[str]:
    """The letter of a right option that is given by its number; none if no number is."""
    if index is None or index == "":
        return []
    try:
        number = int(index)
    except (TypeError, ValueError):
        raise Unusable("answer not the number of an option") from None
    if not 0 <= number < min(len(options), len(LETTERS)):
        raise Unusable("answer not the number of an option")
    return [LETTERS[number]]
