"""One training step, and the objectives that join a model with a loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from inbol_jax.losses import (
    SCHEMES,
    ca_dpo_loss,
    nll_anchor,
    preference_margin,
    sequence_logprob,
    sft_loss,
    token_logprobs,
)
from inbol_jax.models.llava import Llava
from inbol_jax.records import PairKind
from inbol_jax.training.state import Flat, TrainState, merge_variables

Batch = Mapping[str, jax.Array]
Metrics = dict[
    str, tuple[jax.Array, jax.Array]
]  # name -> (sum, weight): divided once, when all sums are in
# (variables, batch, dropout key or None) -> metrics, of which "loss" is what is minimised: its sum over the batch, and what to divide by.
Objective = Callable[[Mapping[str, Any], Batch, jax.Array | None], Metrics]
Step = Callable[[TrainState, Flat, Batch], tuple[TrainState, Metrics]]

REFERENCE = "reference/"  # before the path of a variable as it was when training started


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    axis: str | None = None,
    seed: int = 0,
) -> Step:
    """A pure function (state, frozen, batch) -> (state, metrics).

    Gradients are of sums: over micro-batches, and over the devices of a pmap, they are added up and divided once. A gradient or loss that
    is not finite changes nothing; `state.skipped` counts such steps in a row, and their metrics do not count.

    Args:
      accumulate: micro-batches an update; micro-batch i holds the rows i, i + accumulate, ..., so that rows stay on their devices.
      axis: name of the axis that a pmap maps over.
      seed: of dropout; each step, micro-batch and device has a key of its own.
    """

    def step(state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))

        def sums(micro: Batch, number: jax.Array | int) -> tuple[Flat, Metrics]:
            def loss(trainable: Flat) -> tuple[jax.Array, Metrics]:
                metrics = objective(
                    merge_variables(trainable, frozen), micro, jax.random.fold_in(key, number)
                )
                return metrics["loss"][0], metrics

            return jax.grad(loss, has_aux=True)(state.params)

        if accumulate == 1:
            gradients, metrics = sums(batch, 0)
        else:
            micro = jax.tree.map(
                lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
            )
            start = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype),
                jax.eval_shape(sums, jax.tree.map(lambda x: x[0], micro), 0),
            )

            def add(total: Any, x: tuple[Batch, jax.Array]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, sums(*x)), None

            (gradients, metrics), _ = jax.lax.scan(add, start, (micro, jnp.arange(accumulate)))
        if axis:
            gradients, metrics = jax.lax.psum((gradients, metrics), axis)
        weight = jnp.maximum(metrics["loss"][1], 1.0)
        gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
        norm = optax.tree.norm(gradients)
        sound = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"][0])
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        changed = optax.apply_updates(state.params, updates), opt_state
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old), changed, (state.params, state.opt_state)
        )
        one = jnp.ones(())
        metrics = jax.tree.map(
            lambda x: jnp.where(sound, x, jnp.zeros_like(x)),
            metrics | {"gradient_norm": (norm, one)},
        )
        metrics["skipped"] = (1.0 - sound, one)
        return TrainState(
            state.step + 1, params, opt_state, jnp.where(sound, 0, state.skipped + 1)
        ), metrics

    return step


def make_eval_step(
    objective: Objective, *, axis: str | None = None
) -> Callable[[TrainState, Flat, Batch], Metrics]:
    """A pure function (state, frozen, batch) -> metrics, without gradients and without dropout.

    Args:
      axis: as of `make_train_step`.
    """

    def evaluate(state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
        metrics = objective(merge_variables(state.params, frozen), batch, None)
        return jax.lax.psum(metrics, axis) if axis else metrics

    return evaluate


# Target positions of a row whose logits exist at a time: 16 MiB a row with 32 thousand words. VQA answers are shorter, and not chunked.
CHUNK = 128


def target_logprobs(
    model: Llava,
    variables: Mapping[str, Any],
    batch: Batch,
    key: jax.Array | None = None,
    *,
    chunk: int | None = CHUNK,
) -> jax.Array:
    """f32[b, a]: log-probabilities of a packed batch's targets. Logits are made where targets are, `chunk` a row at a time.

    Args:
      key: of the adapters' dropout; None for none.
    """
    hidden = model.apply(
        variables, batch, method=Llava.hidden, rngs={} if key is None else {"dropout": key}
    )
    hidden = jnp.take_along_axis(hidden, batch["target_index"][..., None], axis=1)
    return token_logprobs(
        hidden, model.apply(variables, method=Llava.head), batch["targets"], chunk=chunk
    )


def token_counts(batch: Batch) -> Metrics:
    """Tokens a row, and the share of the batch that is padding; rows that fill up the batch are padding as a whole."""
    rows = batch["valid"].astype(jnp.float32)
    tokens = jnp.sum((batch["segments"] >= 0).sum(1) * rows)
    size = jnp.float32(batch["segments"].size)
    return {"tokens": (tokens, rows.sum()), "padding": (size - tokens, size)}


def sft_objective(model: Llava) -> Objective:
    """Mean negative log-likelihood a response token, over all branches: IDK-IT, and pre-training."""

    def objective(
        variables: Mapping[str, Any], batch: Batch, key: jax.Array | None = None
    ) -> Metrics:
        loss = sft_loss(target_logprobs(model, variables, batch, key), batch["target_segment"] > 0)
        return {"loss": loss, **token_counts(batch)}

    return objective


def pair_logprobs(
    logprobs: jax.Array, batch: Batch, *, average: bool
) -> tuple[jax.Array, jax.Array]:
    """f32[b] log-probabilities of chosen and rejected, summed or averaged: branches 1 and 2 of rows that share image and prompt."""
    return tuple(
        sequence_logprob(logprobs, batch["target_segment"] == branch, average=average)
        for branch in (1, 2)
    )


def split_reference(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The policy's variables and those of the frozen reference, from what a training step hands on.

    The reference shares with the policy what is not trained; of what is, the collection `reference` holds the start, by the same paths.
    Adapters that are not there had no effect at the start: the reference is without them.
    """
    flat = flatten_dict(dict(variables), sep="/")
    start = {
        path.removeprefix(REFERENCE): x for path, x in flat.items() if path.startswith(REFERENCE)
    }
    policy = {path: x for path, x in flat.items() if not path.startswith(REFERENCE)}
    shared = {path: x for path, x in policy.items() if not path.startswith("lora/")}
    return unflatten_dict(policy, sep="/"), unflatten_dict(shared | start, sep="/")


def ca_dpo_objective(
    model: Llava,
    *,
    beta: float,
    scheme: str,
    anchor: float,
    loss: str = "sigmoid",
    length_normalized: bool = False,
    online_reference: bool = False,
    **options: float,
) -> Objective:
    """A confidence-aware loss of pairs plus `anchor` times the negative log-likelihood a token of the chosen response.

    Both carry the pair's weight: an anchor without it would teach, pair by pair, what the weights are there to balance.
    The mean is over pairs that are not padding.
    The batch holds, beside the packed rows: ref_chosen, ref_rejected, confidence f32[b], kind i32[b], valid bool[b].

    Args:
      loss, scheme: names in `losses.LOSSES` and `losses.SCHEMES`; `options` are further keywords of the loss.
      length_normalized: log-probabilities are averages over tokens; those of the reference in the batch must be so too.
      online_reference: compute the reference's log-probabilities here (`split_reference`) instead of taking the batch's.
    """

    def objective(
        variables: Mapping[str, Any], batch: Batch, key: jax.Array | None = None
    ) -> Metrics:
        if online_reference:
            variables, frozen = split_reference(variables)
            reference = pair_logprobs(
                target_logprobs(model, frozen, batch), batch, average=length_normalized
            )
        else:
            reference = batch["ref_chosen"], batch["ref_rejected"]
        logprobs = target_logprobs(model, variables, batch, key)
        chosen, rejected = pair_logprobs(logprobs, batch, average=length_normalized)
        arguments = chosen, rejected, *reference
        confidence, kind = batch["confidence"], batch["kind"]
        pair = ca_dpo_loss(
            *arguments, confidence, kind, beta=beta, scheme=scheme, loss=loss, **options
        )
        nll = nll_anchor(logprobs, batch["target_segment"] == 1)
        weight = SCHEMES[scheme](confidence, kind)
        reward = beta * preference_margin(*arguments)
        valid = batch["valid"].astype(jnp.float32)
        pairs = valid.sum()
        metrics = {
            "loss": (jnp.sum(valid * (pair + anchor * weight * nll)), pairs),
            "dpo": (jnp.sum(valid * pair), pairs),
            "nll": (jnp.sum(valid * nll), pairs),
            "reward_margin": (jnp.sum(valid * reward), pairs),
            "reward_accuracy": (jnp.sum(valid * (reward > 0)), pairs),
            "logprob_chosen": (jnp.sum(valid * chosen), pairs),
            "logprob_rejected": (jnp.sum(valid * rejected), pairs),
            **token_counts(batch),
        }
        for of in PairKind:
            among = valid * (kind == of)
            metrics[f"reward_margin/{of.name.lower()}"] = jnp.sum(among * reward), among.sum()
            metrics[f"reward_accuracy/{of.name.lower()}"] = (
                jnp.sum(among * (reward > 0)),
                among.sum(),
            )
        return metrics

    return objective
