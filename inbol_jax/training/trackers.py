"""Metrics to TensorBoard, Weights & Biases or Trackio, where these are installed; OUT/metrics.jsonl is there whatever they do."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import canonical_json, fingerprint
from inbol_jax.errors import InbolError

Log = Callable[[int, Mapping[str, float]], None]  # (step, metrics by name)
PROJECT = "inbol_jax"


@contextlib.contextmanager
def _tensorboard(out: Path, run: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer, steps = EventFileWriter(str(out / "tensorboard")), []

    def log(step: int, metrics: Mapping[str, float]) -> None:
        if not steps:  # of what an earlier process logged after the checkpoint that this one goes on from TensorBoard shows nothing then
            writer.add_event(
                Event(
                    wall_time=time.time(),
                    step=step,
                    session_log=SessionLog(status=SessionLog.START),
                )
            )
        steps.append(step)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


@contextlib.contextmanager
def _wandb(out: Path, run: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    import wandb

    # What comes again for a step that it has is left out by W&B itself.
    begun = wandb.init(
        project=PROJECT, name=out.name, id=run, resume="allow", dir=out, config=dict(settings)
    )
    try:
        yield lambda step, metrics: begun.log(dict(metrics), step=step)
    finally:
        begun.finish()


@contextlib.contextmanager
def _trackio(out: Path, run: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=f"{out.name}-{run}", resume="allow", config=dict(settings))
    try:
        yield lambda step, metrics: trackio.log(dict(metrics), step=step)
    finally:
        trackio.finish()


TRACKERS: dict[
    str, Callable[[Path, str, Mapping[str, Any]], contextlib.AbstractContextManager[Log]]
] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


@contextlib.contextmanager
def track(names: Sequence[str], out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Yields a function that sends metrics to all of `TRACKERS` that are named.

    Args:
      out: folder of the run; TensorBoard's files go to OUT/tensorboard, where the others keep theirs is a matter of their settings.
      settings: of the run, to be shown beside it, with its "identity". A run that goes on in its folder goes on in its trackers as well.
    Raises:
      InbolError: for a name that is not known, not installed, or does not start, before training does.
    """
    run = fingerprint([settings["identity"], out.resolve()])
    plain = json.loads(canonical_json(settings))  # paths as text
    with contextlib.ExitStack() as stack:
        logs = []
        for name in names:
            if name not in TRACKERS:
                raise InbolError(f"--track {name!r}: choose among {', '.join(TRACKERS)}")
            try:
                logs.append(stack.enter_context(TRACKERS[name](out, run, plain)))
            except ImportError as error:
                raise InbolError(
                    f"--track {name}: it is not installed; `pip install {name}`"
                ) from error
            except (
                Exception
            ) as error:  # each raises errors of its own, such as where nobody has logged in
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise InbolError(
                    f"--track {name}: it does not start ({reason}); see to that, or drop the option"
                ) from error
        yield lambda step, metrics: [log(step, metrics) for log in logs] and None
