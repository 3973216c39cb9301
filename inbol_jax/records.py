"""The records that travel between the stages: plain dataclasses, one JSON object a line on disk.

Nothing here knows of JAX, of models or of files; `artifacts` reads and writes, the stages compute.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from inbol_jax.errors import InbolError

RECORD_VERSION = 2

# How responses are matched with gold answers (confidence/matching.py computes them): VQA soft score, exact match after normalisation,
# yes or no, multiple choice, numbers with a tolerance.
METRICS = ("vqa", "exact", "yes_no", "choice", "numeric")


@functools.cache
def parse_metric(metric: str) -> tuple[str, float | None]:
    """Name and option of a metric: "numeric:0.01" is ("numeric", 0.01), "vqa" is ("vqa", None).

    Raises:
      InbolError: where it is none of `METRICS`, or has an option that it does not take.
    """
    name, colon, option = metric.partition(":")
    if name not in METRICS:
        raise InbolError(f"metric {metric!r} is not known; choose one of {', '.join(METRICS)}")
    if not colon:
        return name, None
    try:
        tolerance = float(option)
    except ValueError:
        tolerance = -1.0
    if name != "numeric" or not 0 <= tolerance < 1:
        raise InbolError(
            f'metric {metric!r}: only numeric takes an option, a relative tolerance from 0 to below 1 ("numeric:0.05")'
        )
    return name, tolerance


class Boundary(enum.StrEnum):
    """The three classes of Figure 3 of the paper, split by the thresholds delta_k and delta_uk."""

    KNOWN = "known"
    MIXED = "mixed"
    UNKNOWN = "unknown"


class PairKind(enum.IntEnum):
    """What a preference pair teaches. The integers are stable: they are the `kind` argument of `losses.ca_dpo_loss`."""

    CORRECT_OVER_REFUSAL = 0
    CORRECT_OVER_INCORRECT = 1
    REFUSAL_OVER_INCORRECT = 2
    REFUSAL_OVER_ANSWER = 3  # Type 3: whatever was answered, the image does not hold it


@dataclasses.dataclass(frozen=True, slots=True)
class VQAExample:
    """One question about one image.

    Attributes:
      id: unique within its dataset.
      image: path of the image, relative to the dataset's image folder.
      question: as the user asks it.
      answers: gold answers with multiplicity (VQAv2 has ten); empty where nothing can be answered.
      answerable: True, False (Type 3: beyond the extrinsic boundary), or None where the dataset does not say.
      extra: every other column of the source, kept and passed on.
      source: name of the set that the question came from; empty where it does not say.
      split: of that set.
      metric: how responses are matched with the gold answers, one of `METRICS`, with an option where it takes one ("numeric:0.01").
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    split: str = ""
    metric: str = METRICS[0]

    def to_json(self) -> dict[str, Any]:
        """A row of `data.jsonl`; source, split and metric only where they differ from what their absence says."""
        row = {
            "id": self.id,
            "image": self.image,
            "question": self.question,
            "answers": list(self.answers),
            "answerable": self.answerable,
        }
        origin = {
            "source": self.source,
            "split": self.split,
            "metric": "" if self.metric == METRICS[0] else self.metric,
        }
        return row | {name: value for name, value in origin.items() if value} | dict(self.extra)


class Sample(NamedTuple):
    """One sampled response to a question. A NamedTuple, because a store of a million questions makes ten million of them.

    Attributes:
      text: the response, without special tokens.
      logprob: its summed token log-probability under the model that sampled it, in nats.
      tokens: its number of tokens, its end included.
      outcome: "correct", "wrong" or "refused".
    """

    text: str
    logprob: float
    tokens: int
    outcome: str


@dataclasses.dataclass(frozen=True, slots=True)
class SampledQuestion:
    """A line of the confidence store: a question with its sampled responses.

    Attributes:
      example: the question, with all columns of its dataset.
      samples: in the order in which they were drawn.
      p_true: the model's own probability that its most frequent answer is true; 0 if every sample
        is a refusal, None if the model was not asked. It is stored in a file of its own.
    """

    example: VQAExample
    samples: tuple[Sample, ...]
    p_true: float | None = None

    @property
    def n_correct(self) -> int:
        """How many of the samples match the gold answers."""
        return [sample.outcome for sample in self.samples].count("correct")

    @property
    def n_samples(self) -> int:
        """How many samples were drawn."""
        return len(self.samples)

    @property
    def answers(self) -> list[Sample]:
        """The samples that answer the question: all but the refusals."""
        return [sample for sample in self.samples if sample.outcome != "refused"]

    def to_json(self) -> dict[str, Any]:
        """The columns of the question, then those of the samples, one list per column."""
        return self.example.to_json() | {
            "samples": [sample.text for sample in self.samples],
            "logprobs": [sample.logprob for sample in self.samples],
            "token_counts": [sample.tokens for sample in self.samples],
            "outcomes": [sample.outcome for sample in self.samples],
            "n_correct": self.n_correct,
            "n_samples": self.n_samples,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One distinct response to a question.

    Attributes:
      text: what was said.
      count: how many of the samples said it; 0 for a response that was not sampled (a gold answer, a refusal template).
      logprob: its summed token log-probability under the model that sampled it, in nats; None where not sampled.
    """

    text: str
    count: int = 0
    logprob: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BoundaryRecord:
    """The standard structure of Figure 2: one a question, with correct, incorrect and refusal responses.

    Attributes:
      id, image, question, answers: of the question.
      type: 1 (inside both boundaries), 2 (beyond the intrinsic one), 3 (beyond the extrinsic one); None for Mixed.
      boundary: Known, Mixed or Unknown. Type 3 is Unknown by construction.
      confidence: share of correct samples, c(x) = n_correct / n_samples, or what another estimator says; 0 for Type 3 by construction.
      n_correct, n_samples: how many of the samples matched the gold answers.
      wilson_low, wilson_high: 95% Wilson interval of the confidence; the confidence twice where its estimator gives no share of samples.
      correct, incorrect, refusal: distinct responses of each outcome, most frequent first.
      source, split: set that the question came from, and which part of it; empty where the question does not say.
      metric: how responses were matched with the gold answers, as in `VQAExample`.
      generator: what made a Type 3 question; None for a question of the dataset's own.
      filters: names of the filters that a generated question has passed, in their order.
      version: of this layout. Version 1, which had the generator under `source`, is read as well.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...]
    type: int | None
    boundary: Boundary
    confidence: float
    n_correct: int
    n_samples: int
    wilson_low: float
    wilson_high: float
    correct: tuple[Response, ...]
    incorrect: tuple[Response, ...]
    refusal: tuple[Response, ...]
    source: str = ""
    split: str = ""
    metric: str = METRICS[0]
    generator: str | None = None
    filters: tuple[str, ...] = ()
    version: int = RECORD_VERSION

    def to_json(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in _RECORD_FIELDS}
        return row | {
            name: [{"text": r.text, "count": r.count, "logprob": r.logprob} for r in row[name]]
            for name in _OUTCOMES
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "BoundaryRecord":
        """Validates a row read from disk (docs/records.md says what must hold).

        Raises:
          InbolError: naming the record and the field, where the row is no record of a version that this program reads.
        """
        name = row.get("id", "(no id)")
        again = "run `inbol build` again"
        if row.get("version") == 1 and "source" in row:
            generator = None if row["source"] == "dataset" else row["source"]
            row = dict(row) | {
                "source": "",
                "split": "",
                "metric": METRICS[0],
                "generator": generator,
                "filters": [],
                "version": RECORD_VERSION,
            }
        if row.get("version") != RECORD_VERSION:
            raise InbolError(
                f"record {name}: version {row.get('version')!r}, this program reads 1 and {RECORD_VERSION}; {again}"
            )
        if set(_RECORD_FIELDS) != set(row):
            raise InbolError(
                f"record {name}: fields differ: {sorted(set(_RECORD_FIELDS) ^ set(row))}; {again}"
            )
        values = dict(row)
        try:
            values["boundary"] = Boundary(row["boundary"])
            if not (isinstance(row["answers"], list) and isinstance(row["filters"], list)):
                raise TypeError("answers and filters are lists")
            values["answers"], values["filters"] = tuple(row["answers"]), tuple(row["filters"])
            for outcome in _OUTCOMES:
                values[outcome] = tuple(Response(**r) for r in row[outcome])
            record = cls(**values)
            parse_metric(record.metric)
            cause = record._contradiction()
        except (TypeError, ValueError, AttributeError, InbolError) as error:
            raise InbolError(f"record {name}: {error}; {again}") from error
        if cause:
            raise InbolError(f"record {name}: {cause}; {again}")
        return record

    def _contradiction(self) -> str | None:
        """What no record can be, or None."""
        responses = [r for outcome in _OUTCOMES for r in getattr(self, outcome)]
        texts = [
            self.id,
            self.image,
            self.question,
            self.source,
            self.split,
            self.generator or "",
            *self.answers,
            *self.filters,
        ]
        if not all(isinstance(text, str) for text in (*texts, *(r.text for r in responses))):
            return "id, image, question, answers, responses, source, split, generator and filters are texts"
        if (
            self.type
            not in {Boundary.KNOWN: (1,), Boundary.MIXED: (None,), Boundary.UNKNOWN: (2, 3)}[
                self.boundary
            ]
        ):
            return f"type {self.type!r} is not possible with boundary {self.boundary}"
        if not 0 <= self.n_correct <= self.n_samples:
            return f"{self.n_correct} of {self.n_samples} correct is not possible"
        if self.type == 3 and (self.n_correct or self.confidence):
            return "Type 3 has no correct samples and confidence 0"
        if not (
            0 <= self.wilson_low <= self.confidence + 1e-9
            and self.confidence - 1e-9 <= self.wilson_high <= 1
        ):
            return f"confidence {self.confidence} is not within its interval {self.wilson_low} to {self.wilson_high} within 0 to 1"
        counted = sum(r.count for r in responses), sum(r.count for r in self.correct)
        if min((r.count for r in responses), default=0) < 0 or counted != (
            self.n_samples,
            self.n_correct,
        ):
            return f"{counted[0]} responses, {counted[1]} of them correct, were counted, not {self.n_samples} and {self.n_correct}"
        if any(
            (r.logprob is None) != (r.count == 0) or not math.isfinite(r.logprob or 0)
            for r in responses
        ):
            return (
                "logprob is a finite number where a response was sampled, and null where it was not"
            )
        if len({r.text for r in responses}) < len(responses):
            return "a response is there twice"
        return None


_RECORD_FIELDS = tuple(f.name for f in dataclasses.fields(BoundaryRecord))
_OUTCOMES = ("correct", "incorrect", "refusal")


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """One IDK instruction: a question with the response that the model is taught by IDK-IT."""

    id: str
    image: str
    question: str
    response: str
    boundary: Boundary
    type: int

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclasses.dataclass(frozen=True, slots=True)
class Preference:
    """One preference pair for CA-DPO. `confidence` and `kind` set the pair's weight."""

    id: str
    image: str
    question: str
    chosen: str
    rejected: str
    kind: PairKind
    confidence: float
    type: int | None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {
            "kind": self.kind.name.lower()
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Preference":
        return cls(**(dict(row) | {"kind": PairKind[row["kind"].upper()]}))


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion, 95% by default.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the interval reaches 0 or 1 exactly; the arithmetic misses them by a rounding error.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (
        1.0 if successes == n else min(1.0, centre + half)
    )
