"""The loop around the step: input, progress, metrics, checkpoints. It resumes where it stopped, and ends where an unbroken run would."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError
from inbol_jax.processes import is_main
from inbol_jax.progress import progress
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.parallel import Parallel
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.step import Metrics
from inbol_jax.training.throughput import Meter
from inbol_jax.training.trackers import Log

Host = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is scored while training.

    Attributes:
      batches: makes the host batches, the same ones each time.
      every: updates between two evaluations; there is one at the end as well.
    """

    batches: Callable[[], Iterable[Host]]
    every: int


def fit(
    parallel: Parallel,
    state: TrainState,
    frozen: Flat,
    batches: Callable[[int], Iterable[Host]],
    steps: int,
    *,
    out: Path,
    identity: str,
    label: str,
    log_every: int = 10,
    checkpoint_every: int = 100,
    rows_per_batch: int = 1,
    max_skipped: int = 10,
    evaluation: Evaluation | None = None,
    meter: Meter | None = None,
    track: Log = lambda step, metrics: None,
) -> TrainState:
    """Trains up to `steps` updates in all.

    Args:
      parallel: the step, and the devices that it runs on.
      batches: `batches(start)` iterates over the host batches from that step on. Batch i is the same whenever it is asked for.
      out: gets `checkpoints/` and `metrics.jsonl`, a line every `log_every` steps, at every evaluation and at every checkpoint.
      identity: fingerprint of the run, see `Checkpoints`.
      max_skipped: updates in a row that may be left out because they were not finite.
      meter: of tokens a second and MFU, which then are in the log.
      track: gets every line of the log.
    Returns: the final state, whether it was reached now or before.
    Raises:
      InbolError: when the loss is not finite, or more than `max_skipped` updates in a row were not.
    """
    checkpoints = Checkpoints(out, identity)
    try:
        state = parallel.place(state)
        if (restored := checkpoints.restore(parallel.fetch(state))) is not None:
            state = parallel.place(restored)
        frozen = parallel.place(frozen)
        start = int(parallel.fetch(state.step))
        log = _kept(out / "metrics.jsonl", start)
        pending: list[Metrics] = []
        with progress(
            label, steps * rows_per_batch, "rows", start * rows_per_batch, shown=is_main()
        ) as advance:
            for i, batch in zip(range(start, steps), batches(start), strict=False):
                state, metrics = parallel.run(state, frozen, parallel.shard(batch))
                pending.append(metrics)
                last = i + 1 == steps
                if (
                    meter and i == start
                ):  # compiled now: from here on it is training that takes the time
                    jax.block_until_ready(metrics)
                    meter.start()
                saves = (i + 1) % checkpoint_every == 0 or last
                scores = evaluation is not None and ((i + 1) % evaluation.every == 0 or last)
                # Also before a checkpoint, which then is of a sound model, and no metrics are pending when a run resumes from it.
                if (i + 1) % log_every == 0 or saves or scores:
                    pending = jax.device_get(pending)
                    row = {"step": i + 1} | _means(pending)
                    if meter:
                        row |= meter.read(pending[1:] if i + 1 - len(pending) == start else pending)
                    loss = row.get("loss", math.nan)
                    skipped = int(parallel.fetch(state.skipped))
                    if skipped > max_skipped or not (skipped or math.isfinite(loss)):
                        if (
                            is_main()
                        ):  # what led there is to be seen, though no run goes on from here
                            _write(out / "metrics.jsonl", [*log, row])
                        what = (
                            f"{skipped} updates in a row were not finite"
                            if skipped
                            else f"the loss is {loss}"
                        )
                        raise InbolError(
                            f"{label}: {what} at step {i + 1}; lower --learning-rate or look at the data"
                        )
                    if scores:
                        row |= _score(parallel, state, frozen, evaluation.batches())
                    log.append(row)
                    track(i + 1, {name: value for name, value in row.items() if name != "step"})
                    pending = []
                    advance(0, _note(row))
                if saves:
                    if is_main():
                        _write(out / "metrics.jsonl", log)
                    checkpoints.save(parallel.fetch(state))
                if meter and (saves or scores):
                    meter.start()
                advance(rows_per_batch)
        state = parallel.fetch(state)
        if int(state.step) != steps:
            raise InbolError(f"{label}: the data ended after {int(state.step)} of {steps} steps")
        return state
    finally:
        checkpoints.close()


def _score(
    parallel: Parallel, state: TrainState, frozen: Flat, batches: Iterable[Host]
) -> dict[str, float]:
    """Means over the evaluation data, as "eval/NAME"."""
    metrics = [parallel.score(state, frozen, parallel.shard(batch)) for batch in batches]
    return {f"eval/{name}": value for name, value in _means(jax.device_get(metrics)).items()}


def _note(row: Mapping[str, float]) -> str:
    """What stands beside the progress bar."""
    shown = {
        "loss": "loss {:.3f}",
        "eval/loss": "eval {:.3f}",
        "tokens_per_second": "{:,.0f} tokens/s",
        "mfu": "MFU {:.0%}",
    }
    return ", ".join(form.format(row[name]) for name, form in shown.items() if name in row)


def _means(metrics: list[Metrics]) -> dict[str, float]:
    """Sums over the steps, divided once; without those that nothing counted for."""
    sums = {name: [float(sum(m[name][i] for m in metrics)) for i in (0, 1)] for name in metrics[0]}
    return {name: total / weight for name, (total, weight) in sums.items() if weight}


def _kept(path: Path, start: int) -> list[dict[str, float]]:
    """The log up to the checkpoint: what an interrupted run logged after it is done again."""
    if not path.exists():
        return []
    try:
        return [
            row
            for line in path.read_text().splitlines()
            if (row := json.loads(line))["step"] <= start
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InbolError(
            f"{path}: not a log of training ({error}); delete it, and the run goes on without its first lines"
        ) from error


def _write(path: Path, log: list[dict[str, float]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in log))
