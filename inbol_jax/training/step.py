"""One training step as a pure function, and the factory that makes it from the options of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from inbol_jax.training.config import TrainConfig
from inbol_jax.training.objective import Batch, Metrics, Objective
from inbol_jax.training.optimizer import make_optimizer
from inbol_jax.training.state import Flat, TrainState, merge_variables

AXIS = "data"  # the axis that a pmap maps over

# (state, frozen variables, variables of an online reference or None, batch) -> (state, metrics)
TrainStep = Callable[[TrainState, Flat, Flat | None, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[TrainState, Flat, Flat | None, Batch], Metrics]


class TrainProgram(NamedTuple):
    """What a run computes: `training` runs it, and `inbol plan` lowers it."""

    optimizer: optax.GradientTransformation
    train_step: TrainStep
    eval_step: EvalStep


def make_program(objective: Objective, config: TrainConfig, total_steps: int) -> TrainProgram:
    """The program of a run of `total_steps` steps.

    Raises:
      InbolError: if the optimizer cannot be used.
    """
    optimizer = make_optimizer(config.optimization, total_steps)
    axis = AXIS if config.runtime.parallel == "pmap" else None
    train_step = make_train_step(
        objective,
        optimizer,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        axis=axis,
        seed=config.seed,
    )
    return TrainProgram(optimizer, train_step, make_eval_step(objective, axis=axis))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    gradient_accumulation_steps: int = 1,
    axis: str | None = None,
    seed: int = 0,
) -> TrainStep:
    """A pure function (state, frozen, reference, batch) -> (state, metrics).

    Gradients are of sums. They are added up over micro-batches and over the devices of a pmap, and
    divided once. If the gradient or loss is not finite, the update is left out: `state.skipped`
    counts such updates in a row, and their metrics do not count.

    Args:
      gradient_accumulation_steps: micro-batches per step, k. Micro-batch i holds the rows i, i + k,
        i + 2k, ..., so that rows stay on their devices.
      axis: name of the axis that a pmap maps over.
      seed: seed of dropout. Each step, micro-batch and device has a key of its own.
    """

    def step(
        state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        reference_variables = None if reference is None else merge_variables(reference, frozen)

        def loss(trainable: Flat, micro: Batch, number: Any) -> tuple[jax.Array, Metrics]:
            variables = merge_variables(trainable, frozen)
            own_key = jax.random.fold_in(key, number)
            metrics = objective(variables, reference_variables, micro, own_key)
            return metrics["loss"][0], metrics

        def gradient_sums(micro: Batch, number: Any) -> tuple[Flat, Metrics]:
            return jax.grad(loss, has_aux=True)(state.params, micro, number)

        gradients, metrics = _accumulate(gradient_sums, batch, gradient_accumulation_steps)
        if axis:
            gradients, metrics = jax.lax.psum((gradients, metrics), axis)
        return _update(optimizer, state, gradients, metrics)

    return step


def _accumulate(
    gradient_sums: Callable[[Batch, Any], tuple[Flat, Metrics]], batch: Batch, count: int
) -> tuple[Flat, Metrics]:
    """The sums of gradients and metrics over `count` micro-batches."""
    if count == 1:
        return gradient_sums(batch, 0)

    def split(x: jax.Array) -> jax.Array:  # [b, ...] -> [count, b / count, ...]
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    def add(total: Any, micro: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_sums(*micro)), None

    micros = jax.tree.map(split, dict(batch))
    shapes = jax.eval_shape(gradient_sums, jax.tree.map(lambda x: x[0], micros), 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (micros, jnp.arange(count)))[0]


def _update(
    optimizer: optax.GradientTransformation, state: TrainState, gradients: Flat, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The next state from summed gradients, or the old parameters if something is not finite."""
    weight = jnp.maximum(metrics["loss"][1], 1.0)
    gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
    norm = optax.tree.norm(gradients)  # before clipping
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"][0])
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    changed = optax.apply_updates(state.params, updates), opt_state
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), changed, (state.params, state.opt_state)
    )
    one = jnp.ones(())
    metrics = jax.tree.map(
        lambda x: jnp.where(finite, x, jnp.zeros_like(x)),
        metrics | {"gradient_norm": (norm, one)},
    )
    metrics["skipped"] = (1.0 - finite, one)
    skipped = jnp.where(finite, 0, state.skipped + 1)
    return TrainState(state.step + 1, params, opt_state, skipped), metrics


def make_eval_step(objective: Objective, *, axis: str | None = None) -> EvalStep:
    """A pure function (state, frozen, reference, batch) -> metrics, without gradients or dropout.

    Args:
      axis: name of the axis that a pmap maps over.
    """

    def evaluate(state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch) -> Metrics:
        reference_variables = None if reference is None else merge_variables(reference, frozen)
        variables = merge_variables(state.params, frozen)
        metrics = objective(variables, reference_variables, batch, None)
        return jax.lax.psum(metrics, axis) if axis else metrics

    return evaluate
