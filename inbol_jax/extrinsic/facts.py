"""What a dataset's records tell of each image, in bounded memory: some 200 bytes an image, and 4 for each word known of it."""

import hashlib
import re
from array import array
from collections.abc import Iterable

from inbol_jax.records import VQAExample

# Places and attributes: every image has them, so none is ever taken to be missing, or to be a thing that can be asked about.
_PLACES = """left right top bottom middle center centre side sides front back rear corner edge end background foreground distance position
    direction image images picture pictures photo photograph scene view frame rest"""
_ATTRIBUTES = """color colors colour colours name names number amount kind type sort shape size style pattern brand purpose time day date
    year season weather word words one ones same"""
NOT_THINGS = frozenset(f"{_PLACES} {_ATTRIBUTES}".split())
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
        self._known: dict[
            str, array
        ] = {}  # ids of words; an array of 4 bytes each, where a set would take 60
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
        said = words(phrase) - NOT_THINGS
        return any(
            (id := self._ids.get(word)) is not None and id not in self._known[image]
            for word in said
        )

    def present(self, image: str, phrase: str) -> bool:
        """Whether each word of the phrase is known of the image."""
        return all(self._ids.get(word, -1) in self._known[image] for word in words(phrase))
