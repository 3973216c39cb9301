"""Options of `inbol confidence`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from inbol_jax.defaults import TINY, BatchSize, Bounded, Bounds, Dtype, Seed, Share
from inbol_jax.errors import InbolError
from inbol_jax.prompts import AUTO, PromptOptions
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.sampling.config import SamplingOptions


@dataclasses.dataclass(frozen=True)
class ConfidenceConfig(Bounded):
    """Sample answers to every question of a dataset and count how many are correct."""

    data: Path
    """Dataset folder (data.jsonl and images), or a .jsonl file; `inbol data import` makes one of
    any set."""
    out: Path
    """Answers go to OUT/confidence/NAME.jsonl. A stopped run continues where it stopped."""
    model: Path = TINY
    """Folder or hub id of the checkpoint; the default is the tiny LLaVA of the package."""
    prompt: PromptOptions = AUTO
    sampling: SamplingOptions = dataclasses.field(default_factory=SamplingOptions)
    """How answers are sampled."""
    batch_size: BatchSize = 32
    """Questions per batch, each with n answers in flight; on a CPU the batch may be smaller."""
    p_true: bool = False
    """Ask the model afterwards whether the answer that it gave most often is true. The results can
    be added to an existing store without sampling again."""
    dtype: Dtype = "auto"
    """Number format of the model: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of this process's devices along data, fsdp and tensor; -1 stands for all others."""
    distributed: bool = False
    """Set this if the run has several processes, each with devices of its own and a share of the
    questions. JAX finds the others on Cloud TPU, Slurm, Kubernetes and Open MPI. Elsewhere
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them."""
    limit: Annotated[int | None, Bounds(1)] = None
    """Ask only this many questions, from the first one on."""
    max_rejected: Share = 0.1
    """The run stops if a larger share of the records or images is unusable."""
    seed: Seed = 0
    """Seed of the samples."""
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """Endpoint whose model is sampled in place of --model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.endpoint.endpoint:
            return
        if not self.endpoint.endpoint_model:
            raise InbolError("--endpoint-model: the name of the endpoint's model is needed")
        for name in ("model", "batch_size", "p_true", "dtype", "mesh", "distributed"):
            if getattr(self, name) != getattr(ConfidenceConfig, name):
                raise InbolError(
                    f"--{name.replace('_', '-')} is of a checkpoint that is loaded here; leave it "
                    "out, or --endpoint"
                )
