"""The trainer runs the step on the devices and yields every step; hooks measure, log, save."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.training.objective import Metrics
from inbol_jax.training.parallel import Parallel
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.throughput import Meter

HostBatch = dict[str, np.ndarray]
# From a step on, the batches of a run. Batch i is the same whenever it is asked for.
Batches = Callable[[int], Iterable[HostBatch]]
LogRow = dict[str, float]  # metrics by name, and "step"


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

    def on_step(self, info: StepInfo) -> None:
        """Called after each step."""


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
        """Trains from a state on the devices to the last step, or to the end of the batches."""
        remaining = range(self.steps_done(state) + 1, self.total_steps + 1)
        for step, batch in zip(remaining, batches, strict=False):
            state, metrics = self.parallel.run(
                state, self._frozen, self._reference, self.parallel.shard(batch)
            )
            yield StepInfo(step, step == self.total_steps, state, metrics)

    def evaluate(self, state: TrainState, batches: Iterable[HostBatch]) -> dict[str, float]:
        """Mean metrics over batches, without updates."""
        metrics = [
            self.parallel.score(state, self._frozen, self._reference, self.parallel.shard(batch))
            for batch in batches
        ]
        return mean_metrics(jax.device_get(metrics))


def mean_metrics(metrics: Sequence[Metrics]) -> dict[str, float]:
    """Sums over the steps, divided once. A metric whose weights are all 0 is left out."""
    means = {}
    for name in metrics[0]:
        total, weight = (float(sum(step[name][i] for step in metrics)) for i in (0, 1))
        if weight:
            means[name] = total / weight
    return means


class _MetricsWindow:
    """Metrics of the steps since the last row of the log."""

    def __init__(self, meter: Meter | None):
        self._meter = meter
        self._pending: list[Metrics] = []
        self._untimed: int | None = None  # steps of this window that the meter has not timed

    def add(self, metrics: Metrics) -> None:
        self._pending.append(metrics)
        if self._meter and self._untimed is None:
            # The first step was compiled: only from here on it is training that takes the time.
            jax.block_until_ready(metrics)
            self._meter.start()
            self._untimed = 1

    def close(self) -> LogRow:
        """The window's means and rates; the next window begins."""
        pending = jax.device_get(self._pending)
        self._pending = []
        rates = {}
        if self._meter:
            rates = self._meter.read(pending[self._untimed :])
            self._untimed = 0
        return mean_metrics(pending) | rates

    def restart_clock(self) -> None:
        """Hooks are not training: the clock starts again after them."""
        if self._meter:
            self._meter.start()


def train(
    trainer: Trainer,
    state: TrainState,
    batches: Iterable[HostBatch],
    hooks: Sequence[Hook],
    *,
    logging_steps: int,
    meter: Meter | None = None,
) -> TrainState:
    """Trains to the last step. Returns the final state, on the devices.

    Args:
      state: where to go on, on the devices.
      hooks: called in this order.
      logging_steps: steps between rows of the log. Hooks that are due get a row as well.
      meter: meter of tokens per second and MFU, which are then in the rows.
    Raises:
      InbolError: if the batches end before the last step, or a hook raises it.
    """
    window = _MetricsWindow(meter)
    for info in trainer.steps(state, batches):
        state = info.state
        window.add(info.metrics)
        if info.step % logging_steps == 0 or any(hook.is_due(info) for hook in hooks):
            row: LogRow = {"step": info.step} | window.close()
            for hook in hooks:
                row |= hook.measure(info)
            for hook in hooks:
                hook.on_row(info, row)
            window.restart_clock()
        for hook in hooks:
            hook.on_step(info)
    done = trainer.steps_done(state)
    if done != trainer.total_steps:
        raise InbolError(
            f"{trainer.label}: the data ended after {done} of {trainer.total_steps} steps"
        )
    return state
