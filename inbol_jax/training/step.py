"""One training step, and the objectives that join a model with a loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inbol_jax.losses import SCHEMES, ca_dpo_loss, nll_anchor, preference_margin, sequence_logprob, sft_loss, token_logprobs
from inbol_jax.models.llava import Llava
from inbol_jax.training.state import Flat, TrainState, merge_params

Batch = Mapping[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight): divided once, when all sums are in
Objective = Callable[[Mapping[str, Any], Batch], tuple[jax.Array, Metrics]]


def make_train_step(
    objective: Objective, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Flat, Batch], tuple[TrainState, Metrics]]:
    """A pure function (state, frozen, batch) -> (state, metrics) around `objective(variables, batch) -> (loss, metrics)`."""

    def step(state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss(trainable: Flat) -> tuple[jax.Array, Metrics]:
            return objective({"params": merge_params(trainable, frozen)}, batch)

        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        one = jnp.ones(())
        metrics |= {"loss": (value, one), "gradient_norm": (optax.tree.norm(gradients), one)}
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), metrics

    return step


# Target positions of a row whose logits exist at a time: 16 MiB a row with 32 thousand words. VQA answers are shorter, and not chunked.
CHUNK = 128


def target_logprobs(model: Llava, variables: Mapping[str, Any], batch: Batch, *, chunk: int | None = CHUNK) -> jax.Array:
    """f32[b, a]: log-probabilities of a packed batch's targets. Logits are made where targets are, `chunk` a row at a time."""
    hidden = model.apply(variables, batch, method=Llava.hidden)
    hidden = jnp.take_along_axis(hidden, batch["target_index"][..., None], axis=1)
    return token_logprobs(hidden, model.apply(variables, method=Llava.head), batch["targets"], chunk=chunk)


def sft_objective(model: Llava) -> Objective:
    """Mean negative log-likelihood a response token, over all branches: IDK-IT, and pre-training."""

    def objective(variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Metrics]:
        total, weight = sft_loss(target_logprobs(model, variables, batch), batch["target_segment"] > 0)
        return total / jnp.maximum(weight, 1.0), {"nll": (total, weight)}

    return objective


def pair_logprobs(logprobs: jax.Array, batch: Batch, *, average: bool) -> tuple[jax.Array, jax.Array]:
    """f32[b] log-probabilities of chosen and rejected, summed or averaged: branches 1 and 2 of rows that share image and prompt."""
    return tuple(sequence_logprob(logprobs, batch["target_segment"] == branch, average=average) for branch in (1, 2))


def ca_dpo_objective(
    model: Llava,
    *,
    beta: float,
    scheme: str,
    anchor: float,
    loss: str = "sigmoid",
    length_normalized: bool = False,
    **options: float,
) -> Objective:
    """A confidence-aware loss of pairs plus `anchor` times the negative log-likelihood a token of the chosen response.

    Both carry the pair's weight: an anchor without it would teach, pair by pair, what the weights are there to balance.
    The mean is over pairs that are not padding.
    The batch holds, beside the packed rows: ref_chosen, ref_rejected, confidence f32[b], kind i32[b], valid bool[b].

    Args:
      loss, scheme: names in `losses.LOSSES` and `losses.SCHEMES`; `options` are further keywords of the loss.
      length_normalized: log-probabilities are averages over tokens; those of the reference in the batch must be so too.
    """

    def objective(variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Metrics]:
        logprobs = target_logprobs(model, variables, batch)
        chosen, rejected = pair_logprobs(logprobs, batch, average=length_normalized)
        arguments = chosen, rejected, batch["ref_chosen"], batch["ref_rejected"]
        confidence, kind = batch["confidence"], batch["kind"]
        pair = ca_dpo_loss(*arguments, confidence, kind, beta=beta, scheme=scheme, loss=loss, **options)
        nll = nll_anchor(logprobs, batch["target_segment"] == 1)
        weight = SCHEMES[scheme](confidence, kind)
        reward = beta * preference_margin(*arguments)
        valid = batch["valid"].astype(jnp.float32)
        pairs = valid.sum()
        metrics = {
            "dpo": (jnp.sum(valid * pair), pairs),
            "nll": (jnp.sum(valid * nll), pairs),
            "reward_margin": (jnp.sum(valid * reward), pairs),
            "reward_accuracy": (jnp.sum(valid * (reward > 0)), pairs),
            "logprob_chosen": (jnp.sum(valid * chosen), pairs),
            "logprob_rejected": (jnp.sum(valid * rejected), pairs),
        }
        return jnp.sum(valid * (pair + anchor * weight * nll)) / jnp.maximum(pairs, 1.0), metrics

    return objective
