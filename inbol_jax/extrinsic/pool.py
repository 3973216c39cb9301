"""The questions of a dataset at random access, and what they tell of each image, in bounded memory.

A question costs 8 bytes here (its place in a temporary file), its image some 200 and 4 for each word known of it.
"""

import hashlib
import json
import os
import re
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample

_WORD = re.compile(r"[a-z']+")


def words(text: str) -> set[str]:
    """The words of a text, lower case."""
    return set(_WORD.findall(text.lower()))


def hash_texts(*texts: str) -> int:
    """64 bits: among ten million different texts two are the same by chance once in 370 000."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        data = text.encode("utf-8", "replace")
        digest.update(len(data).to_bytes(8) + data)
    return int.from_bytes(digest.digest())


class Pool:
    """Examples on disk, in a file without a name that goes with the process; `len`, indexing and iteration are as a list's.

    Args:
      examples: read once, from any source.
      folder: where there is room for them.

    Raises:
      InbolError: when they cannot be written there.
    """

    def __init__(self, examples: Iterable[VQAExample], folder: Path):
        self._offsets = array("Q", [0])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
            for example in examples:
                line = json.dumps(example.to_json(), ensure_ascii=False).encode()
                self._file.write(line)
                self._offsets.append(self._offsets[-1] + len(line))
            self._file.flush()
        except OSError as error:
            raise InbolError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> VQAExample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._offsets[index], self._offsets[index + 1]
        row = json.loads(os.pread(self._file.fileno(), end - start, start))
        fixed = {name: row.pop(name) for name in ("id", "image", "question", "answerable")}
        return VQAExample(**fixed, answers=tuple(row.pop("answers")), extra=row)

    def __iter__(self) -> Iterator[VQAExample]:
        return (self[i] for i in range(len(self)))


class ImageFacts:
    """What is known of each image: its `objects` column where the dataset has one, and else its own questions and answers.

    A phrase is taken to be absent when one of its words names something in other images and nothing in this one.

    Attributes:
      annotated: whether every example lists its image's objects.
    """

    def __init__(self, examples: Iterable[VQAExample]):
        """Reads `examples` twice: whether all of them list objects decides what is taken of each."""
        self.annotated = all(isinstance(e.extra.get("objects"), list) for e in examples)
        self._ids: dict[str, int] = {}
        self._known: dict[str, array] = {}  # ids of words; an array of 4 bytes each, where a set would take 60
        for example in examples:
            if self.annotated:
                found = words(" ".join(map(str, example.extra["objects"])))
            else:
                found = words(example.question) | words(" ".join(example.answers))
            known = self._known.setdefault(example.image, array("I"))
            for word in found:
                if (id := self._ids.setdefault(word, len(self._ids))) not in known:
                    known.append(id)

    def absent(self, image: str, phrase: str) -> bool:
        """Whether the image lacks the thing; without an `objects` column this is a guess, from what was asked about it."""
        return any((id := self._ids.get(word)) is not None and id not in self._known[image] for word in words(phrase))

    def present(self, image: str, phrase: str) -> bool:
        """Whether each word of the phrase is known of the image."""
        return all(self._ids.get(word, -1) in self._known[image] for word in words(phrase))
