"""How the columns of any set become those of `data.jsonl`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inbol_jax.data.folder import Unusable
from inbol_jax.data.rows import RawRow, literal_list
from inbol_jax.questions import LETTERS

FLAGS = dict.fromkeys((True, "1", "1.0", "true", "yes", "answerable"), True)
FLAGS |= dict.fromkeys((False, "0", "0.0", "false", "no", "unanswerable"), False)


def is_null(value: Any) -> bool:
    """Whether a table holds nothing there; NaN is pandas' and parquet's gap among numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def name_of(row: RawRow, *names: str) -> str | None:
    """The first name under which the row holds something."""
    return next((name for name in names if not is_null(row.get(name))), None)


def first(row: RawRow, *names: str) -> Any:
    """What the row holds under the first of these names that it has, None if nothing."""
    return row.get(name_of(row, *names))


def named_columns(row: RawRow, image: str | None, question: str, answers: str | None) -> RawRow:
    """The columns of a row of any set. Options name three of them."""
    names = {
        "id": name_of(row, "id", "question_id"),
        "image": name_of(row, *([image] if image else ["image", "images"])),
        "question": name_of(row, question),
        "options": name_of(row, "options", "choices"),
        "answers": name_of(row, *([answers] if answers else ["answers", "answer"])),
    }
    others = {name: value for name, value in row.items() if name not in names.values()}
    return others | {name: row.get(column) for name, column in names.items()}


def cleaned(columns: RawRow, *, letters: bool) -> dict[str, Any]:
    """The columns as records hold them: answers and options are lists, flags true or false.

    Args:
      letters: whether an answer that is a letter is that of an option, even if it is the text of
        another option as well.

    Raises:
      Unusable: if a column holds what it cannot hold.
    """
    offered = literal_list(columns.get("options"))
    offered = [] if is_null(offered) or offered == "" else offered
    if not isinstance(offered, list):
        raise Unusable("options not a list")
    options = [str(option) for option in offered]
    answers = _answers(columns.get("answers"), options, letters, {*map(type, offered)} == {str})
    answerable = read_flag(columns["answerable"]) if "answerable" in columns else True
    if answerable and not answers:
        answerable = None  # without answers nobody can say
    passed = {name: plain(value) for name, value in columns.items() if name != "image"}
    made = {"id": columns["id"], "answers": answers, "answerable": answerable, "options": options}
    return {name: value for name, value in (passed | made).items() if value is not None}


def _answers(value: Any, options: Sequence[str], letters: bool, texts_only: bool) -> list[Any]:
    """Answers as a list of texts: of texts or objects, of an object of lists, or of one text; of
    the number of an option, its letter. With options that are `texts_only`, a number is no text."""
    value = literal_list(value.get("answer") if isinstance(value, Mapping) else value)
    values = value if isinstance(value, list) else [] if value == "" else [value]
    values = [item.get("answer") if isinstance(item, Mapping) else item for item in values]
    answers = [number_text(item, options) for item in values if not is_null(item)]
    number = str(answers[0]) if options and answers and not isinstance(value, list) else ""
    is_place = texts_only and isinstance(value, int | float)
    if number.isdecimal() and (is_place or number not in options):
        if int(number) >= min(len(options), len(LETTERS)):
            raise Unusable("answer not the number of an option")
        answers, letters = [LETTERS[int(number)]], True
    if letters:
        # A letter that is the text of an option as well would be read as that one: the text of its
        # own option stands instead.
        texts = dict(zip(LETTERS, options, strict=False))
        answers = [texts.get(answer, answer) if answer in options else answer for answer in answers]
    return answers


def number_text(value: Any, options: Sequence[str] = ()) -> Any:
    """The text of a number, any other value as it is. Of 3.0 it is "3", if no option is "3.0":
    pandas makes floats of a column of integers with gaps."""
    whole = isinstance(value, float) and value.is_integer() and str(value) not in options
    return str(int(value) if whole else value) if isinstance(value, int | float) else value


def read_flag(value: Any) -> bool | None:
    """True or false, in any of the spellings that sets use."""
    value = value.strip().lower() if isinstance(value, str) else value
    if is_null(value) or value == "":
        return None
    if not isinstance(value, str | int | float) or value not in FLAGS:
        raise Unusable("answerable not true or false")
    return FLAGS[value]


def plain(value: Any) -> Any:
    """A value that JSON can hold, None for any other."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None
