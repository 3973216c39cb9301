"""Options of `inbol extrinsic` and `inbol audit`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from inbol_jax.defaults import BatchSize, Bounded, Bounds, Dtype, Seed, Share
from inbol_jax.prompts import AUTO, PromptOptions


@dataclasses.dataclass(frozen=True)
class ExtrinsicConfig(Bounded):
    """Generate and filter questions that the images of a dataset cannot answer (Type 3)."""

    data: Path
    """Dataset whose questions and images the new questions are made from."""
    out: Path
    """Folder for the results: extrinsic.jsonl is a dataset that `inbol confidence --data` reads."""
    share: Annotated[float, Bounds(above=0, most=1)] = 0.25
    """Number of questions to make, as a share of the dataset's answerable questions."""
    generators: tuple[str, ...] = ()
    """Generators to use, which take turns: other_image, unreadable, evidence_removed, unseeable,
    mismatched. The default is the first two, and with --model the third."""
    model: Path | None = None
    """Folder or hub id of a vision-language model, such as the one to be trained. It tells how much
    of an image must go until the answer has gone."""
    prompt: PromptOptions = AUTO
    batch_size: BatchSize = 128
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the model: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""
    max_rejected: Share = 0.1
    """The command fails if a larger share of the dataset's records is unusable."""
    allow_tell: bool = False
    """Keep the questions also if their text alone tells them from the dataset's own."""
    seed: Seed = 0
    """Seed of the random choices."""


@dataclasses.dataclass(frozen=True)
class AuditConfig(Bounded):
    """Write a page on generated questions: counts, samples, and whether their text betrays them."""

    out: Path
    """Folder that `inbol extrinsic` wrote; audit.html and audit.json are added to it."""
    samples: Annotated[int, Bounds(0, 1_000)] = 6
    """Questions shown per generator."""
    seed: Seed = 0
    """Seed of the random choices and of the folds."""
