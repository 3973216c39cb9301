"""Log-probabilities of given tokens from hidden states, and their sums over responses."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def token_logprobs(
    hidden: Float[Array, "*b t d"],
    head: Float[Array, "d V"],
    targets: Int[Array, "*b t"],
    *,
    chunk: int | None = None,
) -> Float[Array, "*b t"]:
    """log p(target | context) of each position, in nats.

    Logits and log-softmax are float32 (float64 if `hidden` is). With a `chunk`, the logits of only
    `chunk` positions of each row exist at a time, forward and backward. Chunks lie along t, so rows
    stay on the devices that hold them, and nothing is gathered over a `head` that is sharded on V.
    The backward pass computes a chunk's logits again. It sums the head's gradient in float32, and
    does not compute it if the head is frozen.

    Args:
      hidden: f[..., t, d], final hidden states; position i predicts targets[i]. The matrix products
        have its dtype.
      head: f[d, V], the output embedding, of any float dtype.
      targets: i32[..., t], token ids in [0, V). Any other id (an ignore index) gets a finite number
        without meaning: mask it.
      chunk: the number of positions, at least 1. None takes all at once and keeps the logits for
        the backward pass. The result does not depend on it.
    Returns:
      f32[..., t].

    Examples:
      >>> hidden, head = jnp.ones((1, 2)), jnp.eye(2)  # two equal logits
      >>> print(token_logprobs(hidden, head, jnp.array([0])))  # log 1/2
      [-0.6931472]
    """
    if chunk is None or targets.shape[-1] <= chunk:
        return _logprobs(hidden, head, targets)[0]
    if chunk < 1:
        raise ValueError(f"chunk {chunk}: at least one position is needed")
    return _chunked(-(-targets.shape[-1] // chunk), hidden, head, targets)


def _merge_leading(x: Float[Array, "*n d"]) -> Float[Array, "n d"]:
    # XLA's CPU backend copies what it sums over two leading axes, as for the head's gradient.
    return x.reshape(-1, x.shape[-1])


def _logits(hidden: Float[Array, "*n d"], head: Float[Array, "d V"]) -> Float[Array, "*n V"]:
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    rows, kernel = _merge_leading(hidden), head.astype(hidden.dtype)
    logits = jnp.einsum("nd,dv->nv", rows, kernel, preferred_element_type=wide)
    return logits.reshape(*hidden.shape[:-1], head.shape[1])  # -1 is not known without rows


def _is_target(targets: Int[Array, "*n"], vocabulary: int) -> Bool[Array, "*n V"]:
    # Indexing would need all logits of a row on one device, and a scatter for its gradient.
    # targets [2] of V = 4: [[F, F, T, F]], whose sum with the logits picks the target's.
    return jnp.arange(vocabulary) == targets[..., None]


def _logprobs(hidden, head, targets) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The log-probabilities, and the log-sum-exp of the logits."""
    # log softmax(logits)[target] = logits[target] - log sum exp(logits)
    logits = _logits(hidden, head)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    of_target = jnp.where(_is_target(targets, head.shape[1]), logits, 0.0)
    return jnp.sum(of_target, axis=-1) - normalizer, normalizer


def _split(x: Array, axis: int, n: int) -> Array:
    """[..., t, ...] -> [n, ..., c, ...]: n chunks along the axis, the last filled up with zeros."""
    # t = 5 and n = 2: [p q r s u] -> [p q r], [s u 0]
    size = -(-x.shape[axis] // n)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, n * size - x.shape[axis])
    chunks = jnp.pad(x, padding).reshape(*x.shape[:axis], n, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(chunks, axis, 0)


def _join(x: Array, axis: int, length: int) -> Array:
    """[n, ..., c, ...] -> [..., t, ...]: the inverse of `_split`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], math.prod(x.shape[axis : axis + 2]), *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


# The gradient of chunks is written here, as JAX's own would keep the logits of all chunks: for 32
# rows of 128 targets and 150 thousand words 2.5 GB in float32.
#   kept:           hidden, head and targets, which exist anyway, and the normalizer, f32[b, t]
#   computed again: the logits of one chunk at a time, and from the normalizer their softmax
#   in float32:     logits, softmax, and the sum of the head's gradient over the chunks. In
#                   bfloat16 a summand below about 1/500 of the sum would be lost.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(n: int, hidden, head, targets):
    return _chunked_forward(n, hidden, head, targets)[0]


def _chunked_forward(n: int, hidden, head, targets):
    axis = targets.ndim - 1
    # t is split, and not b: each device goes through the chunks of the rows that it holds.
    chunks = (_split(hidden, axis, n), _split(targets, axis, n))
    results = jax.lax.map(lambda chunk: _logprobs(chunk[0], head, chunk[1]), chunks)
    return tuple(_join(x, axis, targets.shape[axis]) for x in results)


def _forward(n: int, hidden, head, targets):
    logprobs, normalizer = _chunked_forward(n, hidden.value, head.value, targets.value)
    # `symbolic_zeros` wraps each argument: `perturbed` says whether its gradient is asked for.
    # Whether the head is trained is known while tracing, so it is kept in the structure.
    trained = () if head.perturbed else None
    return logprobs, (hidden.value, head.value, targets.value, normalizer, trained)


def _backward(n: int, saved, gradient):
    hidden, head, targets, normalizer, trained = saved
    axis, wide = targets.ndim - 1, normalizer.dtype
    kernel = head.astype(hidden.dtype)

    def chunk(head_gradient, x):
        hidden, targets, normalizer, gradient = x
        # d log p(target) / d logits = 1[target] - softmax, [..., c, V]
        # Places that fill up the last chunk have a `gradient` of 0: they add nothing.
        probabilities = jnp.exp(_logits(hidden, head) - normalizer[..., None])
        difference = _is_target(targets, head.shape[1]) - probabilities
        by_logits = (gradient[..., None] * difference).astype(hidden.dtype)
        if trained is not None:
            # logits = hidden @ head, so d/d head = hidden^T @ d/d logits, [d, V] ...
            rows, errors = _merge_leading(hidden), _merge_leading(by_logits)
            head_gradient += jnp.einsum("nd,nv->dv", rows, errors, preferred_element_type=wide)
        # ... and d/d hidden = d/d logits @ head^T, [..., c, d].
        by_hidden = jnp.einsum("...v,dv->...d", by_logits, kernel, preferred_element_type=wide)
        return head_gradient, by_hidden.astype(hidden.dtype)

    start = None if trained is None else jnp.zeros(head.shape, wide)
    chunks = tuple(_split(x, axis, n) for x in (hidden, targets, normalizer, gradient))
    head_gradient, by_hidden = jax.lax.scan(chunk, start, chunks)
    by_head = None if trained is None else head_gradient.astype(head.dtype)
    # Token ids are integers and have no gradient.
    return _join(by_hidden, axis, targets.shape[axis]), by_head, None


_chunked.defvjp(_forward, _backward, symbolic_zeros=True)


def sequence_logprob(
    token_logprobs: Float[Array, "*b t"], mask: Shaped[Array, "*b t"], *, average: bool = False
) -> Float[Array, "*b"]:
    """Log-probability of each sequence, in nats: the sum over its tokens whose `mask` is not 0.

    Args:
      token_logprobs: f32[..., t], in nats. A masked value may be anything, NaN included.
      mask: [..., t], bool or numbers, not 0 for the tokens of the response.
      average: divide by the number of tokens, which gives nats per token (0 for a row without any).
        Losses of averages are length-normalised.
    Returns:
      f32[...].
    """
    # `where` and no product: 0 * NaN is NaN, and so would be the sum.
    total = jnp.sum(jnp.where(mask != 0, token_logprobs, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(mask != 0, axis=-1), 1) if average else total
