"""Metrics to TensorBoard or Weights & Biases, if installed. OUT/metrics.jsonl is written in any
case."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import canonical_json, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.training.config import RunConfig

Log = Callable[[int, Mapping[str, float]], None]  # (step, metrics by name)
PROJECT = "inbol_jax"


def _tensorboard(stack: ExitStack, out: Path, run: str, options: Mapping[str, Any]) -> Log:
    from tensorboard.summary import Writer

    writer = Writer(str(out / "tensorboard"))
    stack.callback(writer.close)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def _wandb(stack: ExitStack, out: Path, run: str, options: Mapping[str, Any]) -> Log:
    import wandb

    shown = json.loads(canonical_json(options))  # paths as text
    wandb_run = wandb.init(
        project=PROJECT, name=out.name, id=run, resume="allow", dir=out, config=shown
    )
    stack.callback(wandb_run.finish)
    return lambda step, metrics: wandb_run.log(dict(metrics), step=step)


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb}  # by the names of `config.TRACKERS`


@contextmanager
def open_trackers(config: RunConfig, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Yields a function that sends metrics to all trackers of --report-to.

    Args:
      settings: what decides the run: one that resumes in its folder resumes in W&B as well.
    Raises:
      InbolError: if a tracker is not installed or does not start, before training does.
    """
    run = fingerprint([settings, config.out.resolve()])
    with ExitStack() as stack:
        logs = []
        for name in config.logging.report_to:
            try:
                logs.append(_OPEN[name](stack, config.out, run, config.flat()))
            except ImportError as error:
                raise InbolError(
                    f"--report-to {name}: it is not installed; `pip install {name}`"
                ) from error
            except Exception as error:  # each has its own, for instance if nobody has logged in
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise InbolError(
                    f"--report-to {name}: it does not start ({reason}); mend that, or drop the "
                    "option"
                ) from error

        def log(step: int, metrics: Mapping[str, float]) -> None:
            for one in logs:
                one(step, metrics)

        yield log
