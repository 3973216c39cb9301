"""Options of `inbol extrinsic` and `inbol audit`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from inbol_jax.data.config import Data
from inbol_jax.defaults import (
    BatchSize,
    Bounded,
    Bounds,
    Dtype,
    NumSamples,
    Seed,
    Share,
)
from inbol_jax.errors import InbolError
from inbol_jax.prompts import AUTO, PromptOptions
from inbol_jax.responses.config import EndpointConfig

# The languages that are told from one another (ISO 639-1).
LANGUAGES = (
    *("en", "de", "fr", "es", "it", "pt", "nl"),
    *("ru", "el", "ar", "he", "hi", "bn", "th", "ko", "ja", "zh"),
)


@dataclasses.dataclass(frozen=True)
class ExtrinsicConfig(Bounded):
    """Generate and filter questions that the images of a dataset cannot answer (Type 3)."""

    data: Data
    """Dataset whose questions and images the new questions are made from."""
    out: Path
    """Folder for the results. extrinsic.jsonl holds the questions and is a dataset that `inbol
    confidence --data` reads; extrinsic.trail.jsonl holds the rejected ones with the reasons."""
    share: Annotated[float, Bounds(above=0, most=1)] = 0.25
    """Number of questions to make, as a share of the dataset's answerable questions."""
    generators: tuple[str, ...] = ()
    """Generators to use: unseeable, mismatched, false_premise, beyond_frame, evidence_removed,
    model_written. The default is the first two if the data lists each image's objects, and the
    first four otherwise."""
    turns: tuple[int, ...] = ()
    """Turns of each generator in its order, such as 1 4 for four times as many questions of the
    second one. The default is one each. `inbol audit` tells which generator needs fewer."""
    filters: tuple[str, ...] = ()
    """Filters to use: ill_formed, language, ungrammatical, present, answer_present, duplicate,
    text_only, answered. The default is ill_formed, present and duplicate if the data lists each
    image's objects, and otherwise the first six; --model adds the last two."""
    no_filters: tuple[str, ...] = ()
    """Filters to turn off, of the default ones or of those in --filters."""
    language: str = "auto"
    """Language of the questions, such as en or de; auto is the language of most of the dataset's
    questions."""
    model: Path | None = None
    """Folder or hub id of a vision-language model that filters questions, writes questions and
    finds evidence. Without it no model is used."""
    prompt: PromptOptions = AUTO
    model_samples: NumSamples = 5
    """Answers that the model gives per question for the filters."""
    agreement: Annotated[float, Bounds(above=0.5, most=1)] = 0.8
    """Share of these answers, above one half, that must be the same for a question to count as
    answered."""
    batch_size: BatchSize = 128
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the model: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """Endpoint whose model writes questions in place of --model."""
    max_rejected: Share = 0.1
    """The command fails if a larger share of the dataset's records is unusable."""
    seed: Seed = 0
    """Seed of the random choices and of the model's answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.language not in ("auto", *LANGUAGES):
            choices = ", ".join(LANGUAGES)
            raise InbolError(f"--language {self.language}: choose auto or one of {choices}")
        if any(n < 1 for n in self.turns):
            raise InbolError("--turns: at least 1 for each; --generators names those to use")
        if self.endpoint.endpoint and "model_written" not in self.generators:
            raise InbolError(
                "--endpoint: only the generator model_written asks it; "
                "add --generators model_written"
            )
        for name in ("text_only", "answered"):
            if name in self.filters and self.model is None:
                raise InbolError(f"--filters {name}: needs --model")


@dataclasses.dataclass(frozen=True)
class AuditConfig(Bounded):
    """Write a page on generated questions: counts, samples, and whether their text betrays them."""

    out: Path
    """Folder that `inbol extrinsic` wrote; audit.html and audit.json are added to it."""
    data: Path | None = None
    """Dataset whose answerable questions the generated ones are compared with. The default is the
    dataset that they were made from."""
    samples: Annotated[int, Bounds(0, 1_000)] = 6
    """Questions shown per generator and per filter."""
    seed: Seed = 0
    """Seed of the random choices and of the folds."""
