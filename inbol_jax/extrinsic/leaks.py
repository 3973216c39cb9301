"""Which questions with which pictures are in the evaluation splits that `--against` names."""

from collections.abc import Callable, Iterable
from pathlib import Path

from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.extrinsic.contents import hash_texts
from inbol_jax.extrinsic.similarity import normalise
from inbol_jax.records import VQAExample


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
        self,
        examples: Iterable[VQAExample],
        root: Path,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """Adds a split. An image is read once if its questions come one after the other.

        Args:
          root: image folder of the split.
          advance: called after each question.
        """
        image, digest = "", None
        for example in examples:
            if example.image != image:
                image, digest = example.image, _pixel_digest(root / example.image)
                self.unreadable += digest is None
            if digest is not None:
                text = normalise(example.question)
                self._texts.add(hash_texts(text))
                self._pairs.add(hash_texts(text, digest))
            advance()

    def contains(self, question: str, image: Path) -> bool:
        """Whether a split asks the question about the picture in the file."""
        text = normalise(question)
        # Most texts are in no split, so most images need not be decoded.
        if hash_texts(text) not in self._texts:
            return False
        digest = _pixel_digest(image)
        return digest is not None and hash_texts(text, digest) in self._pairs


def _pixel_digest(image: Path) -> str | None:
    try:
        return pixel_hash(load_image(image)).hex()
    except ImageError:
        return None
