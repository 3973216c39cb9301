"""Elements of a large JSON file, one by one; parsed whole, official files take gigabytes.

`ijson` is as fast in as little memory, but it refuses a whole file for one text that is not UTF-8,
and 100 kB of opening brackets let it fill the machine's memory (docs/architecture.md).
"""

import collections
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TextIO

from inbol_jax.errors import InbolError

CHUNK = 1 << 20  # characters that are read at once
MAX_OBJECT = 1 << 24  # characters of one object; if it is longer, the file counts as damaged
_BLANKS = re.compile(r"[ \t\n\r]*")
_AFTER_A_VALUE = frozenset(" \t\n\r,:]}")
_DECODER = json.JSONDecoder()


class _Reader:
    """Reads JSON through a window that slides over the file's text."""

    def __init__(self, file: TextIO):
        self._file, self._text, self._at, self._ended = file, "", 0, False

    def _fill(self) -> None:
        more = self._file.read(CHUNK)
        self._text, self._at, self._ended = self._text[self._at :] + more, 0, not more

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill()

    def _take(self, expected: str) -> None:
        character = self.peek()
        if not character:
            raise ValueError("the file ends too early")
        if character != expected:
            raise ValueError(f"{expected!r} expected, not {character!r}")
        self._at += 1

    def value(self) -> Any:
        """The value that comes next, parsed."""
        self.peek()
        while True:
            fault: Exception = ValueError("a number that does not end")
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # At the end of the window, "12" may be the beginning of "123".
                if self._ended or self._text[end : end + 1] in _AFTER_A_VALUE:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                fault = error
            if self._ended or len(self._text) - self._at > MAX_OBJECT:
                raise fault
            self._fill()

    def _between(self, opening: str, closing: str) -> Iterator[None]:
        """Comes to each place between the brackets where the caller reads an item."""
        self._take(opening)
        while self.peek() != closing:
            yield
            if self.peek() != closing:
                self._take(",")
        self._take(closing)

    def elements(self) -> Iterator[Any]:
        """The elements of the array that comes next."""
        for _ in self._between("[", "]"):
            yield self.value()

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; the caller reads the value of each."""
        for _ in self._between("{", "}"):
            key = self.value()
            self._take(":")
            yield key


def json_objects(
    path: Path, *, keys: tuple[str, ...] = (), by_id: str | None = None
) -> Iterator[Any]:
    """The elements of a file's array, in bounded memory.

    Bytes that are not UTF-8 become lone surrogates: only the records that hold them are set aside.

    Args:
      path: a JSON array, or an object with one under one of `keys`.
      by_id: the field that gets an object's key, if the file is an object of objects (GQA).

    Raises:
      InbolError: if the file cannot be read, is not JSON up to its end, or holds no such array.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = _Reader(file)
            has_records = yield from _elements(reader, keys, by_id)
            if reader.peek():
                raise ValueError("there is more behind its end")
    except (ValueError, RecursionError) as error:
        raise InbolError(f"{path}: not whole JSON ({error}); fetch it again") from error
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error
    if not has_records:
        names = f" under {' or '.join(map(repr, keys))}" if keys else ""
        raise InbolError(f"{path}: holds no list of records{names}")


def _elements(
    reader: _Reader, keys: tuple[str, ...], by_id: str | None
) -> Generator[Any, None, bool]:
    """Yields the records. Returns whether the file has a place for them."""
    if reader.peek() == "[":
        yield from reader.elements()
        return True
    has_records = False
    for key in reader.members():
        if by_id is not None:
            value, has_records = reader.value(), True
            yield {by_id: key} | value if isinstance(value, dict) else value
        elif key in keys and not has_records:
            has_records = True
            yield from reader.elements()
        elif reader.peek() == "[":
            collections.deque(reader.elements(), maxlen=0)  # skipped in bounded memory
        else:
            reader.value()
    return has_records
