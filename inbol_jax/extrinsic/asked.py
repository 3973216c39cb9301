"""Questions that were asked already: how similar another one about the same image is to them, and
whether an evaluation split of `--against` asks them about the same picture.

Texts are held as Python's hashes of 64 bits. Two of ten million texts share one with a probability
of 1 in 370,000.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.records import VQAExample

_WORD = re.compile(r"\w+")


def _normalise(question: str) -> str:
    """The question's words in lower case with a space around each, without punctuation."""
    return f" {' '.join(_WORD.findall(question.lower()))} "


def _shingles(line: str) -> set[str]:
    """All runs of three characters of a normalised question."""
    return {line[i : i + 3] for i in range(max(1, len(line) - 2))}


class AskedQuestions:
    """The questions that were asked about each image, in memory as one text per image."""

    def __init__(self) -> None:
        self._lines: dict[int, str] = {}  # by a hash of the image's path

    def add(self, image: str, question: str) -> None:
        """Remembers a question."""
        key, line = hash(image), _normalise(question)
        self._lines[key] = f"{self._lines[key]}\n{line}" if key in self._lines else line

    def similarity(self, image: str, question: str) -> float:
        """The largest Jaccard similarity of the question's runs of three characters to those of
        another question about the image, in [0, 1]."""
        asked = self._lines.get(hash(image))
        if asked is None:
            return 0.0
        own = _shingles(_normalise(question))
        others = map(_shingles, asked.split("\n"))
        return max(len(own & other) / len(own | other) for other in others)


class EvaluationQuestions:
    """Questions of evaluation splits, each with its picture; about 150 bytes per question.

    Texts are compared without case, punctuation and spaces, and pictures by their pixels: the same
    picture in another file is recognised, a scaled or recompressed one is not.

    Attributes:
      unreadable: number of images that cannot be decoded, so nothing is compared with them.
    """

    def __init__(self) -> None:
        self.unreadable = 0
        self._texts: set[int] = set()
        self._pairs: set[int] = set()

    def add(
        self, examples: Iterable[VQAExample], root: Path, advance: Callable[[], object]
    ) -> None:
        """Adds a split. An image is read once if its questions come one after the other.

        Args:
          root: image folder of the split.
          advance: called after each question.
        """
        image, digest = "", None
        for example in examples:
            for name in example.images:
                if name != image:
                    image, digest = name, _pixel_digest(root / name)
                    self.unreadable += digest is None
                if digest is not None:
                    text = _normalise(example.question)
                    self._texts.add(hash(text))
                    self._pairs.add(hash((text, digest)))
            advance()

    def contains(self, question: str, image: Path) -> bool:
        """Whether a split asks the question about the picture in the file."""
        text = _normalise(question)
        # Most texts are in no split, so most images need not be decoded.
        if hash(text) not in self._texts:
            return False
        digest = _pixel_digest(image)
        return digest is not None and hash((text, digest)) in self._pairs


def _pixel_digest(image: Path) -> str | None:
    try:
        return pixel_hash(load_image(image)).hex()
    except ImageError:
        return None
