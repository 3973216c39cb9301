"""What a line of the table of sets (`sets.py`) says, and how a row is read by it."""

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from inbol_jax.data.rows import RawRow, Unusable, literal_list, record_id
from inbol_jax.questions import LETTERS
from inbol_jax.records import METRICS

# Columns in their order of preference, or a function of the row.
Column = str | tuple[str, ...] | Callable[[RawRow], Any] | None
Columns = dict[str, Any]  # those of `data.jsonl`, not validated yet, and any others

# What a row of an official file has beside its columns: the file's name, and the split of COCO's
# pictures that the names of files tell.
FILE, COCO = "official file", "coco"
BY_ANSWER = "by answer"  # the metric of a set whose questions get the one of their own answers
# MMBench and MM-UPD add this to the index of a question whose options are in another order.
ROTATED = 1_000_000
FLAGS = dict.fromkeys((True, "1", "1.0", "true", "yes", "answerable"), True)
FLAGS |= dict.fromkeys((False, "0", "0.0", "false", "no", "unanswerable"), False)


class Join(NamedTuple):
    """Two subsets on the hub, by the suffixes of their names."""

    questions: str
    pictures: str
    reference: str  # the column of a question that holds its picture's id


class Spec(NamedTuple):
    """How a set is read."""

    metric: str = METRICS[0]  # how its answers are matched
    prompt: str | None = None  # the preset of its own evaluation, written into the header
    hub: str | None = None  # a copy for the `datasets` library
    annotations: bool = False  # whether the official answers are in a file of their own
    split: Column = None
    splits: bool = False  # whether the official file holds several
    by_id: str | None = None  # the column of a row's key, if the file is an object of objects
    join: Join | None = None  # if the pictures of the copy on the hub are in their own subset
    base64: bool = False  # whether the official file holds pictures as text in base64
    text_only: bool = False  # whether rows without a picture ask about text alone
    numbered: bool = False  # whether rows without ids are numbered
    id: Column = ("question_id", "id", "index")
    image: Column = "image"
    question: Column = "question"
    options: Column = None
    answers: Column = "answers"
    answerable: Column = None  # by default a question is answerable if it has answers
    extra: Mapping[str, Column] = {}  # other columns, by their names in `data.jsonl`


def value(row: RawRow, column: Column) -> Any:
    """What a row holds in a column of a spec, None if nothing.

    Raises:
      Unusable: if the row has other columns, or other things in them, than the set.
    """
    if callable(column):
        try:
            return column(row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unusable("columns not as the set has them", repr(error)[:80]) from None
    names = (column,) if isinstance(column, str) else column or ()
    return next((row[name] for name in names if not is_null(row.get(name))), None)


def columns_of(row: RawRow, spec: Spec) -> Columns:
    """The columns of `data.jsonl` that a row of a public set gives, but for its images.

    Raises:
      Unusable: if a column holds what it cannot hold.
    """
    options = option_list(value(row, spec.options))
    answers = by_letter(answer_list(value(row, spec.answers)), options)
    answerable = value(row, spec.answerable)
    if spec.answerable is None or (answerable and not answers):
        answerable = bool(answers) or None  # without answers nobody can say
    metric = spec.metric
    if metric == BY_ANSWER:
        metric = "choice" if options else metric_of(str(answers[0]) if answers else "")
    columns = {name: value(row, column) for name, column in spec.extra.items()}
    columns |= {"id": value(row, spec.id), "question": value(row, spec.question)}
    columns |= {"answers": answers, "answerable": answerable, "options": options}
    return columns | {"metric": metric, "split": value(row, spec.split)}


def no_column(name: str, row: RawRow) -> Unusable:
    """What is wrong with a row without a column; it says which there are."""
    return Unusable(f"no column {name!r}", f"there are {', '.join(map(str, row))}")


def is_null(value: Any) -> bool:
    """Whether a table holds nothing there; NaN is pandas' and parquet's gap among numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def answer_list(value: Any, options: Sequence[str] = ()) -> list[Any]:
    """Answers as a list of texts: of texts or objects, of an object of lists, or of one text."""
    if isinstance(value, dict):
        value = value.get("answer")
    values = value if isinstance(value, list) else [] if value == "" else [value]
    values = [item.get("answer") if isinstance(item, dict) else item for item in values]
    return [number_text(item, options) for item in values if not is_null(item)]


def number_text(value: Any, options: Sequence[str] = ()) -> Any:
    """The text of a number, any other value as it is. Of 3.0 it is "3", if no option is "3.0":
    pandas makes floats of a column of integers with gaps."""
    whole = isinstance(value, float) and value.is_integer() and str(value) not in options
    return str(int(value) if whole else value) if isinstance(value, int | float) else value


def by_letter(answers: Sequence[Any], options: Sequence[str]) -> list[Any]:
    """The answers of a set that gives letters. If a letter is the text of an option as well, it
    would be read as that one: the text of its own option stands instead."""
    texts = dict(zip(LETTERS, options, strict=False))
    return [texts.get(answer, answer) if answer in options else answer for answer in answers]


def option_list(value: Any) -> list[str]:
    """A list of options, which some tables hold as a text; empty if there is nothing."""
    options = literal_list(value) or []
    if not isinstance(options, list):
        raise Unusable("options not a list")
    return [str(option) for option in options]


def letter_of(index: Any, options: Sequence[str]) -> list[str]:
    """The letter of a right option that is given by its number; none if no number is."""
    if is_null(index) or index == "":
        return []
    try:
        number = int(index)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < min(len(options), len(LETTERS)):
        raise Unusable("answer not the number of an option")
    return [LETTERS[number]]


def read_flag(value: Any) -> bool | None:
    """True or false, in any of the spellings that sets use."""
    value = value.strip().lower() if isinstance(value, str) else value
    if is_null(value) or value == "":
        return None
    if not isinstance(value, str | int | float) or value not in FLAGS:
        raise Unusable("answerable not true or false")
    return FLAGS[value]


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


# What several lines of the table use: functions of a row or a cell, or makers of such.


def cell(value: Any) -> str:
    """The text of a table's cell, empty if it holds nothing ("nan" and "None" are pandas')."""
    text = "" if is_null(value) else str(value).strip()
    return "" if text.lower() in ("nan", "none") else text


def text(name: str) -> Column:
    """A cell of a table, None if it is blank."""
    return lambda row: cell(row.get(name)) or None


def dashed(*columns: Column) -> Column:
    """An id made of several columns, None if one of them holds nothing."""

    def id(row: RawRow) -> str | None:
        parts = [value(row, column) for column in columns]
        return (
            None
            if None in parts or "" in parts
            else "-".join(str(number_text(part)) for part in parts)
        )

    return id


def checksum(row: RawRow) -> str:
    """Eight hex digits of the question, for the ids of sets that have none."""
    return f"{zlib.crc32(str(row.get('question')).encode('utf-8', 'surrogateescape')):08x}"


def listed(name: str) -> Column:
    """A list, which one copy of the set holds as a text."""
    return lambda row: literal_list(row.get(name))


def numbered_option(answer: str, options: str) -> Column:
    """The letter of the right option, by the column of its number and that of all options."""
    return lambda row: letter_of(row.get(answer), option_list(row.get(options)))


def lettered_columns(row: RawRow) -> list[str]:
    """The options in columns A, B, ... up to the first that is empty."""
    return list(itertools.takewhile(bool, (cell(row.get(letter)) for letter in LETTERS)))


def with_hint(row: RawRow) -> Any:
    """The question behind its hint, as the set's own prompts have them."""
    hint = cell(row.get("hint"))
    return f"{hint}\n{row['question']}" if hint else row["question"]


def pair(row: RawRow) -> str | None:
    """What a question shares with its rotations: the index without the mark of a rotation."""
    index = record_id(row.get("index")) or ""
    return str(int(index) % ROTATED) if index.isdecimal() else None


def official_path(template: str) -> Column:
    """The column `image`; in official files without it, a path made of other columns."""

    def image(row: RawRow) -> Any:
        if row.get("image") or FILE not in row:
            return row.get("image")
        if "{coco}" in template and row[COCO] is None:
            raise Unusable("split not known (--data.split train2014, val2014 or test2015)")
        return template.format_map(row)

    return image
