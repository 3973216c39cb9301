"""What the stages share: the model with its adapters, and a run that ends in a saved model; and
what IDK-IT and CA-DPO share: a run over a dataset of given responses."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from inbol_jax.artifacts import file_fingerprint, fingerprint
from inbol_jax.data.vqa import data_file
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import (
    Checkpoint,
    find_checkpoint,
    load_pretrained,
    load_without_weights,
    refuse_folder,
    save_pretrained,
)
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.models.peft import is_adapter
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.quantize import check_installed, quantize_decoder
from inbol_jax.models.weights import param_shardings
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.sharding import local_rows, make_mesh, mesh_of
from inbol_jax.training.checkpoint import check_resume_anyway
from inbol_jax.training.config import FROZEN, LoraOptions, RunConfig, TrainConfig
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
from inbol_jax.training.trainer import Batches, Hook, Trainer
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


def load_model(config: RunConfig) -> Checkpoint:
    """The model to train, on the mesh: with new adapters, with those that it comes with, or whole.

    Raises:
      InbolError: if the checkpoint or the mesh cannot be used, the options of adapters do not go
        with the model, generation is biased, or OUT/model cannot take the result.
    """
    check_wise_ft(config)
    _check_quantize(config)
    check_resume_anyway(config.checkpoint.resume_anyway, names_of_settings(config))
    make_text_encoder(load_without_weights(config.model))
    mesh = make_mesh(*config.runtime.mesh)
    checkpoint = load_pretrained(config.model, dtype=config.runtime.dtype, mesh=mesh)
    check_weights(flatten_dict(dict(checkpoint.variables), sep="/"), f"--model {config.model}")
    if checkpoint.config.sequence_bias:
        raise InbolError(
            f"--model {config.model}: its generation_config.json holds a sequence_bias, which fits "
            "these weights and not those that come of training; train the model as it was before "
            "`inbol calibrate`, and calibrate the result"
        )
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
    if config.runtime.quantize != "none":
        variables = _quantized(checkpoint, variables, lora, config.runtime.quantize)
    model = checkpoint.model.clone(lora=lora, remat=config.runtime.remat)
    return dataclasses.replace(checkpoint, model=model, variables=variables)


def _check_quantize(config: RunConfig) -> None:
    """Raises InbolError if there will be no frozen kernels to quantise, or nothing to do it by."""
    kind = config.runtime.quantize
    if kind == "none":
        return
    if not config.lora.lora_rank and not is_adapter(find_checkpoint(config.model)):
        raise InbolError(
            f"--quantize {kind} is for what stays as it is under adapters: give --lora-rank, or "
            "as --model a folder of adapters"
        )
    check_installed(kind)


def _quantized(
    checkpoint: Checkpoint, variables: Mapping[str, Any], lora: LoraConfig, kind: str
) -> dict[str, Any]:
    """The variables with the decoder's frozen kernels quantised, on the same mesh."""
    mesh = mesh_of(variables["params"])
    params = quantize_decoder(variables["params"], checkpoint.config.parts[2], kind, lora)
    return {**variables, "params": jax.device_put(params, param_shardings(params, mesh))}


@dataclasses.dataclass(frozen=True)
class FineTuning:
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


def start(
    checkpoint: Checkpoint, config: RunConfig, *, label: str, reference: bool = False
) -> FineTuning:
    """Takes a model apart for training; its memory is reused.

    Args:
      label: as in `FineTuning`.
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
    return FineTuning(checkpoint, config, label, mesh, size, base, trainable, frozen, kept, dtypes)


def train(
    run: FineTuning,
    trainer: Trainer,
    optimizer: optax.GradientTransformation,
    batches: Batches,
    *,
    hooks: Sequence[Hook] = (),
    meter: Meter | None = None,
    steps_per_rollout: int = 1,
) -> Path:
    """Trains, or goes on, and saves the model. Returns its folder.

    Args:
      steps_per_rollout: as in `RunOptions`.
    Raises:
      InbolError: if training cannot go on, or has blown up.
    """
    checkpoint, config, base = run.checkpoint, run.config, run.base
    settings = run_settings(
        checkpoint, config, run.label, run.batch_size, base and base.fingerprint
    )
    rollouts = -(-config.checkpoint.save_steps // steps_per_rollout)
    options = RunOptions(
        out=config.out,
        settings=settings,
        checkpoint=dataclasses.replace(config.checkpoint, save_steps=rollouts * steps_per_rollout),
        examples_per_step=run.batch_size,
        steps_per_rollout=steps_per_rollout,
        max_nonfinite_updates=config.optimization.max_nonfinite_updates,
    )
    report_to = config.logging.report_to if is_main() else ()
    with open_trackers(report_to, config.out, fingerprint(settings), config.flat()) as tracking:
        state = run_training(
            trainer,
            init_state(run.trainable, optimizer, run.mesh),  # no name here keeps its memory
            batches,
            options,
            meter=meter,
            hooks=[*hooks, tracking],
        )
    trained = {path: x.astype(run.dtypes[path]) for path, x in state.params.items()}
    check_weights(trained, f"{run.label}: no model is saved, lower --learning-rate")
    variables = merge_variables(trained, run.frozen)
    if base is not None:
        alpha = config.checkpoint.wise_ft_alpha
        mixed = interpolate(variables["params"], base.variables["params"], alpha)
        variables = {"params": mixed}
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=variables), folder)
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
    run = start(checkpoint, config, label=label, reference=online_reference)
    mesh, size = run.mesh, run.batch_size
    total_steps = -(-len(dataset) * config.epochs // size)
    flops = training_flops(
        checkpoint.config,
        run.trainable,
        run.frozen,
        targets=float(np.mean([s.targets for s in dataset.sizes])),
        tiles=float(np.mean(dataset.tiles)),
        forwards=1 if online_reference else 0,
    )
    program = make_program(objective, config, total_steps)
    parallel = PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step)
    trainer = Trainer(
        parallel, total_steps, frozen=run.frozen, reference=run.reference, label=label
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
    meter = Meter(flops, peak_flops(mesh.size))
    folder = train(run, trainer, program.optimizer, batches, hooks=hooks, meter=meter)
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


# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = frozenset(
    {
        *("out", "images", "eval_data", "eval_steps", "save_steps", "report_to"),
        *("max_nonfinite_updates", "remat", "distributed", "mesh", "parallel", "resume_anyway"),
        *("checkpoint_dir", "save_total_limit", "metric_for_best_model"),
    }
)


def names_of_settings(config: RunConfig) -> Set[str]:
    """The names that `run_settings` may give, before there is a checkpoint."""
    computed = {"stage", "mesh", "parallel", "devices"}
    return config.flat().keys() - _WITHOUT_EFFECT | computed


def run_settings(
    checkpoint: Checkpoint, config: RunConfig, label: str, batch_size: int, base: str | None
) -> dict[str, Any]:
    """Everything that decides the result of a run, by the names of the options; model and data by
    their fingerprints.

    Args:
      batch_size: rows per step, after rounding.
      base: fingerprint of the base of `wise_ft_alpha`.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT}
    data = config.data if isinstance(config.data, tuple) else (config.data,)
    settings |= {
        "stage": label,
        "model": f"sha256:{checkpoint.fingerprint}",
        "data": f"sha256:{file_fingerprint(*map(data_file, data))}",
        "wise_ft_base": base,
        "batch_size": batch_size,
    }
    lora, runtime = checkpoint.model.lora, config.runtime
    if lora and lora.dropout:  # each device of a pmap draws dropout of its own
        settings |= {"mesh": runtime.mesh, "parallel": runtime.parallel}
        settings["devices"] = jax.device_count()
    return settings
