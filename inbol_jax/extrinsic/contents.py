"""What a dataset's records tell of each image's contents, in about 200 bytes per image and 4 per
known word."""

import re
from array import array
from collections import Counter
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
        self._word_ids: dict[str, int] = {}
        self._known: dict[str, array] = {}  # image -> word ids, 4 bytes each
        self._images_with: Counter[int] = Counter()  # by word id
        # {"red": 0, "star": 1, "ring": 2} and {"a.png": [0, 1], "b.png": [2]}: a word stands once.
        for example in examples:
            known = self._known.setdefault(example.image, array("I"))
            texts = (example.question, *example.answer_texts)
            if self.lists_objects:
                texts = map(str, example.extra["objects"])
            for word in words_of(" ".join(texts)):
                word_id = self._word_ids.setdefault(word, len(self._word_ids))
                if word_id not in known:
                    known.append(word_id)
                    self._images_with[word_id] += 1

    def absent(self, image: str, phrase: str) -> bool:
        """Whether a word of the phrase is known of other images and not of this one.

        Without an `objects` column this is a guess from what was asked about the image.
        """
        ids = (self._word_ids.get(word) for word in words_of(phrase) - NOT_THINGS)
        return any(i is not None and i not in self._known[image] for i in ids)

    def surely_absent(self, image: str, phrase: str) -> bool:
        """Whether this image does not hold what the phrase names, by its listed objects.

        Without an `objects` column silence tells it of things that are known of few images alone:
        most images that hold a man, a tree or a wall are never asked about it.
        """
        head = phrase.split()[-1]
        forms = (self._word_ids.get(form) for form in {head, head.removesuffix("s"), f"{head}s"})
        ids = [i for i in forms if i is not None]
        images = sum(self._images_with[i] for i in ids)
        if head in NOT_THINGS or any(i in self._known[image] for i in ids):
            return False
        if self.lists_objects:
            return self.absent(image, phrase)
        return 0 < images <= RARE * len(self._known)

    def present(self, image: str, phrase: str) -> bool:
        """Whether each word of the phrase is known of the image."""
        ids = (self._word_ids.get(word, -1) for word in words_of(phrase))
        return all(i in self._known[image] for i in ids)
