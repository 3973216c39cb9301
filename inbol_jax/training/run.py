"""A run in its folder: its log, its evaluations and its checkpoints. It resumes where it stopped,
and ends where an unbroken run would."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError
from inbol_jax.interruption import boundaries, stop
from inbol_jax.processes import all_end, is_main
from inbol_jax.progress import progress
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.config import RunConfig
from inbol_jax.training.parallel import Parallel
from inbol_jax.training.step import Metrics, TrainState
from inbol_jax.training.throughput import Meter
from inbol_jax.training.trackers import open_trackers

LogRow = dict[str, float]  # metrics by name, and "step"
Sums = dict[str, list[float]]  # name -> [sum, weight], over steps, on the host

MAX_SKIPPED_IN_A_ROW = 10
"""Updates in a row that may be left out as not finite; one more stops the run."""
MAX_SKIPPED_SHARE = 0.5
"""A run of which more updates were left out has learnt too little to be taken for one."""
# What stands beside the progress bar
_NOTES = {
    "loss": "loss {:.3f}",
    "eval/loss": "eval {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "MFU {:.0%}",
    "reward": "reward {:.3f}",
    "refusal_rate": "refused {:.0%}",
}


class Evaluation(NamedTuple):
    """Metrics of other data than those that are trained on."""

    every: int
    """Steps between two evaluations. There is one at the end as well."""
    score: Callable[[TrainState], Iterable[Metrics]]
    """The metrics of each batch, the same batches each time."""


class Run:
    """What surrounds the steps of a run: log, evaluation, checkpoints, interruption.

        with Run(config, settings, ...) as run:
            state = run.resume(state)
            for batch in batches(run.step):
                state, metrics = parallel.run(state, frozen, reference, parallel.shard(batch))
                run.end_step(state, metrics)
            state = run.finish(state)

    Args:
      settings: everything that decides the result, see `Checkpoints`.
      label: name of the run in messages.
      parallel: the devices that the states are on.
      total_steps: steps of the whole run.
      stride: steps that belong together, such as those on one rollout: the run is saved and
        interrupted only after a multiple of so many.
    """

    def __init__(
        self,
        config: RunConfig,
        settings: Mapping[str, Any],
        *,
        label: str,
        parallel: Parallel,
        total_steps: int,
        stride: int = 1,
        evaluation: Evaluation | None = None,
        meter: Meter | None = None,
    ):
        self.step = 0
        """Steps done."""
        self._config, self._settings, self._label = config, settings, label
        self._parallel, self._total, self._stride = parallel, total_steps, stride
        self._evaluation, self._meter = evaluation, meter
        self._file = config.out / "metrics.jsonl"
        self._rows: list[LogRow] = []
        self._sums: Sums = {}  # of the steps since the last row that an earlier process did
        self._window: list[Metrics] = []  # of those that this one did, still on the devices
        self._untimed = 1  # steps of the window that the meter leaves out: the first is compiled
        self._ends = False  # whether the run is to be interrupted
        self._saved: int | None = None  # the step of the newest checkpoint

    def __enter__(self) -> Self:
        folder = self._config.checkpoint.checkpoint_dir or str(self._config.out / "checkpoints")
        with contextlib.ExitStack() as stack:
            checkpoints = Checkpoints(folder, self._settings, self._config.checkpoint)
            self._checkpoints = stack.enter_context(checkpoints)
            report = open_trackers(self._config, self._settings) if is_main() else None
            self._report = stack.enter_context(report) if report else None
            stack.enter_context(boundaries())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def resume(self, state: TrainState) -> TrainState:
        """The newest checkpoint's state, or `state` if there is none, on the devices.

        Raises:
          InbolError: if the folder holds another run, or what it holds is damaged.
        """
        state = self._parallel.place(state)
        restored = self._checkpoints.restore(self._parallel.fetch(state))
        if restored is not None:
            state, self._sums = self._parallel.place(restored.state), restored.log
        self.step = int(self._parallel.fetch(state.step))
        if self.step % self._stride:
            raise InbolError(
                f"the checkpoint of step {self.step} lies within {self._stride} steps that belong "
                "together (--num-iterations); choose another --out"
            )
        self._saved = self.step if restored else None
        # An interruption may have cut off the row of this step, whose sums are then still there.
        cut_off = bool(self._sums) and self._row_is_due()
        last = self.step - cut_off
        self._rows = [row for row in self._read_log() if row["step"] <= last]
        advance = progress(
            self._label, self._total, "steps", self.step, shown=is_main(), boundary=False
        )
        self._advance = self._stack.enter_context(advance)
        if cut_off:
            self._write_row(state)
            self._write_log()
        return state

    def end_step(self, state: TrainState, metrics: Metrics) -> None:
        """Logs, evaluates and saves what is due after a step.

        Args:
          metrics: of this step, still on the devices.
        Raises:
          InbolError: if too many updates in a row, or the loss, are not finite.
          Interrupted: if a signal has come; the state is saved.
        """
        if self._meter and not self._window and self._untimed:
            jax.block_until_ready(metrics)
            self._meter.start()
        self.step += 1
        self._window.append(metrics)
        self._advance()
        self._stop_if_asked(state)
        if self._row_is_due():
            self._write_row(state)
        if self._save_is_due():
            self._save(state)

    def finish(self, state: TrainState) -> TrainState:
        """The final state on the host, whether it was reached now or before.

        Raises:
          InbolError: if the data ended too early, or too many of all updates were left out.
        """
        if self.step != self._total:
            raise InbolError(
                f"{self._label}: the data ended after {self.step} of {self._total} steps"
            )
        state = self._parallel.fetch(state)
        if int(state.all_skipped) > MAX_SKIPPED_SHARE * self._total:
            raise InbolError(
                f"{self._label}: {int(state.all_skipped)} of {self._total} updates were left out, "
                "as they were not finite; lower --learning-rate or look at the data"
            )
        self._checkpoints.wait()
        return state

    def _row_is_due(self) -> bool:
        return (
            self.step % self._config.logging.logging_steps == 0
            or self._evaluation_is_due()
            or self._save_is_due()
        )

    def _evaluation_is_due(self) -> bool:
        every = self._evaluation and self._evaluation.every
        return bool(every) and (self.step % every == 0 or self.step == self._total)

    def _save_is_due(self) -> bool:
        """Whether a multiple of --save-steps, or the end, lies in the last stride."""
        if self.step % self._stride:
            return False
        every = self._config.checkpoint.save_steps
        return self.step == self._total or self.step % every < self._stride

    def _stop_if_asked(self, state: TrainState) -> None:
        """The one place where signals are looked at: the last finished step is saved."""
        self._ends = all_end() or self._ends
        if self._ends and self.step % self._stride == 0:
            self._save(state)
            stop()

    def _save(self, state: TrainState) -> None:
        if self._saved == self.step:  # it was resumed from
            return
        self._write_log()
        sums = add_metrics(self._sums, jax.device_get(self._window))
        self._checkpoints.save(self._parallel.fetch(state), sums)
        self._saved = self.step

    def _write_row(self, state: TrainState) -> None:
        metrics = jax.device_get(self._window)
        row = {"step": self.step} | means(add_metrics(self._sums, metrics))
        if self._meter:
            row |= self._meter.read(metrics[self._untimed :])
        if self._evaluation and self._evaluation_is_due():
            sums: Sums = {}
            for scores in self._evaluation.score(state):
                sums = add_metrics(sums, [jax.device_get(scores)])
                self._stop_if_asked(state)
            row |= {f"eval/{name}": value for name, value in means(sums).items()}
        self._check_finite(state, row)
        self._rows.append(row)
        self._sums, self._window, self._untimed = {}, [], 0
        if self._report:
            self._report(self.step, {name: x for name, x in row.items() if name != "step"})
        notes = [form.format(row[name]) for name, form in _NOTES.items() if name in row]
        self._advance(0, ", ".join(notes))
        if self._meter:  # evaluation was no training
            self._meter.start()

    def _check_finite(self, state: TrainState, row: LogRow) -> None:
        skipped = int(self._parallel.fetch(state.skipped))
        loss = row.get("loss", math.nan)
        if skipped <= MAX_SKIPPED_IN_A_ROW and (skipped or math.isfinite(loss)):
            return
        self._rows.append(row)
        self._write_log()  # it shows what led there
        what = f"{skipped} updates in a row were not finite" if skipped else f"the loss is {loss}"
        raise InbolError(
            f"{self._label}: {what} at step {self.step}; lower --learning-rate or look at the data"
        )

    def _write_log(self) -> None:
        if is_main():
            lines = "".join(json.dumps(row) + "\n" for row in self._rows)
            write_atomically(self._file, lines)

    def _read_log(self) -> list[LogRow]:
        if not self._file.exists():
            return []
        try:
            # A loss that is not finite is in it, too.
            rows = [json.loads(line) for line in self._file.read_text().splitlines()]
            for row in rows:
                int(row["step"])
            return rows
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InbolError(
                f"{self._file}: not a log of training ({error}); delete it, and the run resumes "
                "without its first lines"
            ) from error


def add_metrics(sums: Sums, metrics: Sequence[Mapping[str, tuple[Any, Any]]]) -> Sums:
    """The sums, and those of further steps, one after the other in float32: a run that was
    interrupted comes to the same ones to the last bit."""
    total = {name: np.array(pair, np.float32) for name, pair in sums.items()}
    for step in metrics:
        for name, pair in step.items():
            total[name] = total.get(name, np.float32(0)) + np.array(pair, np.float32)
    return {name: pair.tolist() for name, pair in total.items()}


def means(sums: Sums) -> LogRow:
    """Sums divided once. A metric whose weights are all 0 is left out."""
    return {name: total / weight for name, (total, weight) in sums.items() if weight}
