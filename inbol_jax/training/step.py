"""One training step, and the objectives that join a model with a loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inbol_jax.losses import SCHEMES, ca_dpo_loss, sequence_logprob, sft_loss, token_logprobs
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


def target_logprobs(model: Llava, variables: Mapping[str, Any], batch: Batch, *, chunk: int | None = None) -> jax.Array:
    """f32[b, a]: log-probabilities of a packed batch's targets. Logits are made where targets are, and nowhere else."""
    hidden = model.apply(variables, batch, method=Llava.hidden)
    hidden = jnp.take_along_axis(hidden, batch["target_index"][..., None], axis=1)
    return token_logprobs(hidden, model.apply(variables, method=Llava.head), batch["targets"], chunk=chunk)


def sft_objective(model: Llava) -> Objective:
    """Mean negative log-likelihood a response token, over all branches: IDK-IT, and pre-training."""

    def objective(variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Metrics]:
        total, weight = sft_loss(target_logprobs(model, variables, batch), batch["target_segment"] > 0)
        return total / jnp.maximum(weight, 1.0), {"nll": (total, weight)}

    return objective


def pair_logprobs(model: Llava, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
    """f32[b] summed log-probabilities of chosen and rejected: branches 1 and 2 of rows that share image and prompt."""
    logprobs = target_logprobs(model, variables, batch)
    return tuple(sequence_logprob(logprobs, batch["target_segment"] == branch) for branch in (1, 2))


def ca_dpo_objective(model: Llava, *, beta: float, scheme: str, anchor: float) -> Objective:
    """Confidence-aware DPO plus `anchor` times the negative log-likelihood a token of the chosen response.

    Both carry the pair's weight: an anchor without it would teach, pair by pair, what the weights are there to balance.
    The mean is over pairs that are not padding.
    The batch holds, beside the packed rows: ref_chosen, ref_rejected, confidence f32[b], kind i32[b], valid bool[b].
    """

    def objective(variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Metrics]:
        chosen, rejected = pair_logprobs(model, variables, batch)
        valid = batch["valid"].astype(jnp.float32)
        loss = ca_dpo_loss(
            chosen, rejected, batch["ref_chosen"], batch["ref_rejected"], batch["confidence"], batch["kind"], beta=beta, scheme=scheme
        )
        nll = -chosen / jnp.maximum((batch["target_segment"] == 1).sum(-1), 1)
        weight = SCHEMES[scheme](batch["confidence"], batch["kind"])
        reward = beta * ((chosen - batch["ref_chosen"]) - (rejected - batch["ref_rejected"]))
        pairs = valid.sum()
        metrics = {
            "dpo": (jnp.sum(valid * loss), pairs),
            "nll": (jnp.sum(valid * nll), pairs),
            "reward_margin": (jnp.sum(valid * reward), pairs),
            "reward_accuracy": (jnp.sum(valid * (reward > 0)), pairs),
            "logprob_chosen": (jnp.sum(valid * chosen), pairs),
            "logprob_rejected": (jnp.sum(valid * rejected), pairs),
        }
        return jnp.sum(valid * (loss + anchor * weight * nll)) / jnp.maximum(pairs, 1.0), metrics

    return objective
