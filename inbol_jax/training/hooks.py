"""Hooks of the trainer: the log, a stop if updates are not finite, evaluation, trackers, progress,
checkpoints.
"""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError
from inbol_jax.processes import is_main
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.trainer import Hook, HostBatch, LogRow, StepInfo, Trainer


class MetricsLog(Hook):
    """`metrics.jsonl`. Rows after the step that a run resumes from are dropped: those steps are
    done again.

    Args:
      start: steps done when the run resumes.
    """

    def __init__(self, file: Path, start: int):
        self._file = file
        self._rows = [row for row in _read_rows(file) if row["step"] <= start]

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        self._rows.append(row)

    def write(self) -> None:
        """Writes all rows, whole or not at all."""
        if is_main():
            text = "".join(json.dumps(row) + "\n" for row in self._rows)
            write_atomically(self._file, text)


def _read_rows(file: Path) -> list[LogRow]:
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


class StopIfNotFinite(Hook):
    """Stops training if the loss is not finite, or too many updates in a row were not.

    Stands before the hook that saves checkpoints, so that each of them is of a sound model.
    """

    def __init__(self, trainer: Trainer, log: MetricsLog, max_nonfinite_updates: int):
        self._trainer, self._log, self._max = trainer, log, max_nonfinite_updates

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        skipped = int(self._trainer.parallel.fetch(info.state.skipped))
        loss = row.get("loss", math.nan)
        if skipped <= self._max and (skipped or math.isfinite(loss)):
            return
        self._log.write()  # the log shows what led there, though no run goes on from here
        what = f"{skipped} updates in a row were not finite" if skipped else f"the loss is {loss}"
        raise InbolError(
            f"{self._trainer.label}: {what} at step {info.step}; lower --learning-rate or look at "
            "the data"
        )


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


class Tracking(Hook):
    """Sends every row of the log to trackers (`trackers.open_trackers`)."""

    def __init__(self, log: Callable[[int, LogRow], None]):
        self._log = log

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        self._log(info.step, {name: value for name, value in row.items() if name != "step"})


# What stands beside the progress bar
_NOTES = {
    "loss": "loss {:.3f}",
    "eval/loss": "eval {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "MFU {:.0%}",
}


class Progress(Hook):
    """Moves a progress bar, with the newest metrics beside it.

    Args:
      advance: the function that `progress.progress` yields.
      examples: examples per step.
    """

    def __init__(self, advance: Callable[..., None], examples: int):
        self._advance, self._examples = advance, examples

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        notes = [form.format(row[name]) for name, form in _NOTES.items() if name in row]
        self._advance(0, ", ".join(notes))

    def on_step(self, info: StepInfo) -> None:
        self._advance(self._examples)


class SaveCheckpoints(Hook):
    """Saves the log and a checkpoint every so many steps, and at the end."""

    def __init__(self, trainer: Trainer, log: MetricsLog, checkpoints: Checkpoints, every: int):
        self._trainer, self._log = trainer, log
        self._checkpoints, self._every = checkpoints, every

    def is_due(self, info: StepInfo) -> bool:
        return info.is_due(self._every)

    def on_row(self, info: StepInfo, row: LogRow) -> None:
        if self.is_due(info):
            self._log.write()
            self._checkpoints.save(self._trainer.parallel.fetch(info.state))
