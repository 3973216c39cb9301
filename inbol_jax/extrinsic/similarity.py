"""How similar a question is to the other questions about its image."""

import re

from inbol_jax.extrinsic.contents import hash_texts

_WORD = re.compile(r"\w+")


def normalise(question: str) -> str:
    """The question's words in lower case with a space around each, without punctuation."""
    return f" {' '.join(_WORD.findall(question.lower()))} "


def shingles(line: str) -> set[str]:
    """All runs of three characters of a normalised question."""
    return {line[i : i + 3] for i in range(max(1, len(line) - 2))}


class AskedQuestions:
    """The questions that were asked about each image, in memory as one text per image."""

    def __init__(self) -> None:
        self._lines: dict[int, str] = {}  # by a hash of the image's path

    def add(self, image: str, question: str) -> None:
        """Remembers a question."""
        key = hash_texts(image)
        line = normalise(question)
        self._lines[key] = f"{self._lines[key]}\n{line}" if key in self._lines else line

    def similarity(self, image: str, question: str) -> float:
        """The largest Jaccard similarity of the question's shingles to those of another question
        about the image, in [0, 1]."""
        asked = self._lines.get(hash_texts(image))
        if asked is None:
            return 0.0
        own = shingles(normalise(question))
        others = map(shingles, asked.split("\n"))
        return max(len(own & other) / len(own | other) for other in others)
