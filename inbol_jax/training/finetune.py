"""What IDK-IT and CA-DPO share: the model with its adapters, and a run over a dataset that ends in
a saved model."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from inbol_jax.artifacts import file_fingerprint, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint, load_pretrained, refuse_folder, save_pretrained
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.config import FROZEN, LoraOptions, TrainConfig
from inbol_jax.training.dataset import PackedDataset, in_order, stream_batches, training_order
from inbol_jax.training.parallel import PARALLEL, round_batch_size
from inbol_jax.training.run import Evaluation, RunOptions, run_training
from inbol_jax.training.step import (
    Flat,
    Objective,
    check_weights,
    init_state,
    make_program,
    merge_variables,
    reference_part,
    split_variables,
)
from inbol_jax.training.throughput import Meter, peak_flops, training_flops
from inbol_jax.training.trackers import open_trackers
from inbol_jax.training.trainer import Hook, Trainer
from inbol_jax.training.wise_ft import check_wise_ft, interpolate, load_base


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
    check_weights(flatten_dict(dict(checkpoint.variables), sep="/"), f"--model {config.model}")
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
    mesh = make_mesh(*config.runtime.mesh)
    base = load_base(checkpoint, config, mesh)
    size = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    total_steps = -(-len(dataset) * config.epochs // size)
    settings = run_settings(checkpoint, config, label, size, base and base.fingerprint)

    trainable, frozen = split_variables(checkpoint.variables, config.frozen, checkpoint.model.lora)
    _check_overrides(config, trainable)
    dtypes = {path: x.dtype for path, x in trainable.items()}  # as they are saved
    reference = None
    if online_reference:
        started = reference_part(trainable, new_adapters=config.lora.lora_rank > 0)
        reference = jax.tree.map(jnp.copy, started)
    flops = training_flops(
        checkpoint.config,
        trainable,
        frozen,
        targets=float(np.mean([s.targets for s in dataset.sizes])),
        forwards=1 if online_reference else 0,
    )
    if config.runtime.fp32_master_weights:
        trainable = {path: _to_float32(x) for path, x in trainable.items()}

    program = make_program(objective, config, total_steps)
    parallel = PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step)
    trainer = Trainer(parallel, total_steps, frozen=frozen, reference=reference, label=label)
    lengths = [s.tokens for s in dataset.sizes]
    order = training_order(lengths, size, config.epochs, config.seed, grouped=config.buckets > 1)
    batches = functools.partial(
        stream_batches, dataset, order, local_rows(mesh, size), stop=total_steps
    )
    hooks: list[Hook] = []
    for some in eval_datasets:
        micro_batch = size // config.gradient_accumulation_steps
        in_batches = functools.partial(in_order, some, mesh, micro_batch)
        hooks.append(Evaluation(trainer, in_batches, config.evaluation.eval_steps))
    report_to = config.logging.report_to if is_main() else ()
    with open_trackers(report_to, config.out, fingerprint(settings), config.flat()) as tracking:
        state = run_training(
            trainer,
            init_state(trainable, program.optimizer, mesh),
            batches,
            _run_options(config, settings, size),
            meter=Meter(flops, peak_flops(mesh.size)),
            hooks=[*hooks, tracking],
        )

    trained = {path: x.astype(dtypes[path]) for path, x in state.params.items()}
    check_weights(trained, f"{label}: no model is saved, lower --learning-rate")
    variables = merge_variables(trained, frozen)
    if base is not None:
        alpha = config.checkpoint.wise_ft_alpha
        mixed = interpolate(variables["params"], base.variables["params"], alpha)
        variables = {"params": mixed}
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=variables), folder)
    if is_main():
        say(f"{label} on {len(dataset)} {unit}, {config.epochs} epochs -> {folder}")
    return folder


def _run_options(config: TrainConfig, settings: Mapping[str, Any], size: int) -> RunOptions:
    return RunOptions(
        out=config.out,
        settings=settings,
        resume_anyway=config.checkpoint.resume_anyway,
        checkpoint_dir=config.checkpoint.checkpoint_dir,
        save_total_limit=config.checkpoint.save_total_limit,
        metric_for_best_model=config.checkpoint.metric_for_best_model,
        examples_per_step=size,
        save_steps=config.checkpoint.save_steps,
        max_nonfinite_updates=config.optimization.max_nonfinite_updates,
    )


def _check_overrides(config: TrainConfig, trainable: Flat) -> None:
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


# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = frozenset(
    {
        *("out", "images", "eval_data", "eval_steps", "save_steps", "report_to"),
        *("max_nonfinite_updates", "remat", "distributed", "mesh", "parallel", "resume_anyway"),
        *("checkpoint_dir", "save_total_limit", "metric_for_best_model"),
    }
)


def run_settings(
    checkpoint: Checkpoint, config: TrainConfig, label: str, batch_size: int, base: str | None
) -> dict[str, Any]:
    """Everything that decides the result of a run, by the names of the options; model and data by
    their fingerprints.

    Args:
      batch_size: rows per step, after rounding.
      base: fingerprint of the base of `wise_ft_alpha`.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT}
    settings |= {
        "stage": label,
        "model": f"sha256:{checkpoint.fingerprint}",
        "data": f"sha256:{file_fingerprint(config.data)}",
        "wise_ft_base": base,
        "batch_size": batch_size,
    }
    lora, runtime = checkpoint.model.lora, config.runtime
    if lora and lora.dropout:  # each device of a pmap draws dropout of its own
        settings |= {"mesh": runtime.mesh, "parallel": runtime.parallel}
        settings["devices"] = jax.device_count()
    return settings
