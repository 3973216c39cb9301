"""The records that travel between the stages: plain dataclasses, one JSON object a line on disk.

Nothing here knows of JAX, of models or of files; `artifacts` reads and writes, the stages compute.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Mapping
from typing import Any

from inbol_jax.errors import InbolError

RECORD_VERSION = 1

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
        raise InbolError(f'metric {metric!r}: only numeric takes an option, a relative tolerance from 0 to below 1 ("numeric:0.05")')
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
        row = {"id": self.id, "image": self.image, "question": self.question, "answers": list(self.answers), "answerable": self.answerable}
        origin = {"source": self.source, "split": self.split, "metric": "" if self.metric == METRICS[0] else self.metric}
        return row | {name: value for name, value in origin.items() if value} | dict(self.extra)


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
      source: what the question came from (`dataset`, or the generator of a Type 3 question).
      version: of this layout.
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
    source: str = "dataset"
    version: int = RECORD_VERSION

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "BoundaryRecord":
        """Validates a row read from disk.

        Raises:
          InbolError: naming the record and the field, where the row is not a record of this version.
        """
        name = row.get("id", "(no id)")
        if row.get("version") != RECORD_VERSION:
            raise InbolError(f"record {name}: version {row.get('version')!r}, this program reads {RECORD_VERSION}; run `inbol build` again")
        expected = {f.name for f in dataclasses.fields(cls)}
        if expected != set(row):
            raise InbolError(f"record {name}: fields differ: {sorted(expected ^ set(row))}; run `inbol build` again")
        values = dict(row)
        try:
            values["boundary"] = Boundary(row["boundary"])
            values["answers"] = tuple(row["answers"])
            for outcome in ("correct", "incorrect", "refusal"):
                values[outcome] = tuple(Response(**r) for r in row[outcome])
            possible = row["type"] in (1, 2, 3, None) and 0 <= row["n_correct"] <= row["n_samples"]
        except (TypeError, ValueError) as error:
            raise InbolError(f"record {name}: {error}") from error
        if not possible:
            raise InbolError(f"record {name}: type {row['type']!r} with {row['n_correct']} of {row['n_samples']} correct is not possible")
        return cls(**values)


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
        return dataclasses.asdict(self)


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
        return dataclasses.asdict(self) | {"kind": self.kind.name.lower()}

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
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))
