"""From a row to a record: what each column must hold, and why a row cannot be used."""

import ast
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from inbol_jax.artifacts import parse_json
from inbol_jax.data.folder import Unusable
from inbol_jax.errors import InbolError
from inbol_jax.questions import LETTERS, read_image_columns
from inbol_jax.records import METRICS, VQAExample, parse_metric

RawRow = Mapping[str, Any]  # a row as its source holds it: names of columns and their values
COLUMNS = ("id", "image", "images", "question", "answers", "answerable", "options")
COLUMNS += ("source", "split", "metric")


LITERAL = 1 << 16  # characters of a list that is written as a text


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """A record that was set aside."""

    line: int | None
    """Its line or place in the source, from 1; None if only its image is at fault."""
    id: str | None
    """Its id, if it could be read; half surrogate pairs, which cannot be written, are spelt out."""
    reason: str
    detail: str = ""
    """What helps to mend it, such as the path that was looked for."""

    def __post_init__(self) -> None:
        for name in ("id", "detail"):
            if not (getattr(self, name) or "").isascii():
                spelt = getattr(self, name).encode(errors="backslashreplace").decode()
                object.__setattr__(self, name, spelt)


def parse_line(line: bytes) -> RawRow:
    """The JSON object that a line holds.

    Raises:
      Unusable: if it holds none, or text that is not UTF-8.
    """
    try:
        row = parse_json(line)
    except UnicodeError:
        raise Unusable("not UTF-8", id=_id_of_other_text(line)) from None
    except ValueError:
        raise Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise Unusable("not a JSON object")
    return row


def _id_of_other_text(line: bytes) -> str | None:
    """The id of a record whose text is not UTF-8; its undecodable bytes are spelt out."""
    try:
        row = json.loads(line.decode(errors="backslashreplace").replace("\\x", "\\\\x"))
    except (ValueError, RecursionError):
        return None
    return record_id(row.get("id")) if isinstance(row, dict) else None


def literal_list(value: Any) -> Any:
    """A list that a table holds as a text, "['a', 'b']" in Python's or JSON's spelling, as a list;
    any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("[") and len(value) <= LITERAL:
        try:
            found = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return value
        return found if isinstance(found, list) else value
    return value


def record_id(value: Any) -> str | None:
    """An id as a string, None if the value cannot be one. Of 3.0, as tables hold whole numbers in a
    column with gaps, it is "3"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)


def make_example(row: RawRow) -> VQAExample:
    """The record of a row that has the columns of `data.jsonl`; all others go to `extra`.

    Raises:
      Unusable: if a column is missing or holds a value that it cannot hold.
    """
    id = record_id(row.get("id"))
    if id is None:
        raise Unusable("id missing" if row.get("id") in (None, "") else "id not a string")
    question = _text(row, "question")
    try:
        image = read_image_columns(row)
    except ValueError as cause:
        raise Unusable(str(cause)) from None
    given = [] if row.get("answers") is None else row["answers"]
    if not isinstance(given, list):
        raise Unusable("answers not a list")
    answers = tuple(item.get("answer") if isinstance(item, dict) else item for item in given)
    if not all(isinstance(answer, str) for answer in answers):
        raise Unusable("answer not a string")
    answerable = row.get("answerable")
    if answerable is not None and not (isinstance(answerable, int) and answerable in (0, 1)):
        raise Unusable("answerable not true, false or null")
    if answerable and not any(answer.strip() for answer in answers):
        raise Unusable("answerable without answers")
    source, split = row.get("source") or "", row.get("split") or ""
    if not (isinstance(source, str) and isinstance(split, str)):
        raise Unusable("source or split not a string")
    options = _options(row)
    metric = row.get("metric") or ("choice" if options else METRICS[0])
    try:
        parse_metric(metric)
    except (InbolError, AttributeError, TypeError):
        raise Unusable("metric not known") from None
    if answerable and options and metric == "choice":
        known = {*LETTERS[: len(options)].lower(), *map(_plain, options)}
        if not known & set(map(_plain, answers)):
            raise Unusable("answer none of the options")
    return VQAExample(
        id=id,
        image=image,
        question=question,
        answers=answers,
        answerable=None if answerable is None else bool(answerable),
        extra={name: value for name, value in row.items() if name not in COLUMNS},
        source=source,
        split=split,
        metric=metric,
        options=options,
    )


def _options(row: RawRow) -> tuple[str, ...]:
    options = [] if row.get("options") is None else row["options"]
    if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
        raise Unusable("options not a list of strings")
    if len(options) > len(LETTERS):
        raise Unusable(f"more than {len(LETTERS)} options")
    return tuple(options)


def _plain(text: str) -> str:
    return text.lower().strip(" ().")


def _text(row: RawRow, column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise Unusable(f"{column} not a string")
    if not value or not value.strip():
        raise Unusable(f"{column} missing")
    return value
