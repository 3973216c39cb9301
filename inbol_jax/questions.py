"""Records in files, and what a question is beside its text: images, options, a metric."""

import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta

from inbol_jax.errors import InbolError

# How responses are matched with gold answers (`responses.matching` computes them): a gold answer in
# a sentence, the VQA soft score of ten annotators, exact match after normalisation, yes or no,
# multiple choice, numbers within 5%. The first is the default.
METRICS = ("inclusion", "vqa", "exact", "yes_no", "choice", "numeric")

LETTERS = string.ascii_uppercase  # of the options of a multiple-choice question

Text = Annotated[str, Meta(min_length=1)]
Probability = Annotated[float, Meta(ge=0, le=1)]


class Record(msgspec.Struct, frozen=True):
    """A line of a JSON lines file. Its types are checked when it is read, not when it is made."""

    remedy: ClassVar[str] = "; mend the line, or run `inbol build` again"

    def to_json(self) -> dict[str, Any]:
        """The object of the line."""
        # Tuples are lists there, and what numpy has drawn is Python's.
        return msgspec.json.decode(msgspec.json.encode(self, enc_hook=lambda x: x.item()))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The record of a line's object; columns that it does not know are passed over.

        Raises:
          InbolError: naming the field at fault, in the words of msgspec.
        """
        try:
            return msgspec.convert(row, cls)
        except msgspec.ValidationError as error:
            raise InbolError(f"{error}{cls.remedy}") from None


class Question(Record, frozen=True):
    """A question about one image, about several, or about text alone.

    Attributes:
      id: unique within its dataset.
      images: their paths, relative to the dataset's image folder, in the order of the prompt.
      question: the text that the user asks.
    """

    id: Text
    images: tuple[Text, ...]
    question: str

    @property
    def image(self) -> str:
        """The first image, of questions that have one."""
        return self.images[0]


class WithOptions(Question, frozen=True, kw_only=True):
    """A question, and how its responses are matched.

    Attributes:
      options: what a multiple-choice question offers; at most as many as there are letters.
      source: name of the dataset that the question came from; empty if it is not known.
      split: split of that dataset; empty if it is not known.
      metric: how responses are matched with the gold answers, one of `METRICS`.
    """

    options: Annotated[tuple[str, ...], Meta(max_length=len(LETTERS))] = ()
    source: str = ""
    split: str = ""
    metric: str = METRICS[0]

    @property
    def whole(self) -> str:
        """The question with its options, as a page shows it (in its templates)."""
        return "\n".join((self.question, *lettered(self.options)))


def lettered(options: Sequence[str]) -> list[str]:
    """The options as a model is shown them: "A. red", "B. blue"."""
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def check_metric(metric: str) -> None:
    """Raises InbolError if a metric is none of `METRICS`."""
    if metric not in METRICS:
        raise InbolError(f"metric {metric!r} is not known; choose one of {', '.join(METRICS)}")
