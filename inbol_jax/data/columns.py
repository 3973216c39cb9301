"""What a line of the table of sets (`sets.py`) says, and how a row is read by it."""

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from inbol_jax.data.folder import Unusable
from inbol_jax.data.rows import RawRow, literal_list, record_id
from inbol_jax.questions import LETTERS, METRICS

# Columns in their order of preference, or a function of the row.
Column = str | tuple[str, ...] | Callable[[RawRow], Any] | None

# What a row of a text file has beside its columns: the file's name, and the split of COCO's
# pictures that the names of files tell.
FILE, COCO = "official file", "coco"
BY_ANSWER = "by answer"  # the metric of a set whose questions get the one of their own answers
# MMBench and MM-UPD add this to the index of a question whose options are in another order.
ROTATED = 1_000_000
FLAGS = dict.fromkeys((True, "1", "1.0", "true", "yes", "answerable"), True)
FLAGS |= dict.fromkeys((False, "0", "0.0", "false", "no", "unanswerable"), False)


class Spec(NamedTuple):
    """How a set is read."""

    # How its answers are matched; None is the row's own, or `choice` with options.
    metric: str | None = None
    prompt: str | None = None  # the preset of its own evaluation, written into the header
    hub: str | None = None  # a copy for the `datasets` library
    annotations: bool = False  # whether the official answers are in a file of their own
    split: Column = None
    splits: bool = False  # whether the official file holds several
    by_id: str | None = None  # the column of a row's key, if the file is an object of objects
    base64: bool = False  # whether the official file holds pictures as text in base64
    numbered: bool = False  # whether rows without ids are numbered
    id: Column = ("question_id", "id", "index")
    image: Column = "image"
    question: Column = "question"
    options: Column = None
    answers: Column = "answers"  # with options also the number of the right one, from 0 on
    answerable: Column = None  # by default a question is answerable if it has answers
    extra: Mapping[str, Column] | None = {}  # other columns; None keeps all


def name_of(row: RawRow, column: str | tuple[str, ...]) -> str | None:
    """The first name of a column under which the row holds something."""
    names = (column,) if isinstance(column, str) else column
    return next((name for name in names if not is_null(row.get(name))), None)


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
    name = name_of(row, column or ())
    return None if name is None else row[name]


def columns_of(row: RawRow, spec: Spec) -> dict[str, Any]:
    """The columns of `data.jsonl` that a row gives, but for its images.

    Raises:
      Unusable: if a column holds what it cannot hold.
    """
    options = literal_list(value(row, spec.options)) or []
    if not isinstance(options, list):
        raise Unusable("options not a list")
    options = [str(option) for option in options]
    answers = _answers(value(row, spec.answers), options, letters=spec.extra is not None)
    answerable = True
    if callable(spec.answerable) or spec.answerable in row:
        answerable = read_flag(value(row, spec.answerable))
    if answerable and not answers:
        answerable = None  # without answers nobody can say
    columns = _extra(row, spec)
    columns |= {"id": value(row, spec.id), "question": value(row, spec.question)}
    columns |= {"answers": answers, "answerable": answerable, "options": options}
    if spec.metric == BY_ANSWER:
        columns["metric"] = "choice" if options else metric_of(str(answers[0]) if answers else "")
    elif spec.metric is not None:
        columns["metric"] = spec.metric
    if spec.split:
        columns["split"] = value(row, spec.split)
    return columns


def _extra(row: RawRow, spec: Spec) -> dict[str, Any]:
    """The columns that are passed on as they are."""
    if spec.extra is not None:
        return {name: plain(value(row, column)) for name, column in spec.extra.items()}
    columns = [spec.id, spec.image, spec.question, spec.options, spec.answers]
    used = {name_of(row, column) for column in columns} | {spec.answerable}
    return {name: plain(cell) for name, cell in row.items() if name not in used}


def _answers(value: Any, options: Sequence[str], letters: bool) -> list[Any]:
    """Answers as a list of texts: of texts or objects, of an object of lists, or of one text; of
    the number of an option, its letter. `letters` says that the set gives letters."""
    value = literal_list(value.get("answer") if isinstance(value, dict) else value)
    values = value if isinstance(value, list) else [] if value == "" else [value]
    values = [item.get("answer") if isinstance(item, dict) else item for item in values]
    answers = [number_text(item, options) for item in values if not is_null(item)]
    number = str(answers[0]) if options and answers and not isinstance(value, list) else ""
    if number.isdecimal() and number not in options:
        if int(number) >= min(len(options), len(LETTERS)):
            raise Unusable("answer not the number of an option")
        answers, letters = [LETTERS[int(number)]], True
    if letters:
        # A letter that is the text of an option as well would be read as that one: the text of its
        # own option stands instead.
        texts = dict(zip(LETTERS, options, strict=False))
        answers = [texts.get(answer, answer) if answer in options else answer for answer in answers]
    return answers


def is_null(value: Any) -> bool:
    """Whether a table holds nothing there; NaN is pandas' and parquet's gap among numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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
        parts = [str(number_text(value(row, column)) or "") for column in columns]
        return "-".join(parts) if all(parts) else None

    return id


def checksum(row: RawRow) -> str:
    """Eight hex digits of the question, for the ids of sets that have none."""
    return f"{zlib.crc32(str(row.get('question')).encode('utf-8', 'surrogateescape')):08x}"


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
