"""A prediction: what one model says to one question, and a line of `predictions.jsonl`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec

from inbol_jax.artifacts import read_jsonl
from inbol_jax.questions import Probability, WithOptions
from inbol_jax.records import Type
from inbol_jax.responses.outcome import premise_of, user_value
from inbol_jax.responses.refusal import PREMISE, find_refusal
from inbol_jax.responses.refusal_rules import Rule

DOMAINS = ("in_domain", "out_of_domain")
VALIDATION = "validation"  # the domain of the questions on which thresholds are chosen
TYPES = (1, None, 2, 3)  # None: Mixed, between the two thresholds
OUTCOMES = ("correct", "refused", "wrong")
# What is compared with the models (`evaluation.policies`): the first and the last one always, the
# others if there are validation questions.
BASELINES = (
    "always_refuse",
    "base_threshold_logodds",
    "base_threshold_likelihood",
    "base_threshold_consistency",
    "base_threshold_p_true",
    "base_threshold_probe",
    "oracle",
)

# The base, asked with `MAY_REFUSE` (`evaluate --prompted`).
PROMPTED = "base_prompted"
MAY_REFUSE = 'If you do not know the answer, say "I don\'t know".'


def calibrated(model: str) -> str:
    """What a model is called with the refusal bias that was chosen on validation."""
    return f"{model}_calibrated"


def by_likelihood(model: str) -> str:
    """What a trained model is called with the threshold on the likelihood of its own answer that
    was chosen on validation."""
    return f"{model}_likelihood"


Outcome = Literal["correct", "refused", "wrong"]


class Forced(msgspec.Struct, frozen=True):
    """What a model answers if no refusal token may come first (`sampling.forced`).

    Attributes:
      prediction: the greedy answer.
      outcome: one of `OUTCOMES`; "refused" if it refuses in words of its own.
      logprob: the answer's summed token log-probability, its end included, in nats.
      logodds: log P(refusal tokens) - log P(best other token) as first token.
      margin: the same of the best refusal token alone: greedy decoding refuses above 0, and with a
        bias b on the refusal tokens above -b.
    """

    prediction: str
    outcome: Outcome
    logprob: float
    logodds: float
    margin: float


class Prediction(WithOptions, frozen=True, kw_only=True):
    """What one model says to one question.

    Attributes:
      answers: the gold answers, with multiplicity.
      dataset: the name of the question's dataset, within which its id is unique.
      domain: one of `DOMAINS`, or `VALIDATION`.
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
        `confidence.confidence`; None without validation questions.
      probe: the logit of refusing of a probe on the base (`evaluation.probe`); None without one.
    """

    remedy: ClassVar[str] = "; run `inbol evaluate` again"

    answers: tuple[str, ...]
    dataset: str
    domain: Literal["in_domain", "out_of_domain", "validation"]
    model: str
    type: Type
    kind: str = ""
    pair: str = ""
    masked_answer: str = ""
    confidence: Probability
    prediction: str
    outcome: Outcome
    forced: Forced | None = None
    consistency: Probability | None = None
    p_true: Probability | None = None
    probe: float | None = None

    @property
    def user_value(self) -> int:
        """What the prediction is worth to the user."""
        return user_value(self.outcome, type3=self.type == 3)

    @property
    def rule(self) -> Rule | None:
        """The rule by which it refuses; None of an answer, and of a refusal that no rule told."""
        premise = premise_of(self.question, self.metric) if self.type == 3 else ""
        refused = self.outcome == "refused"
        return find_refusal(self.prediction, question=premise) if refused else None

    @property
    def denies_premise(self) -> bool:
        """Whether it refuses a Type 3 question by denying what the question takes for granted."""
        return self.type == 3 and self.rule is PREMISE

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The prediction on a line of `predictions.jsonl`, as `Record.from_json`."""
        # Columns of a dataset, which may hold anything.
        own = {name: row.get(name) for name in ("kind", "pair", "masked_answer")}
        own = {name: "" if value is None else str(value) for name, value in own.items()}
        return super().from_json({**row, **own})


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a `predictions.jsonl`; an InbolError names a line that is none."""
    return list(read_jsonl(file, Prediction.from_json))
