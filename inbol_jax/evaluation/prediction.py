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


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What one model says to one question.

    Attributes:
      id, image, question, answers, metric: of the question, as in `VQAExample`.
      dataset: the name of the question's dataset, within which its id is unique.
      domain: one of `DOMAINS`.
      model: the name of the model, as in `--models`.
      type: 1, 2 or 3, by the base's confidence; None for Mixed.
      kind: the column `kind` of the dataset; empty if it has none.
      confidence: the base's confidence, in [0, 1]; 0 for Type 3 by construction.
      prediction: what the model says.
      outcome: one of `OUTCOMES`.

    Raises:
      InbolError: naming the prediction and the field, if a field holds what it cannot.
    """

    id: str
    dataset: str
    domain: str
    model: str
    image: str
    question: str
    answers: tuple[str, ...]
    type: int | None
    kind: str
    confidence: float
    prediction: str
    outcome: str
    metric: str = METRICS[0]

    def __post_init__(self) -> None:
        cause = ""
        for name, allowed in (("domain", DOMAINS), ("type", TYPES), ("outcome", OUTCOMES)):
            if getattr(self, name) not in allowed:
                cause = f"{name} {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}"
        texts = (self.id, self.dataset, self.model, self.image, self.question, self.kind)
        if not all(isinstance(text, str) for text in (*texts, self.prediction, *self.answers)):
            cause = "a text was expected where something else stands"
        if not isinstance(self.confidence, float | int):
            cause = f"confidence {self.confidence!r} is no number"
        if cause:
            raise InbolError(
                f"prediction {self.id!r} of {self.model}: {cause}; run `inbol evaluate` again"
            )

    @property
    def user_value(self) -> int:
        """What the prediction is worth to the user. This is our definition, not the paper's.

        If the question is answerable (types 1, 2 and None), a correct response is worth +1, a
        refusal 0 and a wrong response -1. On Type 3 a refusal is worth +1, anything else -1.
        """
        if self.type == 3:
            return 1 if self.outcome == "refused" else -1
        return {"correct": 1, "refused": 0, "wrong": -1}[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """The line of `predictions.jsonl`; it holds the metric only if that is not the default."""
        row = dataclasses.asdict(self) | {"answers": list(self.answers)}
        if self.metric == METRICS[0]:
            del row["metric"]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        """The prediction on a line of `predictions.jsonl`; an InbolError if it is none.

        Other columns are passed over.
        """
        values = {f.name: row[f.name] for f in dataclasses.fields(cls) if f.name in row}
        try:
            values |= {"answers": tuple(row["answers"]), "kind": str(row.get("kind", ""))}
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise InbolError(
                f"prediction {row.get('id', '(no id)')!r}: not a line of predictions.jsonl "
                f"({error}); run `inbol evaluate` again"
            ) from error


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a `predictions.jsonl`; an InbolError if a line is none."""
    return [Prediction.from_json(row) for row in read_jsonl(file)]
