"""A prediction: what one model says to one question, and a line of `predictions.jsonl`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.records import METRICS

DOMAINS = ("in_domain", "out_of_domain")
TYPES = (1, None, 2, 3)  # None: Mixed, between the two thresholds
OUTCOMES = ("correct", "refused", "wrong")

# The names in memory of the columns whose names on disk are too short to be clear.
_FIELD_OF_COLUMN = {"kind": "question_kind", "prediction": "response"}


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What one model says to one question.

    Attributes:
      id: the question's id, unique within its dataset.
      dataset: the name of the question's dataset.
      domain: one of `DOMAINS`.
      model: the name of the model, as in `--models`.
      image: the path of the image, relative to the dataset's image folder.
      question: the question, as the user asks it.
      answers: the gold answers with multiplicity; empty for Type 3.
      type: 1, 2 or 3, by the base's confidence; None for Mixed.
      question_kind: the column `kind` of the dataset; empty if it has none.
      confidence: the base's confidence, in [0, 1]; 0 for Type 3 by construction.
      response: what the model says; the column `prediction` on disk.
      outcome: one of `OUTCOMES`.
      metric: how the response was matched with the gold answers, as in `VQAExample`.
    Raises:
      InbolError: if a field holds what it cannot. The error names the prediction and the field.
    """

    id: str
    dataset: str
    domain: str
    model: str
    image: str
    question: str
    answers: tuple[str, ...]
    type: int | None
    question_kind: str
    confidence: float
    response: str
    outcome: str
    metric: str = METRICS[0]

    def __post_init__(self) -> None:
        cause = ""
        for name, allowed in (("domain", DOMAINS), ("type", TYPES), ("outcome", OUTCOMES)):
            if getattr(self, name) not in allowed:
                cause = f"{name} {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}"
        texts = (self.id, self.dataset, self.model, self.image, self.question, self.question_kind)
        if not all(isinstance(text, str) for text in (*texts, self.response, *self.answers)):
            cause = "a text was expected where something else stands"
        if not isinstance(self.confidence, float | int):
            cause = f"confidence {self.confidence!r} is no number"
        if cause:
            raise InbolError(
                f"prediction {self.id!r} of {self.model}: {cause}; run `inbol evaluate` again"
            )

    def to_json(self) -> dict[str, Any]:
        """The line of `predictions.jsonl`; it holds the metric only if that is not the default."""
        row = dataclasses.asdict(self) | {"answers": list(self.answers)}
        if self.metric == METRICS[0]:
            del row["metric"]
        columns = {field: column for column, field in _FIELD_OF_COLUMN.items()}
        return {columns.get(field, field): value for field, value in row.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        """The prediction on a line of `predictions.jsonl`.

        Raises:
          InbolError: if the line is no prediction.
        """
        fields = {_FIELD_OF_COLUMN.get(column, column): value for column, value in row.items()}
        try:
            return cls(**(fields | {"answers": tuple(row["answers"])}))
        except (KeyError, TypeError) as error:
            raise InbolError(
                f"prediction {row.get('id', '(no id)')!r}: not a line of predictions.jsonl "
                f"({error}); run `inbol evaluate` again"
            ) from error


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a `predictions.jsonl`.

    Raises:
      InbolError: if the file is missing, or a line is no prediction.
    """
    return [Prediction.from_json(row) for row in read_jsonl(file)]
