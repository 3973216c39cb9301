"""The trainer: a run in its folder, which resumes where it stopped and ends where an unbroken run
would. It logs, saves, and calls hooks for what else is measured or reported."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from inbol_jax.artifacts import write_atomically, write_json
from inbol_jax.errors import InbolError
from inbol_jax.interruption import boundaries, stop
from inbol_jax.processes import ends_after, is_main
from inbol_jax.progress import progress
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.parallel import Parallel
from inbol_jax.training.step import Flat, Metrics, TrainState
from inbol_jax.training.throughput import Meter

HostBatch = dict[str, np.ndarray]
# From a step on, the batches of a run. Batch i is the same whenever it is asked for.
Batches = Callable[[int], Iterable[HostBatch]]
LogRow = dict[str, float]  # metrics by name, and "step"
_WINDOW = "metrics.interrupted.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run lies, and how often it logs and saves."""

    out: Path
    """Folder that gets `checkpoints/` and `metrics.jsonl`."""
    settings: Mapping[str, Any]
    """Everything that decides the result, see `Checkpoints`."""
    resume_anyway: Sequence[str] = ()
    """Names of settings in which a checkpoint may differ."""
    checkpoint_dir: str | None = None
    """Folder or address of the checkpoints, if it is not `out / "checkpoints"`."""
    save_total_limit: int = 2
    """How many of the newest checkpoints are kept."""
    metric_for_best_model: str | None = None
    """Metric of the log; the checkpoint at which it is best is kept as well."""
    examples_per_step: int = 1
    """Examples per step, for the progress bar."""
    save_steps: int = 100
    """Steps between two checkpoints."""
    logging_steps: int = 10
    """Steps between two rows of the log. Evaluations and checkpoints have a row as well."""
    max_nonfinite_updates: int = 10
    """How many updates in a row may be left out because they were not finite."""


class StepInfo(NamedTuple):
    """One step of a run. The next step reuses the memory of `state`."""

    step: int  # steps done, this one included
    is_last: bool
    state: TrainState
    metrics: Metrics  # of this step, still on the devices

    def is_due(self, every: int) -> bool:
        """Whether something is due that is done every so many steps and at the end."""
        return self.is_last or self.step % every == 0


class Hook:
    """Something that is done while training. The methods that a hook does not need do nothing."""

    def is_due(self, info: StepInfo) -> bool:
        """Whether this hook needs a row of the log after this step."""
        return False

    def measure(self, info: StepInfo) -> LogRow:
        """Metrics that this hook adds to the row of this step."""
        return {}

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        """Called with each row of the log, once all hooks have measured."""


class Trainer:
    """Runs training steps up to a number of steps.

    Args:
      parallel: the step, and the devices that it runs on.
      total_steps: steps of the whole run.
      frozen: variables that are not trained.
      reference: variables of an online reference by path, if there is one.
      label: name of the run in messages.
    """

    def __init__(
        self,
        parallel: Parallel,
        total_steps: int,
        *,
        frozen: Flat,
        reference: Flat | None = None,
        label: str = "training",
    ):
        self.parallel, self.total_steps, self.label = parallel, total_steps, label
        self._frozen, self._reference = parallel.place(frozen), parallel.place(reference)

    def steps_done(self, state: TrainState) -> int:
        """The number of steps that led to a state."""
        return int(self.parallel.fetch(state.step))

    def steps(self, state: TrainState, batches: Iterable[HostBatch]) -> Iterator[StepInfo]:
        """Trains from a state on the devices to the last step.

        Raises:
          InbolError: if the batches end before.
        """
        done = self.steps_done(state)
        for step, batch in zip(range(done + 1, self.total_steps + 1), batches, strict=False):
            state, metrics = self.parallel.run(
                state, self._frozen, self._reference, self.parallel.shard(batch)
            )
            done = step
            yield StepInfo(step, step == self.total_steps, state, metrics)
        if done != self.total_steps:
            raise InbolError(
                f"{self.label}: the data ended after {done} of {self.total_steps} steps"
            )

    def evaluate(self, state: TrainState, batches: Iterable[HostBatch]) -> LogRow:
        """Mean metrics over batches, without updates."""
        metrics = [
            self.parallel.score(state, self._frozen, self._reference, self.parallel.shard(batch))
            for batch in batches
        ]
        return mean_metrics(jax.device_get(metrics))


def mean_metrics(metrics: Sequence[Metrics]) -> LogRow:
    """Sums over the steps, divided once. A metric whose weights are all 0 is left out."""
    means = {}
    for name in metrics[0]:
        total, weight = (float(sum(step[name][i] for step in metrics)) for i in (0, 1))
        if weight:
            means[name] = total / weight
    return means


class Evaluation(Hook):
    """Adds the metrics of evaluation data to the log, as "eval/NAME".

    Args:
      batches: makes the host batches, the same ones each time.
      every: steps between two evaluations. There is one at the end as well.
    """

    def __init__(self, trainer: Trainer, batches: Callable[[], Iterable[HostBatch]], every: int):
        self._trainer, self._batches, self._every = trainer, batches, every

    def is_due(self, info: StepInfo) -> bool:
        return info.is_due(self._every)

    def measure(self, info: StepInfo) -> LogRow:
        if not self.is_due(info):
            return {}
        means = self._trainer.evaluate(info.state, self._batches())
        return {f"eval/{name}": value for name, value in means.items()}


def run_training(
    trainer: Trainer,
    state: TrainState,
    batches: Batches,
    options: RunOptions,
    *,
    meter: Meter | None = None,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Trains from the newest checkpoint in the folder, or from `state` if there is none.

    Args:
      meter: meter of tokens per second and MFU.
    Returns: the final state on the host, whether it was reached now or before.
    Raises:
      InbolError: if the folder holds another run, the batches end too early, too many updates in
        a row were not finite, or too many of all.
    """
    parallel, label, size = trainer.parallel, trainer.label, options.examples_per_step
    with _open_checkpoints(options, lambda: log) as checkpoints:
        state = parallel.place(state)
        restored = checkpoints.restore(parallel.fetch(state))
        if restored is not None:
            state = parallel.place(restored)
        start, total = trainer.steps_done(state), trainer.total_steps
        log_file = options.out / "metrics.jsonl"
        log = [row for row in _read_log(log_file) if row["step"] <= start]  # later ones come again
        window = _read_window(options.out, start)  # metrics since the last row
        # Steps of the window that the meter leaves out: the first one is compiled.
        untimed = len(window) + 1
        with (
            boundaries(agreed=True),
            progress(label, total * size, "rows", start * size, shown=is_main()) as advance,
        ):
            for info in trainer.steps(state, batches(start)):
                state = info.state
                window.append(info.metrics)
                if meter and info.step == start + 1:
                    jax.block_until_ready(info.metrics)
                    meter.start()
                saves, ends = info.is_due(options.save_steps), ends_after(info.step)
                logs = saves or info.step % options.logging_steps == 0
                if logs or any(hook.is_due(info) for hook in hooks):
                    metrics = jax.device_get(window)
                    best = options.metric_for_best_model
                    if best and best.removeprefix("eval/") not in metrics[-1]:
                        known = ", ".join(metrics[-1])
                        raise InbolError(f"--metric-for-best-model {best}: choose among {known}")
                    row: LogRow = {"step": info.step} | mean_metrics(metrics)
                    if meter:
                        row |= meter.read(metrics[untimed:])
                    window, untimed = [], 0
                    for hook in hooks:
                        row |= hook.measure(info)
                    log.append(row)
                    skipped = int(parallel.fetch(state.skipped))
                    if fault := _fault(row, skipped, options.max_nonfinite_updates):
                        _write_log(log_file, log)  # it shows what led there
                        raise InbolError(f"{label}: {fault}")
                    for hook in hooks:
                        hook.on_row(info, row)
                    notes = [form.format(row[name]) for name, form in _NOTES.items() if name in row]
                    advance(0, ", ".join(notes))
                    if saves:
                        _write_log(log_file, log)
                        begin = time.monotonic()
                        checkpoints.save(parallel.fetch(state))
                        notes.append(f"saving blocked for {time.monotonic() - begin:.1f} s")
                        advance(0, ", ".join(notes))
                    if meter:
                        meter.start()  # what came after the step was no training
                if ends:
                    if not saves:
                        _write_log(log_file, log)
                        _write_window(options.out, info.step, window)
                        checkpoints.save(parallel.fetch(state))
                    stop()
                advance(size)
        skipped = int(parallel.fetch(state.all_skipped))
        if skipped > MAX_SKIPPED_SHARE * total:
            raise InbolError(
                f"{label}: {skipped} of {total} updates were left out, as they were not finite; "
                "lower --learning-rate or look at the data"
            )
        return parallel.fetch(state)


# A run of which more updates were left out has learnt too little to be taken for one.
MAX_SKIPPED_SHARE = 0.5
# Metrics that are better if they are lower
_LOWER_IS_BETTER = ("loss", "nll", "dpo", "gradient_norm", "skipped", "padding", "tokens")


def _open_checkpoints(options: RunOptions, log: Callable[[], list[LogRow]]) -> Checkpoints:
    """The run's checkpoints, of which the best is told by the rows of the log so far."""
    name = options.metric_for_best_model
    sign = -1 if name and name.split("/")[-1] in _LOWER_IS_BETTER else 1

    def score(step: int) -> float:
        # The loss of a window without a finite update is missing.
        values = (row.get(name, math.nan) for row in log() if row["step"] == step)
        value = sign * next(values, math.nan)
        return value if math.isfinite(value) else -math.inf

    return Checkpoints(
        options.checkpoint_dir or str(options.out / "checkpoints"),
        options.settings,
        resume_anyway=options.resume_anyway,
        keep=options.save_total_limit,
        score=score if name else None,
    )


# What stands beside the progress bar
_NOTES = {
    "loss": "loss {:.3f}",
    "eval/loss": "eval {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "MFU {:.0%}",
}


def _read_log(file: Path) -> list[LogRow]:
    if not file.exists():
        return []
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            int(row["step"])
        return rows
    except (ValueError, KeyError, TypeError) as error:
        raise InbolError(
            f"{file}: not a log of training ({error}); delete it, and the run resumes without its "
            "first lines"
        ) from error


def _write_log(file: Path, rows: Iterable[LogRow]) -> None:
    if is_main():
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))


def _write_window(folder: Path, step: int, window: Sequence[Metrics]) -> None:
    """Keeps the metrics that have no row yet, for a run that goes on from this step."""
    if is_main():
        sums = jax.tree.map(float, jax.device_get(window))
        write_json(folder / _WINDOW, {"step": step, "metrics": sums})


def _read_window(folder: Path, step: int) -> list[Metrics]:
    """The metrics that had no row when a run was interrupted after this step."""
    if not (folder / _WINDOW).exists():
        return []
    kept = json.loads((folder / _WINDOW).read_text())
    if kept["step"] != step:
        return []
    return [{k: tuple(map(np.float32, v)) for k, v in row.items()} for row in kept["metrics"]]


def _fault(row: LogRow, skipped: int, max_skipped: int) -> str:
    """Why training cannot go on, if so: the loss is not finite, or too many updates were not."""
    loss = row.get("loss", math.nan)
    if skipped <= max_skipped and (skipped or math.isfinite(loss)):
        return ""
    what = f"{skipped} updates in a row were not finite" if skipped else f"the loss is {loss}"
    return f"{what} at step {row['step']}; lower --learning-rate or look at the data"
