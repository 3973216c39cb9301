"""The model that is trained: with new adapters, with those that it comes with, or whole."""

import dataclasses

import jax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from inbol_jax.errors import InbolError
from inbol_jax.models.loading import (
    Checkpoint,
    load_pretrained,
    load_without_weights,
    refuse_folder,
)
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.prompts import BARE, Prompt, header_prompt, tell_prompt
from inbol_jax.training.config import FROZEN, LoraOptions, RunConfig, TrainConfig
from inbol_jax.training.variables import check_weights


def lora_config(options: LoraOptions) -> LoraConfig | None:
    """The configuration of new adapters; None if there are none."""
    if not options.lora_rank:
        return None
    alpha = 2.0 * options.lora_rank if options.lora_alpha is None else options.lora_alpha
    return LoraConfig(
        rank=options.lora_rank,
        alpha=alpha,
        dropout=options.lora_dropout,
        targets=options.lora_targets,
        trainable=options.lora_trainable,
    )


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
    model = checkpoint.model.clone(lora=lora, remat=config.runtime.remat)
    return dataclasses.replace(checkpoint, model=model, variables=variables, prompt=prompt)
