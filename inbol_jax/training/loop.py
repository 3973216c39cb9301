"""The loop around the step: input, progress, metrics, checkpoints. It resumes where it stopped, and ends where an unbroken run would."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress
from inbol_jax.sharding import replicate, shard_batch
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.step import Metrics

Host = dict[str, np.ndarray]


def fit(
    step: Callable[[TrainState, Flat, Any], tuple[TrainState, Metrics]],
    state: TrainState,
    frozen: Flat,
    batches: Callable[[int], Iterable[Host]],
    steps: int,
    *,
    out: Path,
    identity: str,
    mesh: Mesh,
    label: str,
    log_every: int = 10,
    checkpoint_every: int = 100,
    rows_per_batch: int = 1,
) -> TrainState:
    """Trains up to `steps` updates in all.

    Args:
      step: pure function (state, frozen, batch) -> (state, metrics); compiled here, with the state donated.
      batches: `batches(start)` iterates over the host batches from that step on. Batch i is the same whenever it is asked for.
      out: gets `checkpoints/` and `metrics.jsonl`, a line every `log_every` steps and at every checkpoint.
      identity: fingerprint of the run, see `Checkpoints`.
    Returns: the final state, whether it was reached now or before.
    Raises:
      InbolError: when the loss is not finite.
    """
    checkpoints = Checkpoints(out, identity)
    compiled = jax.jit(step, donate_argnums=0)
    try:
        state = replicate(state, mesh)
        state = checkpoints.restore(state) or state
        frozen = replicate(frozen, mesh)
        start = int(state.step)
        log = _kept(out / "metrics.jsonl", start)
        pending: list[Metrics] = []
        with progress(label, steps * rows_per_batch, "rows", start * rows_per_batch) as advance:
            for i, batch in zip(range(start, steps), batches(start), strict=False):
                state, metrics = compiled(state, frozen, shard_batch(batch, mesh))
                pending.append(metrics)
                last = i + 1 == steps
                saves = (i + 1) % checkpoint_every == 0 or last
                # Also before a checkpoint, which then is of a sound model, and no metrics are pending when a run resumes from it.
                if (i + 1) % log_every == 0 or saves:
                    row = {"step": i + 1} | _means(jax.device_get(pending))
                    if not math.isfinite(row["loss"]):
                        raise InbolError(f"{label}: the loss is {row['loss']} at step {i + 1}; lower --learning-rate or look at the data")
                    log.append(row)
                    pending = []
                    advance(0, f"loss {row['loss']:.3f}")
                if saves:
                    _write(out / "metrics.jsonl", log)
                    checkpoints.save(state)
                advance(rows_per_batch)
        if int(state.step) != steps:
            raise InbolError(f"{label}: the data ended after {int(state.step)} of {steps} steps")
        return state
    finally:
        checkpoints.close()


def _means(metrics: list[Metrics]) -> dict[str, float]:
    """Sums over the steps, divided once."""
    return {name: float(sum(m[name][0] for m in metrics) / max(float(sum(m[name][1] for m in metrics)), 1e-9)) for name in metrics[0]}


def _kept(path: Path, start: int) -> list[dict[str, float]]:
    """The log up to the checkpoint: what an interrupted run logged after it is done again."""
    if not path.exists():
        return []
    try:
        return [row for line in path.read_text().splitlines() if (row := json.loads(line))["step"] <= start]
    except (ValueError, KeyError, TypeError) as error:
        raise InbolError(f"{path}: not a log of training ({error}); delete it, and the run goes on without its first lines") from error


def _write(path: Path, log: list[dict[str, float]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in log))
