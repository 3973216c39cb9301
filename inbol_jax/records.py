"""The records that travel between the commands: structs, one JSON object per line on disk."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import msgspec
from msgspec import Meta

from inbol_jax.questions import LETTERS, METRICS, Probability, Question, WithOptions

RECORD_VERSION = 4

Type = Literal[1, 2, 3, None]  # None: Mixed, between the two thresholds
Count = Annotated[int, Meta(ge=0)]


class Boundary(enum.StrEnum):
    """The three classes of the paper's Figure 3, split by the thresholds delta_k and delta_uk."""

    KNOWN = "known"
    MIXED = "mixed"
    UNKNOWN = "unknown"


class PairKind(enum.StrEnum):
    """What a preference pair teaches."""

    CORRECT_OVER_REFUSAL = "correct_over_refusal"
    CORRECT_OVER_INCORRECT = "correct_over_incorrect"
    REFUSAL_OVER_INCORRECT = "refusal_over_incorrect"
    REFUSAL_OVER_ANSWER = "refusal_over_answer"  # Type 3: the image does not contain any answer

    @property
    def number(self) -> int:
        """Its place among the four, which losses receive as `kind` (`losses.pair_weighting`)."""
        return list(PairKind).index(self)


class VQAExample(WithOptions, frozen=True):
    """A question with its gold answers.

    Attributes:
      answers: gold answers with multiplicity (VQAv2 has ten); empty if nothing can be answered.
      answerable: True, False (Type 3: beyond the extrinsic boundary), or None if it is not known.
      extra: every other column of the source, kept and passed on.
    """

    remedy: ClassVar[str] = ""

    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def judgeable(self) -> bool:
        """Whether a response can be judged: by gold answers, or as nothing can be answered."""
        return self.answerable is False or any(answer.strip() for answer in self.answers)

    @property
    def answer_texts(self) -> tuple[str, ...]:
        """The gold answers in words: of a letter its option."""
        of = dict(zip(LETTERS, self.options, strict=False)) | {o: o for o in self.options}
        return tuple(of.get(a, of.get(a.strip(" ().").upper(), a)) for a in self.answers)

    def to_json(self) -> dict[str, Any]:
        """A row of `data.jsonl`: the columns of `extra` stand beside the others."""
        row = super().to_json()
        extra = row.pop("extra")
        return row | extra

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The record of a row of `data.jsonl`; columns that it does not know go to `extra`.

        Raises:
          InbolError: naming the column at fault, in the words of msgspec.
        """
        known = {*cls.__struct_fields__} - {"extra"}
        columns = {name: row[name] for name in known if row.get(name) is not None}
        columns.setdefault("metric", "choice" if columns.get("options") else METRICS[0])
        columns["extra"] = {name: value for name, value in row.items() if name not in known}
        return super().from_json(columns)


class Sample(NamedTuple):
    """One sampled response to a question; a NamedTuple, as a large store holds ten million of them.

    Attributes:
      text: the response, without special tokens.
      logprob: its summed token log-probability under the model that sampled it, in nats; None if
        an endpoint does not say it.
      tokens: its number of tokens, its end included; None likewise.
      outcome: "correct", "wrong" or "refused".
      cut: whether it was cut at the limit of new tokens, before it ended by itself.
    """

    text: str
    logprob: float | None
    tokens: int | None
    outcome: str
    cut: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class SampledQuestion:
    """A question with its sampled responses, judged.

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
        return [sample.outcome for sample in self.samples].count("correct")

    @property
    def n_samples(self) -> int:
        return len(self.samples)

    @property
    def confidence(self) -> float:
        """c(x), the share of the samples that are correct."""
        return self.n_correct / self.n_samples

    @property
    def answering_samples(self) -> list[Sample]:
        """The samples that answer the question: all but the refusals."""
        return [sample for sample in self.samples if sample.outcome != "refused"]


class Response(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One distinct response to a question.

    Attributes:
      text: the response.
      count: how many of the samples said it; 0 if it was not sampled (a gold answer, a template).
      logprob: its summed token log-probability under the model that sampled it, in nats; None if
        it was not sampled, or if an endpoint does not say it.
    """

    text: str
    count: Count = 0
    logprob: float | None = None


class BoundaryRecord(WithOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The standard structure of Figure 2: a question with its responses of each outcome.

    Attributes:
      answers: the gold answers, with multiplicity.
      type: 1 (inside both boundaries), 2 (beyond the intrinsic one), 3 (beyond the extrinsic one);
        None for Mixed.
      boundary: Known, Mixed or Unknown. Type 3 is Unknown by construction.
      confidence: share of correct samples, c(x) = n_correct / n_samples, or what another estimator
        gives; 0 for Type 3.
      n_correct, n_samples: how many of the samples match the gold answers, and how many there are.
      wilson_low, wilson_high: 95% Wilson interval of the confidence; both equal it if it is no
        share of samples.
      correct, incorrect, refusal: distinct responses of each outcome, most frequent first.
      generator: what made a Type 3 question; None for a question of the dataset itself.
      version: version of this layout.
    """

    answers: tuple[str, ...]
    type: Type
    boundary: Boundary
    confidence: Probability
    n_correct: Count
    n_samples: Count
    wilson_low: Probability
    wilson_high: Probability
    correct: tuple[Response, ...]
    incorrect: tuple[Response, ...]
    refusal: tuple[Response, ...]
    generator: str | None = None
    version: Literal[RECORD_VERSION] = RECORD_VERSION


class Instruction(Question, frozen=True, kw_only=True):
    """One IDK instruction: a question with the response that IDK-IT teaches.

    Attributes:
      question: the whole text that the model is asked, options included.
      boundary, type: class and type of the question; None, as the empty id, in a file that a user
        wrote.
    """

    id: str = ""
    response: str
    boundary: Boundary | None = None
    type: Type = None


class Preference(Question, frozen=True, kw_only=True):
    """One preference pair for CA-DPO; the question's `confidence` and the `kind` set its weight.

    `question` is the whole text that the model is asked, options included.
    """

    chosen: str
    rejected: str
    kind: PairKind
    confidence: Probability
    type: Type
