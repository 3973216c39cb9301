"""Sampling as one pure function of arrays: prefill once, decode n continuations in a while loop."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.config import ModelConfig
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sharding import COMPILER_OPTIONS


class Samples(NamedTuple):
    """The n responses to each of b questions."""

    tokens: Int[Array, "b n t"]
    """Padded behind `lengths` with the end-of-sequence token."""
    logprobs: Float[Array, "b n t"]
    """In nats, under the model at temperature 1 without truncation or bias; 0 behind `lengths`."""
    lengths: Int[Array, "b n"]
    """The number of tokens of each response, its end included."""


class Prompted(NamedTuple):
    """What one pass over the prompts leaves for all their responses."""

    logits: Float[Array, "b 1 V"]
    """Of the first token, without any bias."""
    cache: list[tuple[jax.Array, jax.Array]]
    """Keys and values of the prompt, per layer."""
    mask: Bool[Array, "b s"]
    """Which tokens of the prompt are no padding."""
    end: Int[Array, " b"]
    """The position of the first token behind the prompt."""


class _State(NamedTuple):
    """What the decoding loop carries."""

    step: Int[Array, ""]  # tokens drawn so far
    suffix: list[tuple[jax.Array, jax.Array]]  # keys and values of the drawn tokens, per layer
    tokens: Int[Array, "b n t"]
    logprobs: Float[Array, "b n t"]
    lengths: Int[Array, "b n"]
    done: Bool[Array, "b n"]


def sample(
    model: VisionLanguageModel,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    *,
    key: jax.Array,
    options: SamplingOptions,
) -> Samples:
    """Draws n responses to each row's prompt. One prefill per question serves all of them.

    The bias that the checkpoint's generation_config.json gives to sequences of tokens is added to
    the logits before anything else, as transformers' `SequenceBiasLogitsProcessor` does.

    Args:
      batch: input_ids and attention_mask, i32[b, s] padded on the right; the images; `question`
        u32[b], a number of each question that its random keys are folded from, so that its samples
        depend neither on the batch nor on the order; optionally `valid` bool[b], False for rows
        without a question, which only complete the batch.
      options: static under jit, as is the model.
    """
    return decode(
        model, variables, batch, prefill(model, variables, batch), key=key, options=options
    )


def prefill(
    model: VisionLanguageModel, variables: Mapping[str, Any], batch: Mapping[str, jax.Array]
) -> Prompted:
    """Runs each prompt once; the batch is that of `sample`."""
    mask = batch["attention_mask"] != 0  # b s
    # The last layer's states are needed at one place alone, that of the last token: [b, 1, d].
    last, cache = model.apply(variables, batch, mask.sum(1, keepdims=True) - 1, method="prefill")
    logits = logits_of(last, model.apply(variables, method="head"))
    return Prompted(logits, cache, mask, model.apply(variables, batch, method="next_positions"))


def decode(
    model: VisionLanguageModel,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    prompted: Prompted,
    *,
    key: jax.Array,
    options: SamplingOptions,
    first_bias: Float[Array, "n V"] | float = 0.0,
) -> Samples:
    """Draws n responses behind each prompt that has been run.

    Args:
      batch, key, options: as in `sample`.
      first_bias: is added to the logits from which the first token of each response is chosen; -inf
        forbids tokens.
    """
    # Greedy, n = 1, t = 3, prompt p q, answer r s <end>:
    #   prefill      p q -> logits of r        draw (step 0): r
    #   advance 1    r   -> logits of s        draw (step 1): s
    #   advance 2    s   -> logits of <end>    draw (step 2): <end>, done
    ends = jnp.array(model.config.eos_token_ids)
    eos = model.config.eos_token_ids[0]  # stands behind the end of a response
    b, n, t = len(prompted.mask), options.n, options.max_new_tokens
    head = model.apply(variables, method="head")  # d V
    # A key per question and not per row: the batch that a question is in changes no sample.
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["question"])  # b

    def draw(
        state: _State, logits: jax.Array, previous: jax.Array, first_bias: jax.Array | float = 0.0
    ) -> _State:
        # One more token of each response, behind `previous`. Before the first one all n are alike:
        # logits is b 1 V and previous b 1.
        # 1. A random quantile for each response.
        # One number per response, from a key per question and step.
        uniform = jax.vmap(
            lambda key: jax.random.uniform(jax.random.fold_in(key, state.step), (n,))
        )(keys)  # b n
        # 2. Biases act on the choice alone, and are no part of the log-probability.
        biased = logits + sequence_bias(model.config, previous) + first_bias  # b n V
        # 3. Responses that have ended draw on, as shapes are static; what they draw becomes `eos`.
        token = jnp.where(state.done, eos, sample_token(biased, uniform, options))  # b n
        # 4. Log-probability under the model itself: no temperature, truncation or bias.
        chosen = jnp.take_along_axis(logits, token[..., None], -1)[..., 0]  # b n
        logprob = jnp.where(state.done, 0.0, chosen - jax.nn.logsumexp(logits, -1))
        # 5. The end token still counts, so `done` of the state before decides about the length.
        return state._replace(
            step=state.step + 1,
            tokens=state.tokens.at[:, :, state.step].set(token),
            logprobs=state.logprobs.at[:, :, state.step].set(logprob),
            lengths=state.lengths + ~state.done,
            done=state.done | (token[..., None] == ends).any(-1),
        )

    def advance(state: _State) -> _State:
        # Only a token that another one follows goes through the model: t tokens take t - 1 passes.
        index = state.step - 1
        positions = jnp.broadcast_to((prompted.end + index)[:, None], (b, n))
        token = state.tokens[:, :, index]  # b n
        context = positions, prompted.cache, prompted.mask, state.suffix, index
        hidden, suffix = model.apply(variables, token, *context, method="decode_step")
        return draw(state._replace(suffix=suffix), logits_of(hidden, head), token)

    # Rows without a question are done from the start: the loop waits for none of them.
    done = ~batch["valid"] if "valid" in batch else jnp.zeros(b, bool)
    start = _State(
        step=jnp.zeros((), jnp.int32),
        suffix=model.apply(variables, prompted.cache, n, t, method="make_suffixes"),
        tokens=jnp.full((b, n, t), eos, jnp.int32),
        logprobs=jnp.zeros((b, n, t)),
        lengths=jnp.zeros((b, n), jnp.int32),
        done=jnp.broadcast_to(done[:, None], (b, n)),
    )
    # Prompts are padded on the right, so the last token stands at their length - 1.
    last = jnp.take_along_axis(batch["input_ids"], prompted.mask.sum(1)[:, None] - 1, axis=1)  # b 1
    end = jax.lax.while_loop(
        # A batch ends with its longest response.
        lambda state: (state.step < t) & ~state.done.all(),
        advance,
        draw(start, prompted.logits, last, first_bias),
    )
    return Samples(end.tokens, end.logprobs, end.lengths)


def logits_of(hidden: Float[Array, "b n d"], head: Float[Array, "d V"]) -> Float[Array, "b n V"]:
    """The logits of tokens, in float32, from hidden states and the columns of a head."""
    return jnp.einsum(
        "bnd,dv->bnv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32
    )


def sequence_bias(config: ModelConfig, previous: Int[Array, "b n"]) -> Float[Array, "b n V"]:
    """What the checkpoint's generation_config.json adds to the logits.

    Args:
      previous: the token before the one that the logits are of.
    """
    bias = jnp.zeros((*previous.shape, config.text.vocab_size))
    for (*before, token), value in config.sequence_bias:
        # (token, value): always; (before, token, value): only behind `before`.
        applies = previous == before[0] if before else True
        bias = bias.at[..., token].add(jnp.where(applies, value, 0.0))
    return bias


# Compiled once per model configuration and options, whichever checkpoint the weights are of.
compiled_sample = jax.jit(
    sample, static_argnames=("model", "options"), compiler_options=COMPILER_OPTIONS
)


def sample_token(
    logits: Float[Array, "b m V"], uniform: Float[Array, "b n"], options: SamplingOptions
) -> Int[Array, "b n"]:
    """Draws tokens by inverting the cumulative distribution: one random number each, and not V.

    Args:
      logits: m is n, or 1 for n draws from the same distribution.
      uniform: the quantile of each draw, in [0, 1).
    """
    # 1. Temperature.
    if options.temperature == 0:
        return jnp.broadcast_to(jnp.argmax(logits, axis=-1).astype(jnp.int32), uniform.shape)
    p = jax.nn.softmax(logits / options.temperature, axis=-1)  # b m V
    # 2. Truncations. What they forbid gets p = 0; p no longer sums to 1.
    if options.top_p < 1 or options.top_k:
        p = jnp.where(_in_top(p, options), p, 0.0)
    # 3. Inversion: the first token whose cumulative probability exceeds the quantile. With
    # p = (0.5, 0.2, 0, 0.3), cumulative (0.5, 0.7, 0.7, 1), a quantile of 0.6 gives token 1 and one
    # of 0.7 token 3. The quantile is scaled to the sum, which is what normalising p would do.
    cumulative = jnp.cumsum(p, axis=-1)
    # A parallel cumulative sum may rise by rounding even where nothing was added: only tokens that
    # have any probability can be hit.
    possible = p > 0
    hit = possible & (cumulative > uniform[..., None] * cumulative[..., -1:])  # b n V
    # Rounding may leave the quantile beyond all tokens: then the last possible one is taken.
    last = logits.shape[-1] - 1 - jnp.argmax(possible[..., ::-1], axis=-1)  # b m
    return jnp.where(hit.any(-1), jnp.argmax(hit, axis=-1), last).astype(jnp.int32)


def _in_top(p: Float[Array, "b m V"], options: SamplingOptions) -> Bool[Array, "b m V"]:
    """Whether top-k, and then top-p of what is left, keep a token."""
    # p = (0.1, 0.4, 0.2, 0.3), top_k = 3, top_p = 0.6:
    #   order (1, 3, 2, 0), ordered (0.4, 0.3, 0.2, 0.1) -> top-k (0.44, 0.33, 0.22, 0)
    #   probability before each (0, 0.44, 0.78, 1): places 0 and 1 are kept, that is tokens 1 and 3
    order = jnp.argsort(-p, axis=-1)  # stable: of equal tokens the first ones are kept
    ordered = jnp.take_along_axis(p, order, axis=-1)
    if options.top_k:
        ordered = jnp.where(jnp.arange(ordered.shape[-1]) < options.top_k, ordered, 0.0)
        ordered /= ordered.sum(-1, keepdims=True)
    kept = ordered > 0
    if options.top_p < 1:
        # The probability before each token: the token that crosses top_p is still kept.
        kept &= jnp.cumsum(ordered, axis=-1) - ordered < options.top_p
    # The inverse of a permutation is its argsort: back to the order of the vocabulary.
    return jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
