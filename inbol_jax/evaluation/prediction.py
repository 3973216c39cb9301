"""A prediction: what one model says to one question, and a line of `predictions.jsonl`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.questions import ImagePaths, WithOptions, image_columns, read_image_columns
from inbol_jax.records import METRICS
from inbol_jax.responses.outcome import premise_of
from inbol_jax.responses.refusal import PREMISE, refusal_kind

DOMAINS = ("in_domain", "out_of_domain")
VALIDATION = "validation"  # the domain of the questions on which thresholds are chosen
TYPES = (1, None, 2, 3)  # None: Mixed, between the two thresholds
OUTCOMES = ("correct", "refused", "wrong")
# What is compared with the models (`evaluation.baselines`): the first and the last one always, the
# others if there are validation questions.
BASELINES = (
    "always_refuse",
    "base_threshold_logodds",
    "base_threshold_likelihood",
    "base_threshold_consistency",
    "base_threshold_p_true",
    "oracle",
)


def calibrated(model: str) -> str:
    """What a model is called with the refusal bias that was chosen on validation."""
    return f"{model}_calibrated"


@dataclasses.dataclass(frozen=True, slots=True)
class Forced:
    """What a model answers if no refusal token may come first (`sampling.forced`).

    Attributes:
      prediction: the greedy answer.
      outcome: one of `OUTCOMES`; "refused" if it refuses in words of its own.
      logprob: the answer's summed token log-probability, its end included, in nats.
      logodds: log P(refusal tokens) - log P(best other token) as first token.
      margin: the same of the best refusal token alone: greedy decoding refuses above 0, and with a
        bias b on the refusal tokens above -b.

    Raises:
      ValueError: if a field holds what it cannot.
    """

    prediction: str
    outcome: str
    logprob: float
    logodds: float
    margin: float

    def __post_init__(self) -> None:
        numbers = (self.logprob, self.logodds, self.margin)
        if self.outcome not in OUTCOMES or not isinstance(self.prediction, str):
            raise ValueError(f"forced: {self.prediction!r} with outcome {self.outcome!r}")
        if not all(isinstance(x, float | int) for x in numbers):
            raise ValueError(f"forced: {numbers} are no numbers")


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction(WithOptions):
    """What one model says to one question.

    Attributes:
      id, image, question, answers, metric, options: of the question, as in `VQAExample`.
      dataset: the name of the question's dataset, within which its id is unique.
      domain: one of `DOMAINS`.
      model: the name of the model, as in `--models`.
      type: 1, 2 or 3, by the base's confidence; None for Mixed.
      kind: the column `kind` of the dataset; empty if it has none.
      pair: the column `pair`, which questions share that count only together; empty if there is
        none.
      masked_answer: the column `masked_answer`, which MM-UPD has: the right answer, which is not
        among the options; empty if there is none.
      confidence: the base's confidence, in [0, 1]; 0 for Type 3 by construction.
      prediction: what the model says.
      outcome: one of `OUTCOMES`.
      forced: what the model answers if it may not refuse; None without validation questions.
      consistency, p_true: the base's self-consistency and P(True), in [0, 1], as in
        `confidence.estimators`; None without validation questions.

    Raises:
      InbolError: naming the prediction and the field, if a field holds what it cannot.
    """

    id: str
    dataset: str
    domain: str
    model: str
    image: ImagePaths
    question: str
    answers: tuple[str, ...]
    type: int | None
    kind: str
    confidence: float
    prediction: str
    outcome: str
    metric: str = METRICS[0]
    options: tuple[str, ...] = ()
    pair: str = ""
    masked_answer: str = ""
    forced: Forced | None = None
    consistency: float | None = None
    p_true: float | None = None

    def __post_init__(self) -> None:
        cause, domains = "", (*DOMAINS, VALIDATION)
        for name, allowed in (("domain", domains), ("type", TYPES), ("outcome", OUTCOMES)):
            if getattr(self, name) not in allowed:
                cause = f"{name} {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}"
        texts = (self.id, self.dataset, self.model, self.question, self.kind, self.pair)
        texts += (self.masked_answer, self.prediction, *self.answers, *self.options)
        if not all(isinstance(text, str) for text in texts):
            cause = "a text was expected where something else stands"
        for name in ("confidence", "consistency", "p_true"):
            value = getattr(self, name)
            if not isinstance(value, float | int) and (name == "confidence" or value is not None):
                cause = f"{name} {value!r} is no number"
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

    @property
    def denies_premise(self) -> bool:
        """Whether it refuses a Type 3 question by denying what the question takes for granted."""
        if self.type != 3 or self.outcome != "refused":
            return False
        premise = premise_of(self.question, self.metric)
        return refusal_kind(self.prediction, question=premise) == PREMISE.name

    def to_json(self) -> dict[str, Any]:
        """The line of `predictions.jsonl`, without what has its default."""
        values, row = dataclasses.asdict(self), {}
        for field in dataclasses.fields(self):
            value = values[field.name]
            if field.name == "image":
                row |= image_columns(value)
            elif field.default is dataclasses.MISSING or value != field.default:
                row[field.name] = list(value) if isinstance(value, tuple) else value
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        """The prediction on a line of `predictions.jsonl`; an InbolError if it is none.

        Other columns are passed over.
        """
        values = {f.name: row[f.name] for f in dataclasses.fields(cls) if f.name in row}
        try:
            values["image"] = read_image_columns(row)
            values |= {"answers": tuple(row["answers"]), "options": tuple(row.get("options", ()))}
            # Columns of a dataset, which may hold anything.
            own = ("kind", "pair", "masked_answer")
            values |= {name: "" if row.get(name) is None else str(row[name]) for name in own}
            if row.get("forced") is not None:
                values["forced"] = Forced(**row["forced"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InbolError(
                f"prediction {row.get('id', '(no id)')!r}: not a line of predictions.jsonl "
                f"({error}); run `inbol evaluate` again"
            ) from error


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a `predictions.jsonl`; an InbolError if a line is none."""
    return [Prediction.from_json(row) for row in read_jsonl(file)]
