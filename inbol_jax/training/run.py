"""A run in its folder: it resumes where it stopped, and ends where an unbroken run would."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from inbol_jax.processes import is_main
from inbol_jax.progress import progress
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.hooks import MetricsLog, Progress, SaveCheckpoints, StopIfNotFinite
from inbol_jax.training.state import TrainState
from inbol_jax.training.throughput import Meter
from inbol_jax.training.trainer import Batches, Hook, Trainer, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run lies, and how often it logs and saves."""

    out: Path
    """Folder that gets `checkpoints/` and `metrics.jsonl`."""
    fingerprint: str
    """Fingerprint of everything that decides the result, see `Checkpoints`."""
    examples_per_step: int = 1
    """Examples per step, for the progress bar."""
    save_steps: int = 100
    """Steps between two checkpoints."""
    logging_steps: int = 10
    """Steps between two rows of the log. Evaluations and checkpoints have a row as well."""
    max_nonfinite_updates: int = 10
    """How many updates in a row may be left out because they were not finite."""


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
      hooks: further hooks. They come before checkpoints are saved.
    Returns: the final state on the host, whether it was reached now or before.
    Raises:
      InbolError: if the folder holds another run, the batches end too early, or too many updates in
        a row were not finite.
    """
    parallel, total = trainer.parallel, trainer.total_steps
    with Checkpoints(options.out, options.fingerprint) as checkpoints:
        state = parallel.place(state)
        restored = checkpoints.restore(parallel.fetch(state))
        if restored is not None:
            state = parallel.place(restored)
        start, size = trainer.steps_done(state), options.examples_per_step
        log = MetricsLog(options.out / "metrics.jsonl", start)
        with progress(
            trainer.label, total * size, "rows", start * size, shown=is_main()
        ) as advance:
            all_hooks = [
                log,
                StopIfNotFinite(trainer, log, options.max_nonfinite_updates),
                *hooks,
                Progress(advance, size),
                SaveCheckpoints(trainer, log, checkpoints, options.save_steps),
            ]
            state = train(
                trainer,
                state,
                batches(start),
                all_hooks,
                logging_steps=options.logging_steps,
                meter=meter,
            )
        return parallel.fetch(state)
