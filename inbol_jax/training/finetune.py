"""What IDK-IT and CA-DPO share: the model with its adapters, and a run over a dataset that ends in
a saved model.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import file_fingerprint, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint, load_pretrained, refuse_folder, save_pretrained
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.processes import is_main
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.config import FROZEN, LoraOptions, TrainConfig
from inbol_jax.training.dataset import PackedDataset, in_order, stream_batches, training_order
from inbol_jax.training.hooks import Evaluation, Tracking
from inbol_jax.training.objective import Objective
from inbol_jax.training.parallel import PARALLEL, round_batch_size
from inbol_jax.training.run import RunOptions, run_training
from inbol_jax.training.state import (
    Flat,
    in_reference,
    init_state,
    merge_variables,
    split_variables,
)
from inbol_jax.training.step import make_program
from inbol_jax.training.throughput import Meter, peak_flops, training_flops
from inbol_jax.training.trackers import open_trackers
from inbol_jax.training.trainer import Batches, Hook, Trainer
from inbol_jax.training.wise_ft import BaseWeights, check_wise_ft, interpolate, load_base


def lora_config(options: LoraOptions) -> LoraConfig | None:
    """The configuration of new adapters; None if there are none."""
    if not options.lora_rank:
        return None
    alpha = 2.0 * options.lora_rank if options.lora_alpha is None else options.lora_alpha
    return LoraConfig(
        options.lora_rank,
        alpha,
        options.lora_dropout,
        options.lora_targets,
        options.lora_rslora,
        options.lora_trainable,
    )


def load_model(config: TrainConfig) -> Checkpoint:
    """The model to train, on the mesh: with new adapters, with those that it comes with, or whole.

    Raises:
      InbolError: if the checkpoint or the mesh cannot be used, the options of adapters do not go
        with the model, or OUT/model cannot take the result.
    """
    check_wise_ft(config)
    mesh = make_mesh(*config.runtime.mesh)
    checkpoint = load_pretrained(config.model, dtype=config.runtime.dtype, mesh=mesh)
    variables, lora, new = checkpoint.variables, checkpoint.model.lora, lora_config(config.lora)
    if new and lora:
        raise InbolError(
            f"--lora-rank {new.rank}: {config.model} has adapters, which training goes on with; "
            "drop the option"
        )
    if new:
        adapters = init_lora(variables["params"], new, jax.random.key(config.seed), mesh)
        variables, lora = {**variables, "lora": adapters}, new
    if lora and config.frozen != FROZEN:
        raise InbolError(
            f"--frozen {' '.join(config.frozen)}: with adapters all else is frozen but "
            "--lora-trainable; drop the option"
        )
    refuse_folder(checkpoint, config.out / "model", adapters=lora is not None)
    model = Llava(checkpoint.config, checkpoint.model.dtype, lora, config.runtime.remat)
    return dataclasses.replace(checkpoint, model=model, variables=variables)


class _Variables(NamedTuple):
    """The variables of a run, by path."""

    trainable: Flat
    frozen: Flat
    reference: Flat | None  # a copy of the start, for an online reference
    dtypes: dict[str, Any]  # of the trainable ones, as they are saved


def finetune(
    checkpoint: Checkpoint,
    config: TrainConfig,
    objective: Objective,
    dataset: PackedDataset,
    label: str,
    *,
    eval_dataset: PackedDataset | None = None,
    online_reference: bool = False,
) -> Path:
    """Trains on a dataset and saves the model. Returns its folder.

    Args:
      label: name of the stage, for messages and for the run fingerprint.
      eval_dataset: rows of --eval-data.
      online_reference: hand the objective the variables as they were at the start.
    Raises:
      InbolError: if an option does not fit the model, or training cannot go on.
    """
    mesh = make_mesh(*config.runtime.mesh)
    base = load_base(checkpoint, config, mesh)
    size = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    total_steps = -(-len(dataset) * config.epochs // size)
    options = RunOptions(
        out=config.out,
        fingerprint=run_fingerprint(checkpoint, config, label, size, base and base.fingerprint),
        examples_per_step=size,
        save_steps=config.checkpoint.save_steps,
        max_nonfinite_updates=config.optimization.max_nonfinite_updates,
    )
    variables = _split(checkpoint, config, online_reference)
    program = make_program(objective, config, total_steps)
    trainer = Trainer(
        PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step),
        total_steps,
        frozen=variables.frozen,
        reference=variables.reference,
        label=label,
    )
    hooks: list[Hook] = []
    if eval_dataset is not None:
        micro_batch = size // config.gradient_accumulation_steps
        batches = functools.partial(in_order, eval_dataset, mesh, micro_batch)
        hooks.append(Evaluation(trainer, batches, config.evaluation.eval_steps))
    report_to = config.logging.report_to if is_main() else ()
    with open_trackers(report_to, config.out, options.fingerprint, config.flat()) as log:
        state = run_training(
            trainer,
            init_state(variables.trainable, program.optimizer, mesh),
            _batches(dataset, config, mesh, size, total_steps),
            options,
            meter=_meter(checkpoint, variables, dataset, mesh),
            hooks=[*hooks, Tracking(log)],
        )
    return _save(checkpoint, config, variables, state.params, base)


def _split(checkpoint: Checkpoint, config: TrainConfig, online_reference: bool) -> _Variables:
    """The variables to train and the others. The memory of weights that get float32 copies is
    freed.
    """
    trainable, frozen = split_variables(checkpoint.variables, config.frozen, checkpoint.model.lora)
    for pattern, _ in config.optimization.lr_overrides:
        if not any(re.search(pattern, path) for path in trainable):
            raise InbolError(
                f"--lr-overrides {pattern!r} matches nothing that is trained; paths look like "
                f"{next(iter(trainable))!r}"
            )
    reference = None
    if online_reference:
        new_adapters = config.lora.lora_rank > 0
        copied = [path for path in trainable if in_reference(path, new_adapters=new_adapters)]
        reference = {path: jnp.copy(trainable[path]) for path in copied}
    dtypes = {path: x.dtype for path, x in trainable.items()}
    if config.runtime.fp32_master_weights:
        trainable = {path: _to_float32(x) for path, x in trainable.items()}
    return _Variables(trainable, frozen, reference, dtypes)


def _to_float32(x: jax.Array) -> jax.Array:
    """A float32 copy in place of a variable, whose own memory is freed."""
    if x.dtype == jnp.float32:
        return x
    copy = x.astype(jnp.float32)
    x.delete()
    return copy


def _batches(
    dataset: PackedDataset, config: TrainConfig, mesh: Mesh, size: int, total_steps: int
) -> Batches:
    """This process's rows of the run's batches, from any step on."""
    lengths = [s.tokens for s in dataset.sizes]
    order = training_order(lengths, size, config.epochs, config.seed, grouped=config.buckets > 1)
    mine = local_rows(mesh, size)
    return lambda start: stream_batches(dataset, order, mine, start, total_steps)


def _meter(
    checkpoint: Checkpoint, variables: _Variables, dataset: PackedDataset, mesh: Mesh
) -> Meter:
    flops = training_flops(
        checkpoint.config,
        variables.trainable,
        variables.frozen,
        targets=float(np.mean([s.targets for s in dataset.sizes])),
        forwards=0 if variables.reference is None else 1,
    )
    return Meter(flops, peak_flops(mesh.size))


def _save(
    checkpoint: Checkpoint,
    config: TrainConfig,
    variables: _Variables,
    params: Flat,
    base: BaseWeights | None,
) -> Path:
    """Saves the trained model in OUT/model, mixed with the base if that is asked for."""
    trained = {path: x.astype(variables.dtypes[path]) for path, x in params.items()}
    merged = merge_variables(trained, variables.frozen)
    if base is not None:
        alpha = config.checkpoint.wise_ft_alpha
        merged = {"params": interpolate(merged["params"], base.params, alpha)}
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=merged), folder)
    return folder


# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = frozenset(
    {
        *("out", "images", "eval_data", "eval_steps", "save_steps", "report_to"),
        *("max_nonfinite_updates", "remat", "distributed", "mesh", "parallel"),
    }
)


def run_fingerprint(
    checkpoint: Checkpoint, config: TrainConfig, label: str, batch_size: int, base: str | None
) -> str:
    """Fingerprint of everything that decides the result of a run.

    Args:
      batch_size: rows per step, after rounding.
      base: fingerprint of the base of `wise_ft_alpha`.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT}
    settings |= {
        "stage": label,
        "model": checkpoint.fingerprint,
        "data": file_fingerprint(config.data),
        "wise_ft_base": base,
        "batch_size": batch_size,
    }
    lora = checkpoint.model.lora
    if lora and lora.dropout:  # each device of a pmap draws dropout of its own
        runtime = config.runtime
        settings |= {
            "mesh": runtime.mesh,
            "parallel": runtime.parallel,
            "devices": jax.device_count(),
        }
    return fingerprint(settings)
