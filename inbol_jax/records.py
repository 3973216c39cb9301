"""The records that travel between the commands: dataclasses, one JSON object per line on disk."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from inbol_jax.errors import InbolError
from inbol_jax.questions import (
    LETTERS,
    METRICS,
    ImagePaths,
    WithImages,
    WithOptions,
    image_columns,
    parse_metric,
    read_image_columns,
)

RECORD_VERSION = 3


class Boundary(enum.StrEnum):
    """The three classes of the paper's Figure 3, split by the thresholds delta_k and delta_uk."""

    KNOWN = "known"
    MIXED = "mixed"
    UNKNOWN = "unknown"


class PairKind(enum.IntEnum):
    """What a preference pair teaches. The integers are stable: losses receive them as `kind`."""

    CORRECT_OVER_REFUSAL = 0
    CORRECT_OVER_INCORRECT = 1
    REFUSAL_OVER_INCORRECT = 2
    REFUSAL_OVER_ANSWER = 3  # Type 3: whatever the answer, the image does not contain it


@dataclasses.dataclass(frozen=True, slots=True)
class VQAExample(WithOptions):
    """One question about an image, about several, or about text alone.

    Attributes:
      id: unique within its dataset.
      image: path of the image, relative to the dataset's image folder; a tuple of several, or of
        none.
      question: the text that the user asks.
      answers: gold answers with multiplicity (VQAv2 has ten); empty if nothing can be answered.
      answerable: True, False (Type 3: beyond the extrinsic boundary), or None if it is not known.
      extra: every other column of the source, kept and passed on.
      source: name of the dataset that the question came from; empty if it is not known.
      split: split of that dataset; empty if it is not known.
      metric: how responses are matched with the gold answers, as `parse_metric` reads it.
      options: what a multiple-choice question offers; at most as many as there are letters.
    """

    id: str
    image: ImagePaths
    question: str
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    split: str = ""
    metric: str = METRICS[0]
    options: tuple[str, ...] = ()

    @property
    def answer_texts(self) -> tuple[str, ...]:
        """The gold answers in words: of a letter its option."""
        of = dict(zip(LETTERS, self.options, strict=False)) | {o: o for o in self.options}
        return tuple(of.get(a, of.get(a.strip(" ().").upper(), a)) for a in self.answers)

    def to_json(self) -> dict[str, Any]:
        """A row of `data.jsonl`, without source, split and metric if they have their defaults."""
        row = {"id": self.id, **image_columns(self.image), "question": self.question}
        row |= {"answers": list(self.answers), "answerable": self.answerable}
        if self.options:  # their metric is `choice` unless another one is named
            row |= {"options": list(self.options), "metric": self.metric}
        for name, default in (("source", ""), ("split", ""), ("metric", METRICS[0])):
            if (value := getattr(self, name)) not in ("", default):
                row[name] = value
        return row | dict(self.extra)


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
        return [sample.outcome for sample in self.samples].count("correct")

    @property
    def n_samples(self) -> int:
        return len(self.samples)

    @property
    def answering_samples(self) -> list[Sample]:
        """The samples that answer the question: all but the refusals."""
        return [sample for sample in self.samples if sample.outcome != "refused"]

    def to_json(self) -> dict[str, Any]:
        """The columns of the question, then those of the samples, one list per column."""
        return self.example.to_json() | {
            "samples": [sample.text for sample in self.samples],
            "logprobs": [sample.logprob for sample in self.samples],
            "token_counts": [sample.tokens for sample in self.samples],
            "outcomes": [sample.outcome for sample in self.samples],
            "samples_cut": [sample.cut for sample in self.samples],
            "n_correct": self.n_correct,
            "n_samples": self.n_samples,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One distinct response to a question.

    Attributes:
      text: the response.
      count: how many of the samples said it; 0 if it was not sampled (a gold answer, a template).
      logprob: its summed token log-probability under the model that sampled it, in nats; None if
        it was not sampled, or if an endpoint does not say it.
    """

    text: str
    count: int = 0
    logprob: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BoundaryRecord(WithOptions):
    """The standard structure of Figure 2: a question with its responses of each outcome.

    Attributes:
      id, image, question, answers: copied from the question.
      type: 1 (inside both boundaries), 2 (beyond the intrinsic one), 3 (beyond the extrinsic one);
        None for Mixed.
      boundary: Known, Mixed or Unknown. Type 3 is Unknown by construction.
      confidence: share of correct samples, c(x) = n_correct / n_samples, or what another estimator
        gives; 0 for Type 3.
      n_correct, n_samples: how many of the samples match the gold answers, and how many there are.
      wilson_low, wilson_high: 95% Wilson interval of the confidence; both equal it if it is no
        share of samples.
      correct, incorrect, refusal: distinct responses of each outcome, most frequent first.
      source, split, metric, options: as in `VQAExample`.
      generator: what made a Type 3 question; None for a question of the dataset itself.
      filters: names of the filters that a generated question has passed, in their order.
      version: version of this layout.
    """

    id: str
    image: ImagePaths
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
    options: tuple[str, ...] = ()
    generator: str | None = None
    filters: tuple[str, ...] = ()
    version: int = RECORD_VERSION

    def to_json(self) -> dict[str, Any]:
        responses = {name: [_fields(r) for r in getattr(self, name)] for name in _OUTCOMES}
        return _fields(self) | responses

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "BoundaryRecord":
        """Validates a row that was read from disk (docs/records.md says what must hold).

        Raises:
          InbolError: naming the record and the field, if the row is no record of this version.
        """
        try:
            if row.get("version") != RECORD_VERSION:
                raise ValueError(
                    f"version {row.get('version')!r}, this program reads {RECORD_VERSION}"
                )
            values = {name: row[name] for name in row if name not in ("image", "images")}
            values["image"] = read_image_columns(row)
            if different := {f.name for f in dataclasses.fields(cls)} ^ set(values):
                raise ValueError(f"fields differ: {sorted(different)}")
            values["boundary"] = Boundary(row["boundary"])
            for name in ("answers", "options", "filters"):
                if not isinstance(row[name], list):
                    raise ValueError("answers, options and filters are lists")
                values[name] = tuple(row[name])
            for outcome in _OUTCOMES:
                values[outcome] = tuple(Response(**response) for response in row[outcome])
            record = cls(**values)
            parse_metric(record.metric)
            record._check_texts()
            record._check_numbers()
            record._check_responses()
        except (TypeError, ValueError, AttributeError, InbolError) as error:
            name = row.get("id", "(no id)")
            raise InbolError(f"record {name}: {error}; run `inbol build` again") from error
        return record

    def _responses(self) -> list[Response]:
        return [*self.correct, *self.incorrect, *self.refusal]

    def _check_texts(self) -> None:
        texts = [self.id, self.question, self.source, self.split, self.generator or ""]
        texts += [*self.answers, *self.options, *self.filters]
        texts += [r.text for r in self._responses()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                "id, question, answers, options, responses, source, split, generator and filters "
                "are texts"
            )

    def _check_numbers(self) -> None:
        if self.type not in _TYPES[self.boundary]:
            raise ValueError(f"type {self.type!r} is not possible with boundary {self.boundary}")
        if not 0 <= self.n_correct <= self.n_samples:
            raise ValueError(f"{self.n_correct} of {self.n_samples} correct is not possible")
        if self.type == 3 and (self.n_correct or self.confidence):
            raise ValueError("Type 3 has no correct samples and confidence 0")
        # The slack is for a confidence at an end of its interval that has been rounded on its own.
        low, high = self.confidence - 1e-9, self.confidence + 1e-9
        if not (0 <= self.wilson_low <= high and low <= self.wilson_high <= 1):
            raise ValueError(
                f"confidence {self.confidence} is not within its interval {self.wilson_low} to "
                f"{self.wilson_high} within 0 to 1"
            )

    def _check_responses(self) -> None:
        responses = self._responses()
        counted, correct = (sum(r.count for r in some) for some in (responses, self.correct))
        expected = (self.n_samples, self.n_correct)
        if (counted, correct) != expected or any(r.count < 0 for r in responses):
            raise ValueError(
                f"{counted} responses, {correct} of them correct, were counted, "
                f"not {self.n_samples} and {self.n_correct}"
            )
        for response in responses:
            unsampled = not response.count and response.logprob is not None
            if unsampled or not math.isfinite(response.logprob or 0):
                raise ValueError(
                    "logprob is a finite number or null, and null if a response was not sampled"
                )
        if len({r.text for r in responses}) < len(responses):
            raise ValueError("a response is there twice")


_OUTCOMES = ("correct", "incorrect", "refusal")
_TYPES = {Boundary.KNOWN: (1,), Boundary.MIXED: (None,), Boundary.UNKNOWN: (2, 3)}


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction(WithImages):
    """One IDK instruction: a question with the response that IDK-IT teaches.

    Attributes:
      question: the whole text that the model is asked, options included.
      boundary, type: class and type of the question; None in a file that a user wrote.
    """

    id: str
    image: ImagePaths
    question: str
    response: str
    boundary: Boundary | None = None
    type: int | None = None

    def to_json(self) -> dict[str, Any]:
        return _fields(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Instruction":
        """Reads a line of instructions.jsonl; image, question and response suffice.

        Raises:
          InbolError: naming the field that is missing or of the wrong type.
        """
        texts = {name: _field(row, name, str) for name in ("question", "response")}
        try:
            boundary = None if row.get("boundary") is None else Boundary(row["boundary"])
        except ValueError as error:
            raise InbolError(f"{error}; run `inbol build`") from error
        id, image = row.get("id", ""), _image(row)
        return cls(id=id, image=image, boundary=boundary, type=row.get("type"), **texts)


@dataclasses.dataclass(frozen=True, slots=True)
class Preference(WithImages):
    """One preference pair for CA-DPO; the question's `confidence` and the `kind` set its weight.

    `question` is the whole text that the model is asked, options included.
    """

    id: str
    image: ImagePaths
    question: str
    chosen: str
    rejected: str
    kind: PairKind
    confidence: float
    type: int | None

    def to_json(self) -> dict[str, Any]:
        return _fields(self) | {"kind": self.kind.name.lower()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Preference":
        """Reads a line of preferences.jsonl.

        Raises:
          InbolError: naming the field that is missing, of the wrong type or out of its range.
        """
        names = ("id", "question", "chosen", "rejected", "kind")
        texts = {name: _field(row, name, str) for name in names}
        kind = texts.pop("kind").upper()
        if kind not in PairKind.__members__:
            choices = ", ".join(PairKind.__members__).lower()
            raise InbolError(f"kind {row['kind']!r}: it must be one of {choices}")
        confidence = _field(row, "confidence", (int, float))
        if not 0 <= confidence <= 1:
            raise InbolError(f"confidence {confidence} is not between 0 and 1; run `inbol build`")
        about = {"image": _image(row), "confidence": confidence, "type": row.get("type")}
        return cls(kind=PairKind[kind], **about, **texts)


def _fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, not converted but for its images."""
    fields = {}
    for name in record.__slots__:
        value = getattr(record, name)
        fields |= image_columns(value) if name == "image" else {name: value}
    return fields


def _image(row: Mapping[str, Any]) -> ImagePaths:
    try:
        return read_image_columns(row)
    except ValueError as error:
        fault = "'image' is missing or of the wrong type; run `inbol build`"
        raise InbolError(fault) from error


def _field(row: Mapping[str, Any], name: str, types: type | tuple[type, ...]) -> Any:
    if not isinstance(row.get(name), types):
        raise InbolError(f"{name!r} is missing or of the wrong type; run `inbol build`")
    return row[name]
