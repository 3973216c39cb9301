"""Log-probabilities of given tokens from hidden states, and their sums over responses."""

import functools

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
    """log p(target | context) of each position, in nats. Logits and log-softmax are float32
    (float64 where `hidden` is).

    With a `chunk`, the logits of `chunk` positions of each row exist at a time, forward and
    backward: chunks lie along t, so that rows stay on the devices that hold them, and nothing is
    gathered over a `head` that is sharded on V. The backward pass makes a chunk's logits again; it
    sums the head's gradient in float32, and does not compute it where the head is frozen.

    Ours, because the libraries' do something else: optax starts from whole logits, and tokamax's
    fused `linear_softmax_cross_entropy_loss` returns the sum or mean over all tokens alone, where
    preferences need one sum a response, and makes whole logits where it has no kernel.

    Args:
      hidden: f[..., t, d], final hidden states; position i predicts targets[i]. Its dtype is that
        of the matrix products.
      head: f[d, V], the output embedding, of any float dtype.
      targets: i32[..., t], token ids in [0, V). Any other (an ignore index) gets a finite number
        that means nothing: mask it.
      chunk: the number of positions, at least 1; None for all at once, which keeps the logits for
        the backward pass. The last chunk is filled up. The value does not depend on it.
    Returns: f32[..., t].

    >>> hidden, head = jnp.ones((1, 2)), jnp.eye(2)  # two equal logits
    >>> print(token_logprobs(hidden, head, jnp.array([0])))  # log 1/2
    [-0.6931472]
    """
    if chunk is None or targets.shape[-1] <= chunk:
        return _logprobs(hidden, head, targets)[0]
    if chunk < 1:
        raise ValueError(f"chunk {chunk}: at least one position is needed")
    return _chunked(-(-targets.shape[-1] // chunk), hidden, head, targets)


def _merged(x: Float[Array, "*n d"]) -> Float[Array, "n d"]:
    # XLA's CPU backend copies transposed what it sums over two leading axes, as the head's gradient
    # does.
    return x.reshape(-1, x.shape[-1])


def _logits(hidden: Float[Array, "*n d"], head: Float[Array, "d V"]) -> Float[Array, "*n V"]:
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    logits = jnp.einsum(
        "nd,dv->nv", _merged(hidden), head.astype(hidden.dtype), preferred_element_type=wide
    )
    return logits.reshape(*hidden.shape[:-1], -1)


def _is_target(targets: Int[Array, "*n"], vocabulary: int) -> Bool[Array, "*n V"]:
    # A comparison, where indexing would need all of a row's logits on one device, and a scatter for
    # its gradient.
    return jnp.arange(vocabulary) == targets[..., None]


def _logprobs(hidden, head, targets) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The log-probabilities, and the log-sum-exp of the logits."""
    logits = _logits(hidden, head)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    return jnp.sum(
        jnp.where(_is_target(targets, head.shape[1]), logits, 0.0), axis=-1
    ) - normalizer, normalizer


def _split(x: Array, axis: int, n: int) -> Array:
    """[..., t, ...] as n equal chunks [n, ..., c, ...] along the axis, the last filled up with
    zeros.
    """
    size = -(-x.shape[axis] // n)
    x = jnp.pad(x, [(0, n * size - x.shape[axis] if i == axis else 0) for i in range(x.ndim)])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], n, size, *x.shape[axis + 1 :]), axis, 0)


def _join(x: Array, axis: int, length: int) -> Array:
    """What `_split` has split."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(n: int, hidden, head, targets):
    return _chunked_forward(n, hidden, head, targets)[0]


def _chunked_forward(n: int, hidden, head, targets):
    axis = targets.ndim - 1
    found = jax.lax.map(
        lambda x: _logprobs(x[0], head, x[1]), (_split(hidden, axis, n), _split(targets, axis, n))
    )
    return tuple(_join(x, axis, targets.shape[axis]) for x in found)


def _forward(n: int, hidden, head, targets):
    logprobs, normalizer = _chunked_forward(n, hidden.value, head.value, targets.value)
    trained = (
        () if head.perturbed else None
    )  # known while tracing: kept in the structure of what is saved
    return logprobs, (hidden.value, head.value, targets.value, normalizer, trained)


def _backward(n: int, saved, gradient):
    hidden, head, targets, normalizer, trained = saved
    axis, wide = targets.ndim - 1, normalizer.dtype
    kernel = head.astype(hidden.dtype)

    def chunk(head_gradient, x):
        hidden, targets, normalizer, gradient = x
        probabilities = jnp.exp(_logits(hidden, head) - normalizer[..., None])
        by_logits = (
            gradient[..., None] * (_is_target(targets, head.shape[1]) - probabilities)
        ).astype(hidden.dtype)
        if trained is not None:
            head_gradient += jnp.einsum(
                "nd,nv->dv", _merged(hidden), _merged(by_logits), preferred_element_type=wide
            )
        return head_gradient, jnp.einsum(
            "...v,dv->...d", by_logits, kernel, preferred_element_type=wide
        ).astype(hidden.dtype)

    start = None if trained is None else jnp.zeros(head.shape, wide)
    head_gradient, by_hidden = jax.lax.scan(
        chunk, start, tuple(_split(x, axis, n) for x in (hidden, targets, normalizer, gradient))
    )
    return (
        _join(by_hidden, axis, targets.shape[axis]),
        None if trained is None else head_gradient.astype(head.dtype),
        None,
    )


_chunked.defvjp(_forward, _backward, symbolic_zeros=True)


def sequence_logprob(
    token_logprobs: Float[Array, "*b t"], mask: Shaped[Array, "*b t"], *, average: bool = False
) -> Float[Array, "*b"]:
    """Log-probability of each sequence's tokens where `mask` is not 0, in nats. A masked value may
    be anything, NaN included.

    Args:
      token_logprobs: f32[..., t], in nats.
      mask: [..., t], bool or numbers, not 0 for the tokens of the response.
      average: in nats a token: the sum divided by the number of tokens (a row without any has 0).
        Losses of averages are length-normalised.
    Returns: f32[...].
    """
    total = jnp.sum(jnp.where(mask != 0, token_logprobs, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(mask != 0, axis=-1), 1) if average else total
