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
    """How answers are drawn. The truncations follow one another as in transformers: top-k, then top-p of what is left, then min-p.

    Attributes:
      temperature: 0 is greedy decoding.
      top_p: the smallest set of tokens with at least this probability is drawn from; 1 for all.
      max_new_tokens: where a response is cut that does not end by itself.
      top_k: the most probable tokens that are drawn from; 0 for all.
      min_p: tokens less probable than this share of the most probable one are not drawn.
      stop_tokens: token ids that end a response as the end-of-sequence token does; they count, but are no part of the text.
      stop: strings before which the text is cut. `generate` finds them in decoded text; the sampler, which knows tokens alone, does not.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 12
    top_k: int = 0
    min_p: float = 0.0
    stop_tokens: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = {
            "temperature": (
                math.isfinite(self.temperature) and self.temperature >= 0,
                "a finite number of at least 0 is needed",
            ),
            "top_p": (0 < self.top_p <= 1, "must be greater than 0 and at most 1"),
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1 is needed"),
            "top_k": (self.top_k >= 0, "at least 1 is needed, or 0 for all tokens"),
            "min_p": (0 <= self.min_p < 1, "must be at least 0 and less than 1"),
            "stop_tokens": (
                all(token >= 0 for token in self.stop_tokens),
                "token ids are not negative",
            ),
            "stop": (all(self.stop), "an empty string would stop every response"),
        }
        for name, (fine, rule) in allowed.items():
            if not fine:
                raise InbolError(f"--{name.replace('_', '-')} {getattr(self, name)}: {rule}")


class Samples(NamedTuple):
    """Attributes:
    tokens: i32[b, n, t], padded with the end-of-sequence token behind `lengths`.
    logprobs: f32[b, n, t], log-probability of each token under the model at temperature 1 and without truncation, in nats; 0 behind
      `lengths`.
    lengths: i32[b, n], tokens of each response, its end included.
    """

    tokens: Int[Array, "b n t"]
    logprobs: Float[Array, "b n t"]
    lengths: Int[Array, "b n"]


class _Loop(NamedTuple):
    step: jax.Array  # tokens drawn so far
    suffix: list[tuple[jax.Array, jax.Array]]
    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    done: jax.Array


def sample(
    model: Llava,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    *,
    n: int,
    key: jax.Array,
    options: SamplingOptions,
) -> Samples:
    """Draws n responses to each row's prompt.

    Args:
      batch: input_ids, attention_mask i32[b, s] padded on the right, pixel_values, and `question` u32[b]: a number of each question
        that its random keys are folded from, so that its samples depend neither on the batch nor on the order.
      n, options: static under jit.
    """
    eos = model.config.eos_token_ids[0]
    ends = jnp.array((*model.config.eos_token_ids, *options.stop_tokens))
    prompt_mask = batch["attention_mask"] != 0
    prompt_length = prompt_mask.sum(1)  # i32[b]
    b, t = prompt_length.shape[0], options.max_new_tokens
    hidden, prefix = model.apply(variables, batch, method=Llava.prefill)
    head = model.apply(variables, method=Llava.head)
    last = jnp.take_along_axis(hidden, (prompt_length - 1)[:, None, None], axis=1)  # b 1 d
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["question"])

    def logits_of(hidden: jax.Array) -> jax.Array:
        return jnp.einsum(
            "bnd,dv->bnv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32
        )

    def draw(loop: _Loop, logits: jax.Array) -> _Loop:
        """One more token of each response. logits f32[b, n, V], or f32[b, 1, V] where all n begin alike."""
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, loop.step), (n,)))(
            keys
        )
        token = jnp.where(loop.done, eos, choose(logits, uniform, options))
        logprob = jnp.take_along_axis(logits, token[..., None], -1)[..., 0] - jax.nn.logsumexp(
            logits, -1
        )
        return loop._replace(
            step=loop.step + 1,
            tokens=loop.tokens.at[:, :, loop.step].set(token),
            logprobs=loop.logprobs.at[:, :, loop.step].set(jnp.where(loop.done, 0.0, logprob)),
            lengths=loop.lengths + ~loop.done,
            done=loop.done | (token[..., None] == ends).any(-1),
        )

    def body(loop: _Loop) -> _Loop:
        """The last token goes through the model only where another one follows it: t tokens take t - 1 passes."""
        index = loop.step - 1
        positions = jnp.broadcast_to((prompt_length + index)[:, None], (b, n))
        token = loop.tokens[:, :, index]
        hidden, suffix = model.apply(
            variables,
            token,
            positions,
            prefix,
            prompt_mask,
            loop.suffix,
            index,
            method=Llava.decode_step,
        )
        return draw(loop._replace(suffix=suffix), logits_of(hidden))

    start = _Loop(
        step=jnp.zeros((), jnp.int32),
        suffix=[
            tuple(jnp.zeros((b, n, t, *x.shape[2:]), x.dtype) for x in layer) for layer in prefix
        ],
        tokens=jnp.full((b, n, t), eos, jnp.int32),
        logprobs=jnp.zeros((b, n, t)),
        lengths=jnp.zeros((b, n), jnp.int32),
        # Rows that fill up the batch have nothing to wait for.
        done=jnp.broadcast_to(~batch["valid"][:, None], (b, n))
        if "valid" in batch
        else jnp.zeros((b, n), bool),
    )
    end = jax.lax.while_loop(
        lambda loop: (loop.step < t) & ~loop.done.all(), body, draw(start, logits_of(last))
    )
    return Samples(end.tokens, end.logprobs, end.lengths)


def choose(
    logits: Float[Array, "b m V"], uniform: Float[Array, "b n"], options: SamplingOptions
) -> Int[Array, "b n"]:
    """The token at the quantile `uniform` of the (tempered, truncated) distribution: one random number a token instead of V.

    Args:
      logits: m is n, or 1 for n draws from the same distribution.
    """
    if options.temperature == 0:
        return jnp.broadcast_to(jnp.argmax(logits, axis=-1).astype(jnp.int32), uniform.shape)
    probabilities = jax.nn.softmax(logits / options.temperature, axis=-1)
    if options.top_p < 1 or options.top_k:
        order = jnp.argsort(
            -probabilities, axis=-1
        )  # stable: of equal tokens the first ones are kept
        ordered = jnp.take_along_axis(probabilities, order, axis=-1)
        if options.top_k:
            ordered = jnp.where(jnp.arange(ordered.shape[-1]) < options.top_k, ordered, 0.0)
            ordered /= ordered.sum(-1, keepdims=True)
        kept = ordered > 0
        if options.top_p < 1:
            kept &= jnp.cumsum(ordered, axis=-1) - ordered < options.top_p
        probabilities = jnp.where(
            jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1), probabilities, 0.0
        )
    if options.min_p:
        probabilities = jnp.where(
            probabilities >= options.min_p * probabilities.max(-1, keepdims=True),
            probabilities,
            0.0,
        )
    cumulative = jnp.cumsum(probabilities, axis=-1)
    # A parallel cumulative sum may rise, by rounding, where nothing was added: only tokens that have any probability can be hit.
    possible = probabilities > 0
    hit = possible & (cumulative > uniform[..., None] * cumulative[..., -1:])
    last = (
        logits.shape[-1] - 1 - jnp.argmax(possible[..., ::-1], axis=-1)
    )  # where rounding leaves the quantile beyond them all
    return jnp.where(hit.any(-1), jnp.argmax(hit, axis=-1), last).astype(jnp.int32)
