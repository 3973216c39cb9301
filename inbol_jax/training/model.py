"""The model that is trained, with new adapters, with those that it comes with, or whole: how it is
loaded, which of its variables are trained, and how it is saved."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from inbol_jax.errors import InbolError
from inbol_jax.models.loading import (
    Checkpoint,
    load_pretrained,
    load_without_weights,
    refuse_folder,
    save_pretrained,
)
from inbol_jax.models.lora import LoraConfig, init_lora, trainable_params
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.prompts import BARE, Prompt, header_prompt, tell_prompt, write_prompt
from inbol_jax.training.card import write_card
from inbol_jax.training.config import FROZEN, LoraOptions, RunConfig, TrainConfig
from inbol_jax.training.step import Flat, TrainState, merge_variables

# The weights of no model are nearly as large; larger ones come out of a run that has blown up.
MAX_WEIGHT = 1e6


def prompt_of_lines(config: TrainConfig) -> Prompt:
    """How the questions of --data are put, which hold their whole text: its header says it, or else
    the model, or else they are taken as bare questions.

    Raises:
      InbolError: if the model cannot be loaded, or --eval-data says something else.
    """
    own, file, by = load_without_weights(config.model).prompt, config.data, "the data's"
    if not (prompt := header_prompt(file)):
        prompt, by = own or BARE, f"{file.name} has no header that says it"
    other_file = config.eval_data
    if other_file and (other := header_prompt(other_file)) and other != prompt:
        raise InbolError(
            f"--eval-data {other_file} was made with prompt {other}, {file} with {prompt}"
        )
    if is_main():
        tell_prompt(prompt, by, own, model=config.model)
    return prompt


def load_model(config: RunConfig, mesh: Mesh, prompt: Prompt) -> Checkpoint:
    """The model to train, on the mesh: with new adapters, with those that it comes with, or whole.

    Args:
      prompt: how it is asked, which the trained model will say of itself.
    Raises:
      InbolError: if the checkpoint cannot be used, the options of adapters do not go with the
        model, generation is biased, or OUT/model cannot take the result.
    """
    # What needs no weights comes first.
    make_text_encoder(load_without_weights(config.model).asked_by(prompt))
    checkpoint = load_pretrained(config.model, dtype=config.runtime.dtype, mesh=mesh)
    check_weights(flatten_dict(dict(checkpoint.variables), sep="/"), f"--model {config.model}")
    if checkpoint.config.sequence_bias or checkpoint.config.refuse_below:
        raise InbolError(
            f"--model {config.model}: its generation_config.json holds a sequence_bias or "
            "refuse_below, which fits these weights and not those that come of training; train the "
            "model as it was before `inbol calibrate`, and calibrate the result"
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
    if config.runtime.scan_layers:
        from inbol_jax.models.stacking import stack_layers

        variables = stack_layers(variables, checkpoint.config)
    model = checkpoint.model.clone(lora=lora, remat=config.runtime.remat)
    return dataclasses.replace(checkpoint, model=model, variables=variables, prompt=prompt)


def lora_config(options: LoraOptions) -> LoraConfig | None:
    """The configuration of new adapters; None if there are none."""
    if not options.lora_rank:
        return None
    alpha = 2.0 * options.lora_rank if options.lora_alpha is None else options.lora_alpha
    modules = {"targets": options.lora_targets, "trainable": options.lora_trainable}
    return LoraConfig(options.lora_rank, alpha, **modules)


def take_apart(checkpoint: Checkpoint, config: RunConfig) -> tuple[Flat, Flat]:
    """Float32 masters of the variables that are trained, whose own memory is freed, and the frozen
    variables. Raises InbolError if --frozen does not fit the model."""
    trainable, frozen = split_variables(checkpoint.variables, config.frozen, checkpoint.model.lora)
    # Updates that bfloat16 would round away add up in float32.
    return {path: _to_float32(x) for path, x in trainable.items()}, frozen


def _to_float32(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.float32:
        return x
    copy = x.astype(jnp.float32)
    x.delete()
    return copy


def split_variables(
    variables: Mapping[str, Any], frozen: Sequence[str], lora: LoraConfig | None = None
) -> tuple[Flat, Flat]:
    """Flat trainable and frozen variables.

    Args:
      frozen: regular expressions. Without adapters, parameters whose path matches one are frozen.
      lora: options of the adapters, if any. Then they and the parameters of `lora.trainable` are
        trained, and everything else is frozen.
    Raises:
      InbolError: if a pattern matches no parameter, or nothing is left to train.
    """
    flat = flatten_dict(dict(variables), sep="/")
    if lora is not None:
        whole = {f"params/{path}" for path in trainable_params(variables["params"], lora)}
        trained = {path for path in flat if path.startswith("lora/") or path in whole}
    else:
        trained = set(flat)
        for pattern in frozen:
            trained -= _matching(pattern, flat)
        if not trained:
            raise InbolError("--frozen leaves no parameter to train")
    trainable = {path: x for path, x in flat.items() if path in trained}
    return trainable, {path: x for path, x in flat.items() if path not in trained}


def _matching(pattern: str, flat: Flat) -> set[str]:
    """Paths of the parameters that a pattern of --frozen matches."""
    try:
        found = {path for path in flat if re.search(pattern, path.removeprefix("params/"))}
    except re.error as error:
        raise InbolError(f"--frozen {pattern!r} is not a regular expression ({error})") from error
    if not found:
        example = next(iter(flat)).removeprefix("params/")
        raise InbolError(f"--frozen {pattern!r} matches no parameter; paths look like {example!r}")
    return found


def check_weights(variables: Flat, what: str) -> None:
    """Raises InbolError, which names a variable, if it is not finite or beyond `MAX_WEIGHT`."""
    for path, x in variables.items():
        value = float(_largest(x))
        if not value <= MAX_WEIGHT:
            size = f"as large as {value:.3g}" if math.isfinite(value) else "not finite"
            raise InbolError(f"{what}: the weights {path} are {size}")


@jax.jit
def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x)).astype(jnp.float32)


def save_trained(checkpoint: Checkpoint, config: RunConfig, state: TrainState, label: str) -> Path:
    """Saves the trained model in the dtypes that it was loaded in. Returns its folder.

    Raises:
      InbolError: if its weights are broken.
    """
    loaded = flatten_dict(dict(checkpoint.variables), sep="/")
    trained = {path: x.astype(loaded[path].dtype) for path, x in state.params.items()}
    check_weights(trained, f"{label}: no model is saved, lower --learning-rate")
    variables = merge_variables(trained, loaded)
    if config.runtime.scan_layers:
        from inbol_jax.models.stacking import unstack_layers

        variables = unstack_layers(variables, checkpoint.config)
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=variables), folder)
    if is_main():
        if checkpoint.prompt:
            write_prompt(folder, checkpoint.prompt)
        write_card(folder, checkpoint, config, method=label, steps=int(state.step))
        say(f"{label}: {int(state.step)} steps -> {folder}")
    return folder
