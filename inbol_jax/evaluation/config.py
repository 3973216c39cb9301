"""The options of `inbol evaluate`. Nothing here imports JAX: help must be fast."""

import dataclasses
from pathlib import Path

from inbol_jax.artifacts import check_name
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.defaults import TINY, BatchSize, Dtype, NumNewTokens, NumSamples
from inbol_jax.errors import InbolError


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Ask several models the same questions; write their answers, metrics and a report."""

    in_domain: tuple[Path, ...]
    """Dataset folders whose questions are like those of training."""
    out: Path
    """Folder that gets confidence/, predictions.jsonl, metrics.json, report.html and report.md."""
    out_of_domain: tuple[Path, ...] = ()
    """Dataset folders whose questions are unlike those of training."""
    models: tuple[tuple[str, Path], ...] = (("base", TINY),)
    """Name and checkpoint folder of each model. The first model is the base: its confidence decides
    which type a question has."""
    curves: tuple[tuple[str, Path], ...] = ()
    """Name and run folder of each training stage whose curves the report shows."""
    train: Path | None = None
    """Folder of `inbol build`, for the histogram of the training confidences."""
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    n: NumSamples = 10
    """Samples per question for the confidence."""
    max_new_tokens: NumNewTokens = 12
    """Maximum number of tokens per answer."""
    batch_size: BatchSize = 128
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the models: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""
    seed: int = 0
    """Seed of the confidence's samples, of the bootstrap and of the report's gallery."""

    def __post_init__(self) -> None:
        if not self.in_domain:
            raise InbolError("--in-domain needs at least one dataset folder")
        if not self.models:
            raise InbolError("--models needs at least one name and checkpoint folder")
        for name, _ in self.models:
            check_name(name, "--models")
        if len({name for name, _ in self.models}) < len(self.models):
            raise InbolError("--models: two models have the same name; rename one of them")
