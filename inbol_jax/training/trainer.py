"""The loop: steps, and what is due after a step (log, evaluation, checkpoint, interruption).

It knows nothing of where batches come from. A run resumes where it stopped, and ends where an
unbroken one would, in its weights and in its log.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError
from inbol_jax.interruption import Interrupted, boundaries
from inbol_jax.processes import all_end, is_main
from inbol_jax.progress import progress
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.config import RunConfig
from inbol_jax.training.parallel import Jit
from inbol_jax.training.step import Flat, Metrics, TrainProgram, TrainState, init_state

HostBatch = Mapping[str, np.ndarray]
LogRow = dict[str, float]  # metrics by name, and "step"
Sums = dict[str, list[float]]  # name -> [sum, weight], over steps, on the host

MAX_SKIPPED_IN_A_ROW = 10
"""Updates in a row that may be left out as not finite; one more stops the run."""
_NOTED = ("loss", "eval/loss", "reward", "tokens_per_second")  # beside the progress bar


class Trainer:
    """A run in its folder.

        trainer = Trainer(config, program, *take_apart(checkpoint, config), mesh, settings, steps)
        state = trainer.fit(batches)

    Attributes:
      state: the state after the last step, on the devices.
      step: the number of steps done.
      frozen: the other variables of the step, on the devices.
      parallel: how programs run on the devices.

    Args:
      program: the step, its evaluation, and the optimizer.
      trainable: the variables that are trained; their memory is used.
      settings: everything that decides the result, see `Checkpoints`. `stage` names the run in
        messages.
      steps: optimizer steps of the whole run.
    """

    def __init__(
        self,
        config: RunConfig,
        program: TrainProgram,
        trainable: Flat,
        frozen: Flat,
        mesh: Mesh,
        settings: Mapping[str, Any],
        steps: int,
    ):
        self._config, self._settings, self._total = config, settings, steps
        self._label = str(settings["stage"])
        self.parallel = _parallel(config.runtime.parallel)(program, mesh)
        self.frozen = self.parallel.place(frozen)
        self.state = self.parallel.place(init_state(trainable, program.optimizer, mesh))
        self.step = 0
        self._file = config.out / "metrics.jsonl"
        self._rows: list[LogRow] = []
        # What has no row yet: of steps that an earlier process did, and of ours, on the devices.
        self._sums: Sums = {}
        self._window: list[Metrics] = []
        self._since: float | None = None  # when this process wrote its last row
        self._saved: int | None = None  # the step of the newest checkpoint

    def fit(
        self,
        batches: Callable[[int], Iterable[HostBatch]],
        evaluation: Callable[[], Iterable[HostBatch]] | None = None,
    ) -> TrainState:
        """Trains to the last step, from the newest checkpoint if there is one.

        Args:
          batches: the batches from a step on, each of which a process has its own rows of. They
            may be made of `self.state`, as on-policy ones are.
          evaluation: the batches of other data, the same ones each time, if there are any.
        Returns:
          the final state on the host, whether it was reached now or before.
        Raises:
          InbolError: if the folder holds another run, or too many updates, or the loss, are not
            finite.
          Interrupted: if a signal has come; the last finished step is saved.
        """
        self._evaluation = evaluation
        folder = self._config.out / "checkpoints"
        with boundaries(), Checkpoints(folder, self._settings) as self._checkpoints:
            cut_off = self._resume()
            label = (self._label, self._total, "steps", self.step)
            with progress(*label, shown=is_main(), boundary=False) as self._advance:
                if cut_off:
                    self._write_row()
                for batch in batches(self.step):
                    placed = self.parallel.shard(batch)
                    self.state, metrics = self.parallel.run(self.state, self.frozen, placed)
                    self._end_step(metrics)
            assert self.step == self._total, "the data ended early"
            self._checkpoints.wait()
            return self.parallel.fetch(self.state)

    def _resume(self) -> bool:
        """Takes over the newest checkpoint. Returns whether an interruption cut off its row."""
        restored = self._checkpoints.restore(self.parallel.fetch(self.state))
        if restored is None:
            return False
        state, self._sums = restored
        self.state = self.parallel.place(state)
        self.step = self._saved = int(self.parallel.fetch(self.state.step))
        cut_off = bool(self._sums) and self._row_is_due()  # its sums are still there
        self._rows = [row for row in _read_log(self._file) if row["step"] <= self.step - cut_off]
        return cut_off

    def _end_step(self, metrics: Metrics) -> None:
        """Logs, evaluates and saves what is due after a step."""
        self.step += 1
        self._window.append(metrics)
        self._advance()
        # Before the row: it may take an evaluation, and what it sums is saved with the state.
        self._stop_if_asked()
        if self._row_is_due():
            self._write_row()
        if self._is_due(self._config.save_steps):
            self._save()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self._total

    def _row_is_due(self) -> bool:
        logged = self.step % self._config.logging_steps == 0
        return logged or self._evaluation_is_due() or self._is_due(self._config.save_steps)

    def _evaluation_is_due(self) -> bool:
        return self._evaluation is not None and self._is_due(self._config.eval_steps)

    def _stop_if_asked(self) -> None:
        """The one place where signals are looked at: the last finished step is saved."""
        if all_end():
            self._save()
            raise Interrupted

    def _save(self) -> None:
        if self._saved == self.step:  # it was resumed from
            return
        sums = add_metrics(self._sums, jax.device_get(self._window))
        self._checkpoints.save(self.parallel.fetch(self.state), sums)
        self._saved = self.step

    def _write_row(self) -> None:
        metrics = jax.device_get(self._window)
        row = {"step": self.step} | means(add_metrics(self._sums, metrics))
        tokens = sum(float(step["tokens"][0]) for step in metrics if "tokens" in step)
        if tokens and self._since is not None:  # the first row has no rate: it pays for compiling
            row["tokens_per_second"] = tokens / (time.monotonic() - self._since)
        if self._evaluation_is_due():
            row |= self._evaluate()
        self._rows.append(row)
        if is_main():
            lines = "".join(json.dumps(row) + "\n" for row in self._rows)
            write_atomically(self._file, lines)
        self._check_finite(row)  # after the log, which shows what led there
        self._sums, self._window = {}, []
        self._advance(0, ", ".join(f"{name} {row[name]:,.4g}" for name in _NOTED if name in row))
        self._since = time.monotonic()

    def _evaluate(self) -> LogRow:
        sums: Sums = {}
        for batch in self._evaluation():
            found = self.parallel.score(self.state, self.frozen, self.parallel.shard(batch))
            sums = add_metrics(sums, [jax.device_get(found)])
            self._stop_if_asked()
        return {f"eval/{name}": value for name, value in means(sums).items()}

    def _check_finite(self, row: LogRow) -> None:
        skipped = int(self.parallel.fetch(self.state.skipped))
        loss = row.get("loss", math.nan)
        if skipped <= MAX_SKIPPED_IN_A_ROW and (skipped or math.isfinite(loss)):
            return
        what = f"{skipped} updates in a row were not finite" if skipped else f"the loss is {loss}"
        raise InbolError(
            f"{self._label}: {what} at step {self.step}; lower --learning-rate or look at the data"
        )


def _parallel(name: str) -> type:
    if name == "jit":
        return Jit
    from inbol_jax.training.pmap import Pmap

    return Pmap


def _read_log(file: Path) -> list[LogRow]:
    """The rows of a log; a loss that is not finite may be in it, too."""
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InbolError(
            f"{file}: not a log of training ({error}); delete it, and the run resumes without its "
            "first lines"
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
