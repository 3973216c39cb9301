"""Metrics to TensorBoard or Weights & Biases, if installed. OUT/metrics.jsonl is written in any
case."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from inbol_jax.artifacts import canonical_json, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.training.config import RunConfig

Tracker = Callable[[int, Mapping[str, float]], None]  # (step, metrics by name)


def open_trackers(
    config: RunConfig, settings: Mapping[str, Any], stack: ExitStack
) -> list[Tracker]:
    """The trackers of --report-to, which the stack closes.

    Args:
      settings: what decides the run: one that resumes in its folder resumes in W&B as well.
    Raises:
      InbolError: if a tracker is not installed or does not start, before training does.
    """

    def tensorboard() -> Tracker:
        from tensorboard.summary import Writer

        writer = Writer(str(config.out / "tensorboard"))
        stack.callback(writer.close)
        return lambda step, metrics: [writer.add_scalar(*m, step) for m in metrics.items()]

    def wandb() -> Tracker:
        import wandb

        run = fingerprint([settings, config.out.resolve()])
        shown = json.loads(canonical_json(config.flat()))  # paths as text
        where = {"project": "inbol_jax", "name": config.out.name, "dir": config.out}
        opened = wandb.init(id=run, resume="allow", config=shown, **where)
        stack.callback(opened.finish)
        return lambda step, metrics: opened.log(dict(metrics), step=step)

    trackers = []
    for name in config.logging.report_to:
        try:
            trackers.append({"tensorboard": tensorboard, "wandb": wandb}[name]())
        except Exception as error:  # each has its own, for instance if nobody has logged in
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InbolError(
                f"--report-to {name}: it does not start ({reason}); install it (`pip install "
                f"{name}`) and set it up, or drop the option"
            ) from error
    return trackers
