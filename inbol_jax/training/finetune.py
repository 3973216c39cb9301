"""What the commands share: a model is taken apart, trained, and saved; IDK-IT and CA-DPO also share
how a dataset of given responses is gone through (`finetune`)."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from inbol_jax.artifacts import fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import (
    Checkpoint,
    save_pretrained,
)
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.prompts import write_prompt
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.config import RunConfig, TrainConfig
from inbol_jax.training.dataset import PackedDataset, in_order, stream_batches, training_order
from inbol_jax.training.parallel import PARALLEL, round_batch_size
from inbol_jax.training.run import Evaluation, Hook, RunOptions, run_training
from inbol_jax.training.settings import run_settings
from inbol_jax.training.step import Objective, init_state, make_program
from inbol_jax.training.throughput import Meter, peak_flops, training_flops
from inbol_jax.training.trackers import open_trackers
from inbol_jax.training.trainer import Batches, Trainer
from inbol_jax.training.variables import (
    Flat,
    check_weights,
    merge_variables,
    reference_part,
    split_variables,
)
from inbol_jax.training.wise_ft import interpolate, load_base


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model that is about to be trained, in parts, on the mesh."""

    checkpoint: Checkpoint
    config: RunConfig
    label: str
    """Name of the stage, for messages and for the run fingerprint."""
    mesh: Mesh
    batch_size: int
    """Rows per step, rounded so that every device gets as many in every micro-batch."""
    base: Checkpoint | None
    """What the trained weights are mixed with in the end, if they are."""
    trainable: Flat
    frozen: Flat
    reference: Flat | None
    """Copies of the trained variables that an online reference needs."""
    dtypes: Mapping[str, Any]
    """The dtypes that the trained variables are saved in."""


def prepare(
    checkpoint: Checkpoint, config: RunConfig, *, label: str, reference: bool = False
) -> Prepared:
    """Takes a model apart for training; its memory is reused.

    Args:
      label: as in `Prepared`.
      reference: keep the variables as they are now, for the frozen reference.
    Raises:
      InbolError: if an option does not fit the model.
    """
    mesh = make_mesh(*config.runtime.mesh)
    base = load_base(checkpoint, config, mesh)
    size = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    trainable, frozen = split_variables(checkpoint.variables, config.frozen, checkpoint.model.lora)
    _check_overrides(config, trainable)
    dtypes = {path: x.dtype for path, x in trainable.items()}
    kept = None
    if reference:
        started = reference_part(trainable, new_adapters=config.lora.lora_rank > 0)
        kept = jax.tree.map(jnp.copy, started)
    if config.runtime.fp32_master_weights:
        trainable = {path: _to_float32(x) for path, x in trainable.items()}
    return Prepared(checkpoint, config, label, mesh, size, base, trainable, frozen, kept, dtypes)


def train_and_save(
    prepared: Prepared,
    trainer: Trainer,
    optimizer: optax.GradientTransformation,
    batches: Batches,
    *,
    pictures: str,
    hooks: Sequence[Hook] = (),
    meter: Meter | None = None,
    steps_per_rollout: int = 1,
) -> Path:
    """Trains, or goes on, and saves the model. Returns its folder.

    Args:
      pictures: the `picture_fingerprint` of the data's images.
      steps_per_rollout: as in `RunOptions`.
    Raises:
      InbolError: if training cannot go on, or has blown up.
    """
    checkpoint, config, base = prepared.checkpoint, prepared.config, prepared.base
    base_fingerprint = base and base.fingerprint
    settings = run_settings(
        checkpoint, config, prepared.label, prepared.batch_size, base_fingerprint, pictures
    )
    rollouts = -(-config.checkpoint.save_steps // steps_per_rollout)
    options = RunOptions(
        out=config.out,
        settings=settings,
        checkpoint=dataclasses.replace(config.checkpoint, save_steps=rollouts * steps_per_rollout),
        examples_per_step=prepared.batch_size,
        steps_per_rollout=steps_per_rollout,
        max_nonfinite_updates=config.optimization.max_nonfinite_updates,
    )
    report_to = config.logging.report_to if is_main() else ()
    with open_trackers(report_to, config.out, fingerprint(settings), config.flat()) as tracking:
        state = run_training(
            trainer,
            # No name here keeps its memory.
            init_state(prepared.trainable, optimizer, prepared.mesh),
            batches,
            options,
            meter=meter,
            hooks=[*hooks, tracking],
        )
    trained = {path: x.astype(prepared.dtypes[path]) for path, x in state.params.items()}
    check_weights(trained, f"{prepared.label}: no model is saved, lower --learning-rate")
    variables = merge_variables(trained, prepared.frozen)
    if base is not None:
        alpha = config.checkpoint.wise_ft_alpha
        mixed = interpolate(variables["params"], base.variables["params"], alpha)
        variables = {"params": mixed}
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=variables), folder)
    if checkpoint.prompt and is_main():
        write_prompt(folder, checkpoint.prompt)
    return folder


def finetune(
    checkpoint: Checkpoint,
    config: TrainConfig,
    objective: Objective,
    datasets: Sequence[PackedDataset],
    *,
    label: str,
    unit: str,
    online_reference: bool = False,
) -> Path:
    """Trains on a dataset and saves the model. Returns its folder.

    Args:
      datasets: rows of --data, and of --eval-data if it is given.
      label: name of the stage, for messages and for the run fingerprint.
      unit: what messages call the rows.
      online_reference: hand the objective the variables as they were at the start.
    Raises:
      InbolError: if an option does not fit the model, or training cannot go on.
    """
    dataset, *eval_datasets = datasets
    prepared = prepare(checkpoint, config, label=label, reference=online_reference)
    mesh, size = prepared.mesh, prepared.batch_size
    total_steps = -(-len(dataset) * config.epochs // size)
    flops = training_flops(
        checkpoint.config,
        prepared.trainable,
        prepared.frozen,
        targets=float(np.mean([s.targets for s in dataset.sizes])),
        tiles=float(np.mean(dataset.tiles)),
        forwards=1 if online_reference else 0,
    )
    program = make_program(objective, config, total_steps)
    parallel = PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step)
    trainer = Trainer(
        parallel, total_steps, frozen=prepared.frozen, reference=prepared.reference, label=label
    )
    lengths = [s.tokens for s in dataset.sizes]
    grouped = len(dataset.shapes) > 1
    order = training_order(lengths, size, config.epochs, config.seed, grouped=grouped)
    batches = functools.partial(
        stream_batches, dataset, order, local_rows(mesh, size), stop=total_steps
    )
    hooks: list[Hook] = []
    for some in eval_datasets:
        micro_batch = size // config.gradient_accumulation_steps
        in_batches = functools.partial(in_order, some, mesh, micro_batch)
        hooks.append(Evaluation(trainer, in_batches, config.evaluation.eval_steps))
    folder = train_and_save(
        prepared,
        trainer,
        program.optimizer,
        batches,
        pictures=dataset.pictures,
        hooks=hooks,
        meter=Meter(flops, peak_flops(mesh.size)),
    )
    if is_main():
        say(f"{label} on {len(dataset)} {unit}, {config.epochs} epochs -> {folder}")
    return folder


def _check_overrides(config: RunConfig, trainable: Flat) -> None:
    """Raises InbolError if a learning rate is for nothing that is trained."""
    for pattern, _ in config.optimization.lr_overrides:
        if not any(re.search(pattern, path) for path in trainable):
            raise InbolError(
                f"--lr-overrides {pattern!r} matches nothing that is trained; paths look like "
                f"{next(iter(trainable))!r}"
            )


def _to_float32(x: jax.Array) -> jax.Array:
    """A float32 copy in place of a variable, whose own memory is freed."""
    if x.dtype == jnp.float32:
        return x
    copy = x.astype(jnp.float32)
    x.delete()
    return copy
