"""One training step: what it changes, what it minimises, and the update as a pure function."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.losses import token_logprobs
from inbol_jax.models.layers import STACKED
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.training.config import OptimizerConfig, RunConfig

Batch = Mapping[str, jax.Array]
# Variables by path: "params/language_model/norm/scale" or "lora/...".
Flat = dict[str, jax.Array]
# name -> (sum, weight). The sums are divided once, when those of all devices and steps are in.
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# (variables, batch) -> metrics. The metric "loss" is what is minimised.
Objective = Callable[[Mapping[str, Any], Batch], Metrics]
# Target positions per row whose logits exist at a time: 16 MiB per row for 32 thousand words. VQA
# answers are shorter, so they are not chunked.
CHUNK = 128
AXIS = "data"  # the axis that a pmap maps over


class TrainState(NamedTuple):
    """Everything that a checkpoint holds."""

    step: jax.Array  # i32[], steps done
    params: Flat  # the trained variables
    opt_state: Any
    skipped: jax.Array  # i32[], updates in a row that were left out as not finite


# (state, frozen variables, batch) -> (state, metrics)
TrainStep = Callable[[TrainState, Flat, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[TrainState, Flat, Batch], Metrics]


def target_logprobs(
    model: VisionLanguageModel,
    variables: Mapping[str, Any],
    batch: Batch,
    *,
    chunk: int | None = CHUNK,
) -> jax.Array:
    """Log-probabilities of a packed batch's targets, f32[b, a]. Logits exist only at the targets.

    Args:
      chunk: positions per row whose logits exist at a time.
    """
    places = batch["target_index"]  # [b, a]
    # Hidden states at the a places of a row that predict a target, not at its t tokens.
    hidden = model.apply(variables, batch, places, method="hidden")  # [b, a, d]
    head = model.apply(variables, method="head")
    return token_logprobs(hidden, head, batch["targets"], chunk=chunk)


def token_counts(batch: Batch) -> Metrics:
    """Tokens per row, and the share of the batch that is padding.

    Rows without an example, which complete the batch, count as padding.
    """
    rows = batch["valid"].astype(jnp.float32)
    # Segments of padding are -1.
    tokens = jnp.sum((batch["segments"] >= 0).sum(1) * rows)
    size = jnp.float32(batch["segments"].size)
    return {"tokens": (tokens, rows.sum()), "padding": (size - tokens, size)}


def merge_variables(first: Flat, second: Flat) -> dict[str, Any]:
    """The model's nested variables from two flat parts."""
    return unflatten_dict({**second, **first}, sep="/")


def init_state(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh | None = None
) -> TrainState:
    """The state before the first step.

    On a mesh, the optimizer's state of a variable lies where the variable does.
    """
    init = optimizer.init
    if mesh is not None:
        init = jax.jit(init, out_shardings=optimizer_shardings(trainable, optimizer, mesh))
    return TrainState(jnp.int32(0), trainable, init(trainable), jnp.int32(0))


def optimizer_shardings(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """Where the optimizer's state lies: a part with the shape of its variable lies where the
    variable does, the rest on all devices."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return optax.tree_map_params(
        optimizer,
        lambda part, p: p.sharding if part.shape == p.shape else everywhere,
        jax.eval_shape(optimizer.init, trainable),
        trainable,
        transform_non_params=lambda part: everywhere,
    )


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW for a run of `total_steps` steps: a warm-up of a tenth of them, a cosine to 0, and
    gradients clipped to a global norm of 1."""
    # A run of one step starts at the peak: with a learning rate of 0 it would do nothing.
    rise = min(max(1, round(0.1 * total_steps)), total_steps - 1)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, rise, total_steps)

    def matrices(params: Flat) -> Any:
        # Biases and norms have no decay; those of all layers may be one array.
        return {path: p.ndim - (STACKED in path) > 1 for path, p in params.items()}

    # Runs are short, so the second moment has to follow faster than with optax's 0.999.
    adamw = optax.adamw(rate, b2=0.98, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


class TrainProgram(NamedTuple):
    """What a run computes: training runs it, and `tpu/plan.py` lowers it."""

    optimizer: optax.GradientTransformation
    train_step: TrainStep
    eval_step: EvalStep


def make_program(objective: Objective, config: RunConfig, total_steps: int) -> TrainProgram:
    """The program of a run of `total_steps` steps."""
    optimizer = make_optimizer(config.optimization, total_steps)
    axis = AXIS if config.runtime.parallel == "pmap" else None
    accumulate = config.gradient_accumulation_steps
    train_step = make_train_step(
        objective, optimizer, gradient_accumulation_steps=accumulate, axis=axis
    )
    return TrainProgram(optimizer, train_step, make_eval_step(objective, axis=axis))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    gradient_accumulation_steps: int = 1,
    axis: str | None = None,
) -> TrainStep:
    """A pure function (state, frozen, batch) -> (state, metrics).

    Gradients are of sums. They are added up over micro-batches and over the devices of a pmap, and
    divided once. If the gradient or loss is not finite, the update is left out: `state.skipped`
    counts such updates in a row, and their metrics do not count.

    Args:
      gradient_accumulation_steps: micro-batches per step, k. Micro-batch i holds the rows i, i + k,
        i + 2k, ..., so that rows stay on their devices.
      axis: name of the axis that a pmap maps over.
    """

    def step(state, frozen, batch) -> tuple[TrainState, Metrics]:
        def loss(trainable: Flat, micro: Batch) -> tuple[jax.Array, Metrics]:
            metrics = objective(merge_variables(trainable, frozen), micro)
            # The sum, not the mean: sums of micro-batches and devices add up. Of (6, 3 tokens) and
            # (4, 1 token) the loss is 10 / 4 = 2.5; the mean of both means would be 3.
            return metrics["loss"][0], metrics

        def gradient_sums(micro: Batch) -> tuple[Flat, Metrics]:
            return jax.grad(loss, has_aux=True)(state.params, micro)

        gradients, metrics = _accumulate(gradient_sums, batch, gradient_accumulation_steps)
        if axis:
            gradients, metrics = jax.lax.psum((gradients, metrics), axis)
        return _update(optimizer, state, gradients, metrics)

    return step


def _accumulate(
    gradient_sums: Callable[[Batch], tuple[Flat, Metrics]], batch: Batch, count: int
) -> tuple[Flat, Metrics]:
    """The sums of gradients and metrics over `count` micro-batches."""
    if count == 1:
        return gradient_sums(batch)

    def split(x: jax.Array) -> jax.Array:  # [b, ...] -> [count, b / count, ...]
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    # 8 rows, count 2: micro-batch 0 holds rows 0 2 4 6, micro-batch 1 holds 1 3 5 7. If one device
    # has rows 0 to 3 and another 4 to 7, each has two rows of either micro-batch: nothing moves.
    def add(total: Any, micro: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_sums(micro)), None

    micros = jax.tree.map(split, dict(batch))
    shapes = jax.eval_shape(gradient_sums, jax.tree.map(lambda x: x[0], micros))
    zeros = jax.tree.map(jnp.zeros_like, shapes)
    return jax.lax.scan(add, zeros, micros)[0]


def _update(
    optimizer: optax.GradientTransformation, state: TrainState, gradients: Flat, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The next state from summed gradients, or the old parameters if something is not finite."""
    # Here is the one division. Without any weight, all sums are 0 and stay so.
    weight = jnp.maximum(metrics["loss"][1], 1.0)
    gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
    # One NaN in any gradient makes the norm NaN, so that one number tells whether all are finite.
    norm = optax.tree.norm(gradients)  # before clipping
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"][0])
    # The update is computed in any case, as a program without a branch, and then chosen or not.
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    changed = optax.apply_updates(state.params, updates), opt_state
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), changed, (state.params, state.opt_state)
    )
    one = jnp.ones(())
    metrics |= {"gradient_norm": (norm, one)}
    # Sum and weight become 0: a step that was left out counts in no mean. (0 * NaN would be NaN.)
    metrics = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), metrics)
    metrics["skipped"] = (1.0 - finite, one)
    skipped = jnp.where(finite, 0, state.skipped + 1)
    return TrainState(state.step + 1, params, opt_state, skipped), metrics


def make_eval_step(objective: Objective, *, axis: str | None = None) -> EvalStep:
    """A pure function (state, frozen, batch) -> metrics, without a gradient."""

    def evaluate(state, frozen, batch) -> Metrics:
        metrics = objective(merge_variables(state.params, frozen), batch)
        return jax.lax.psum(metrics, axis) if axis else metrics

    return evaluate
