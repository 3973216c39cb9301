"""What a dataset's records tell of each image's contents."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from inbol_jax.records import VQAExample

# Every image has places and attributes, so none of them is ever taken to be missing, or to be a
# thing that can be asked about.
_PLACES = """left right top bottom middle center centre side sides front back rear corner edge end
    background foreground distance position direction image images picture pictures photo photograph
    scene view frame rest"""
_ATTRIBUTES = """color colors colour colours name names number amount kind type sort shape size
    style pattern brand purpose time day date year season weather word words one ones same"""
RARE = 0.02  # share of the images of which a word is known
NOT_THINGS = frozenset(f"{_PLACES} {_ATTRIBUTES}".split())
_WORD = re.compile(r"[a-z']+")


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(_WORD.findall(text.lower()))


class ImageContents:
    """Which words are known of each image: those of its `objects` column if every record has one,
    and otherwise those of its questions and answers. The examples are read twice.

    Attributes:
      lists_objects: whether every record lists its image's objects.
    """

    def __init__(self, examples: Iterable[VQAExample]):
        self.lists_objects = all(isinstance(e.extra.get("objects"), list) for e in examples)
        # {"a.png": {"red", "star"}}
        self._known: defaultdict[str, set[str]] = defaultdict(set)
        for example in examples:
            texts = (example.question, *example.answer_texts)
            if self.lists_objects:
                texts = map(str, example.extra["objects"])
            self._known[example.image] |= words_of(" ".join(texts))
        self._images_with = Counter(word for words in self._known.values() for word in words)

    def absent(self, image: str, phrase: str) -> bool:
        """Whether a word of the phrase is known of other images and not of this one.

        Without an `objects` column this is a guess from what was asked about the image.
        """
        missing = words_of(phrase) - NOT_THINGS - self._known[image]
        return any(word in self._images_with for word in missing)

    def surely_absent(self, image: str, phrase: str) -> bool:
        """Whether this image does not hold what the phrase names, by its listed objects.

        Without an `objects` column silence tells it of things that are known of few images alone:
        most images that hold a man, a tree or a wall are never asked about it.
        """
        head = phrase.split()[-1]
        forms = {head, head.removesuffix("s"), f"{head}s"}
        if head in NOT_THINGS or forms & self._known[image]:
            return False
        if self.lists_objects:
            return self.absent(image, phrase)
        return 0 < sum(self._images_with[form] for form in forms) <= RARE * len(self._known)

    def present(self, image: str, phrase: str) -> bool:
        """Whether each word of the phrase is known of the image."""
        return words_of(phrase) <= self._known[image]
