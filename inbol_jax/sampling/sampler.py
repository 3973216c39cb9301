"""Sampling as one pure function of arrays, to be jitted: prefill once, fork n times, decode in a while loop."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How answers are drawn.

    Attributes:
      temperature: 0 is greedy decoding.
      top_p: the smallest set of tokens with at least this probability is drawn from; 1 for all.
      max_new_tokens: where a response is cut that does not end by itself.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 12

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise InbolError(f"sampling needs temperature >= 0, 0 < top-p <= 1 and max-new-tokens >= 1, not {self}")


class Samples(NamedTuple):
    """Attributes:
    tokens: i32[b, n, t], padded with the end-of-sequence token behind `lengths`.
    logprobs: f32[b, n], summed log-probability of each response, its end included, under the model at temperature 1, in nats.
    lengths: i32[b, n], tokens of each response, its end included.
    """

    tokens: Int[Array, "b n t"]
    logprobs: Float[Array, "b n"]
    lengths: Int[Array, "b n"]


class _Loop(NamedTuple):
    step: jax.Array
    logits: jax.Array  # f32[b, n, V]
    suffix: list[tuple[jax.Array, jax.Array]]
    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    done: jax.Array


def sample(
    model: Llava, variables: Mapping[str, Any], batch: Mapping[str, jax.Array], *, n: int, key: jax.Array, options: SamplingOptions
) -> Samples:
    """Draws n responses to each row's prompt.

    Args:
      batch: input_ids, attention_mask i32[b, s] padded on the right, pixel_values, and `question` u32[b]: a number of each question
        that its random keys are folded from, so that its samples depend neither on the batch nor on the order.
      n, options: static under jit.
    """
    eos = jnp.array(model.config.eos_token_ids)
    prompt_mask = batch["attention_mask"] != 0
    prompt_length = prompt_mask.sum(1)  # i32[b]
    b, t = prompt_length.shape[0], options.max_new_tokens
    hidden, prefix = model.apply(variables, batch, method=Llava.prefill)
    head = model.apply(variables, method=Llava.head)
    last = jnp.take_along_axis(hidden, (prompt_length - 1)[:, None, None], axis=1)  # b 1 d
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["question"])

    def logits_of(hidden: jax.Array) -> jax.Array:
        return jnp.einsum("bnd,dv->bnv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)

    def body(loop: _Loop) -> _Loop:
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, loop.step), (n,)))(keys)
        token = jnp.where(loop.done, eos[0], choose(loop.logits, uniform, options))
        logprob = jnp.take_along_axis(loop.logits, token[..., None], -1)[..., 0] - jax.nn.logsumexp(loop.logits, -1)
        positions = jnp.broadcast_to((prompt_length + loop.step)[:, None], (b, n))
        hidden, suffix = model.apply(variables, token, positions, prefix, prompt_mask, loop.suffix, loop.step, method=Llava.fork)
        return _Loop(
            step=loop.step + 1,
            logits=logits_of(hidden),
            suffix=suffix,
            tokens=loop.tokens.at[:, :, loop.step].set(token),
            logprobs=loop.logprobs + jnp.where(loop.done, 0.0, logprob),
            lengths=loop.lengths + ~loop.done,
            done=loop.done | (token[..., None] == eos).any(-1),
        )

    start = _Loop(
        step=jnp.zeros((), jnp.int32),
        logits=jnp.broadcast_to(logits_of(last), (b, n, head.shape[1])),
        suffix=[tuple(jnp.zeros((b, n, t, *x.shape[2:]), x.dtype) for x in layer) for layer in prefix],
        tokens=jnp.full((b, n, t), eos[0], jnp.int32),
        logprobs=jnp.zeros((b, n)),
        lengths=jnp.zeros((b, n), jnp.int32),
        # Rows that fill up the batch have nothing to wait for.
        done=jnp.broadcast_to(~batch["valid"][:, None], (b, n)) if "valid" in batch else jnp.zeros((b, n), bool),
    )
    end = jax.lax.while_loop(lambda loop: (loop.step < t) & ~loop.done.all(), body, start)
    return Samples(end.tokens, end.logprobs, end.lengths)


def choose(logits: Float[Array, "b n V"], uniform: Float[Array, "b n"], options: SamplingOptions) -> Int[Array, "b n"]:
    """The token at the quantile `uniform` of the (tempered, truncated) distribution: one random number a token instead of V."""
    if options.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    probabilities = jax.nn.softmax(logits / options.temperature, axis=-1)
    if options.top_p < 1:
        order = jnp.argsort(-probabilities, axis=-1)  # stable: of equal tokens the first ones are kept
        ordered = jnp.take_along_axis(probabilities, order, axis=-1)
        kept = jnp.cumsum(ordered, axis=-1) - ordered < options.top_p
        probabilities = jnp.where(jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1), probabilities, 0.0)
    cumulative = jnp.cumsum(probabilities, axis=-1)
    # A parallel cumulative sum may rise, by rounding, where nothing was added: only tokens that have any probability can be hit.
    possible = probabilities > 0
    hit = possible & (cumulative > uniform[..., None] * cumulative[..., -1:])
    last = logits.shape[-1] - 1 - jnp.argmax(possible[..., ::-1], axis=-1)  # where rounding leaves the quantile beyond them all
    return jnp.where(hit.any(-1), jnp.argmax(hit, axis=-1), last).astype(jnp.int32)
