"""`inbol demo`: the whole method on the embedded world, from nothing to the report."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import fingerprint, read_meta, write_json
from inbol_jax.confidence.estimate import ConfidenceConfig, estimate
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.stage import EvaluateConfig, evaluate
from inbol_jax.extrinsic.stage import ExtrinsicConfig, extrinsic
from inbol_jax.models.loading import TINY
from inbol_jax.refusal.build import BuildConfig, build
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo
from inbol_jax.training.idk_it import SftConfig, idk_it
from inbol_jax.world.export import ExportConfig, export
from inbol_jax.world.splits import Split


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """The whole method on the embedded world: data, confidence, Type 3 questions, IDK-IT, CA-DPO, evaluation, report.

    Attributes:
      out: everything goes here; the same command goes on where a run was stopped.
      seed: of world, samples and training.
      n_train: training questions.
      n_test: answerable test questions in domain; there are half as many of Type 3, and half as many of both out of domain.
    """

    out: Path = Path("runs/demo")
    seed: int = 0
    n_train: int = 4000
    n_test: int = 2000
