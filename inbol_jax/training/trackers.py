"""Metrics to TensorBoard, Weights & Biases or Trackio, where these are installed; OUT/metrics.jsonl is there whatever they do."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.errors import InbolError

Log = Callable[[int, Mapping[str, float]], None]  # (step, metrics by name)
PROJECT = "inbol_jax"


@contextlib.contextmanager
def _tensorboard(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    from tensorboard.summary import Writer

    writer = Writer(str(out / "tensorboard"))

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


@contextlib.contextmanager
def _wandb(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    import wandb

    # The run's id is that of its folder and settings: a run that is resumed goes on in the same place.
    run = wandb.init(project=PROJECT, name=out.name, id=settings["identity"], resume="allow", dir=out, config=dict(settings))
    try:
        yield lambda step, metrics: run.log(dict(metrics), step=step)
    finally:
        run.finish()


@contextlib.contextmanager
def _trackio(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=f"{out.name}-{settings['identity']}", resume="allow", config=dict(settings))
    try:
        yield lambda step, metrics: trackio.log(dict(metrics), step=step)
    finally:
        trackio.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], contextlib.AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


@contextlib.contextmanager
def track(names: Sequence[str], out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Yields a function that sends metrics to all of `TRACKERS` that are named.

    Args:
      out: folder of the run; TensorBoard's files go to OUT/tensorboard, where the others keep theirs is a matter of their settings.
      settings: of the run, to be shown beside it, with its "identity".
    Raises:
      InbolError: for a name that is not known or not installed, before training starts.
    """
    with contextlib.ExitStack() as stack:
        logs = []
        for name in names:
            if name not in TRACKERS:
                raise InbolError(f"--track {name!r}: choose among {', '.join(TRACKERS)}")
            try:
                logs.append(stack.enter_context(TRACKERS[name](out, settings)))
            except ImportError as error:
                raise InbolError(f"--track {name}: it is not installed; `pip install {name}`") from error
        yield lambda step, metrics: [log(step, metrics) for log in logs] and None
