"""Objects of a large JSON file one after the other: the official annotation files are hundreds of megabytes, and gigabytes once parsed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from inbol_jax.errors import InbolError

CHUNK = 1 << 20  # characters
MAX_OBJECT = 1 << 24  # characters of one object, beyond which a file is taken as damaged
_BLANK = re.compile(r"[ \t\n\r]*")
_BEHIND_A_VALUE = frozenset(" \t\n\r,:]}")
_DECODER = json.JSONDecoder()


class _Reader:
    """A window that slides over the file's text."""

    def __init__(self, file: TextIO):
        self.file, self.text, self.at, self.ended = file, "", 0, False

    def fill(self) -> None:
        more = self.file.read(CHUNK)
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.fill()

    def take(self, character: str) -> None:
        if (found := self.peek()) != character:
            raise ValueError(
                f"{character!r} expected, not {found!r}" if found else "the file ends too early"
            )
        self.at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            fault: Exception = ValueError("a number that does not end")
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if (
                    self.ended or self.text[end : end + 1] in _BEHIND_A_VALUE
                ):  # else it is the beginning of a longer number
                    self.at = end
                    return value
            except (ValueError, RecursionError) as error:
                fault = error
            if self.ended or len(self.text) - self.at > MAX_OBJECT:
                raise fault
            self.fill()

    def elements(self) -> Iterator[Any]:
        """Of the array that comes next."""
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def members(self) -> Iterator[str]:
        """Keys of the object that comes next; who takes a key reads its value before the next one."""
        self.take("{")
        while self.peek() != "}":
            key = self.value()
            self.take(":")
            yield key
            if self.peek() != "}":
                self.take(",")
        self.take("}")

    def skip(self) -> None:
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()


def json_objects(
    path: Path, *, keys: tuple[str, ...] = (), by_id: str | None = None
) -> Iterator[Any]:
    """The elements of a file's array, in bounded memory.

    Bytes that are not UTF-8 become lone surrogates, so that the record that holds them can be told from the others.

    Args:
      path: a JSON array, an object that holds one, or (`by_id`) an object of objects.
      keys: of the object's array, any of them.
      by_id: the field that gets an object's key, where the file is an object of objects (GQA).

    Raises:
      InbolError: where the file cannot be read, is no JSON up to its end, or holds no such array.
    """
    found = False
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = _Reader(file)
            if reader.peek() == "[":
                found = True
                yield from reader.elements()
            else:
                for key in reader.members():
                    if by_id is not None:
                        value, found = reader.value(), True
                        yield {by_id: key} | value if isinstance(value, dict) else value
                    elif key in keys and not found:
                        found = True
                        yield from reader.elements()
                    else:
                        reader.skip()
            if reader.peek():
                raise ValueError("there is more behind its end")
    except (ValueError, RecursionError) as error:
        raise InbolError(f"{path}: not whole JSON ({error}); fetch it again") from error
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error
    if not found:
        raise InbolError(
            f"{path}: holds no list of records"
            + (f" under {' or '.join(map(repr, keys))}" if keys else "")
        )
