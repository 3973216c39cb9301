"""From a row to a record: what each column must hold, and why a row cannot be used."""

import ast
import dataclasses
import io
import itertools
import re
import tokenize
from collections.abc import Mapping
from typing import Any

from inbol_jax.artifacts import parse_json
from inbol_jax.data.folder import Unusable
from inbol_jax.errors import InbolError
from inbol_jax.questions import LETTERS, check_metric
from inbol_jax.records import VQAExample

RawRow = Mapping[str, Any]  # a row as its source holds it: names of columns and their values
LITERAL = 1 << 16  # characters of a list that is written as a text


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """A record that was set aside.

    Attributes:
      line: its line or place in the source, from 1; None if only its image is at fault.
      id: its id, if it could be read.
      detail: what helps to mend it, such as the path that was looked for.
    """

    line: int | None
    id: str | None
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """A row of `rejected.jsonl`; half surrogate pairs, which cannot be written, are spelt."""
        row = dataclasses.asdict(self)
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        return row | {k: v.encode(errors="backslashreplace").decode() for k, v in texts.items()}


def parse_line(line: bytes) -> RawRow:
    """The JSON object that a line holds.

    Raises:
      Unusable: if it holds none, or text that is not UTF-8.
    """
    try:
        row = parse_json(line)
    except UnicodeError:
        raise Unusable("not UTF-8") from None
    except ValueError as error:
        raise Unusable("not JSON", str(error)) from None
    if not isinstance(row, dict):
        raise Unusable("not a JSON object")
    return row


def literal_list(value: Any) -> Any:
    """A list that a table holds as a text, as JSON, Python or numpy write it (`['a' 'b']`), as a
    list; any other value as it is.

    Raises:
      Unusable: if text in brackets is no such list.
    """
    if not (isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL)):
        return value
    try:
        return parse_json(value)
    except ValueError:
        pass
    try:
        found = ast.literal_eval(_with_commas(value.strip()[:LITERAL]))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list) or ... in found:  # numpy cuts a long list short by "..."
        raise Unusable("list unreadable")
    return found


def _with_commas(text: str) -> str:
    """The text of a list with commas between its items; to Python, 'a' 'b' would be one text."""
    words = [word.string for word in tokenize.generate_tokens(io.StringIO(text).readline)]
    words = [word for word in words if word.strip()]
    for i, (one, next) in reversed([*enumerate(itertools.pairwise(words), 1)]):
        if one not in "[{(,:-" and next not in "]}),:":
            words.insert(i, ",")
    return " ".join(words)


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

    An id may be an integer as well, and an answer an object with an "answer", as VQAv2 has them.

    Raises:
      Unusable: if a column is missing or holds a value that it cannot hold.
    """
    row = dict(row)
    if (id := record_id(row.get("id"))) is not None:
        row["id"] = id
    if isinstance(answers := row.get("answers"), list):
        row["answers"] = [a.get("answer") if isinstance(a, dict) else a for a in answers]
    try:
        example = VQAExample.from_json(row)
        check_metric(example.metric)
    except InbolError as cause:  # places in lists are no causes of their own
        raise Unusable(re.sub(r"\[\d+\]", "[]", str(cause))) from None
    options = example.options
    if not example.question.strip():
        raise Unusable("question blank")
    if not all(option.strip() for option in options):
        raise Unusable("option blank")
    if example.answerable and not any(answer.strip() for answer in example.answers):
        raise Unusable("answerable without answers")
    if example.answerable and options and example.metric == "choice":
        known = {*LETTERS[: len(options)].lower(), *map(_plain, options)}
        if not known & set(map(_plain, example.answers)):
            raise Unusable("answer none of the options")
    return example


def _plain(text: str) -> str:
    return text.lower().strip(" ().")
