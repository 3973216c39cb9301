"""Log-probabilities of tokens from hidden states: values, gradients, what is in memory, and where
it lies.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from virtual_devices import run_on_devices

from inbol_jax.losses import token_logprobs

ROOT = Path(__file__).parents[2]


def states(shape=(3, 5), d=8, vocabulary=13, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    hidden = random.normal(0, scale, (*shape, d)).astype(np.float32)
    head = random.normal(0, 1, (d, vocabulary)).astype(np.float32)
    return hidden, head, random.integers(0, vocabulary, shape).astype(np.int32)


def expected_logprobs(hidden, head, targets):
    """By numpy, in float64."""
    logits = hidden.astype(np.float64) @ head.astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return np.take_along_axis(logprobs, targets[..., None], -1)[..., 0]


def expected_gradients(hidden, head, targets, weights):
    """Of the weighted sum, by hidden states and head: (1[target] - p) through the two factors of
    the logits. In float64.
    """
    hidden, head = hidden.astype(np.float64), head.astype(np.float64)
    logits = hidden @ head
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))
    by_logits = weights[..., None] * (np.eye(head.shape[1])[targets] - probabilities)
    rows, errors = hidden.reshape(-1, len(head)), by_logits.reshape(-1, head.shape[1])
    return by_logits @ head.T, rows.T @ errors


def weighted(targets, weights, chunk):
    return lambda hidden, head: (weights * token_logprobs(hidden, head, targets, chunk=chunk)).sum()


def gradients_of(arguments, weights, chunk):
    """Of the weighted sum, by hidden states and head."""
    hidden, head, targets = arguments
    return jax.grad(weighted(targets, weights, chunk), argnums=(0, 1))(hidden, head)


# --- values


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((4,), None), ((3, 5), 2), ((2, 3, 4), 2), ((0, 5), 2), ((3, 0), None)],
)
def test_token_logprobs(shape, chunk):
    arguments = states(shape)
    found = token_logprobs(*arguments, chunk=chunk)
    assert (found.shape, found.dtype) == (shape, jnp.float32)
    np.testing.assert_allclose(found, expected_logprobs(*arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scale", "chunk"), [(300.0, None), (1e6, 4)])
def test_large_logits_do_not_overflow(scale, chunk):
    """exp of a logit of 100 is beyond float32. The logits are exact to 2^-24 of themselves, and so
    is their difference.
    """
    arguments = states((6,), scale=scale)
    found = token_logprobs(*arguments, chunk=chunk)
    np.testing.assert_allclose(found, expected_logprobs(*arguments), rtol=1e-5, atol=scale * 4e-6)
    gradients = gradients_of(arguments, np.ones(6, np.float32), chunk)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("chunk", [None, 2])
def test_targets_out_of_the_vocabulary_stay_finite(chunk):
    """An ignore index under a mask: it must not reach the loss, and nor may a NaN through its zero
    gradient.
    """
    hidden, head, targets = states((2, 5))
    ignored, mask = targets.copy(), np.ones((2, 5), np.float32)
    ignored[0, 1], ignored[1, 4], mask[0, 1], mask[1, 4] = -100, 10**6, 0, 0
    assert np.isfinite(token_logprobs(hidden, head, ignored, chunk=chunk)).all()
    jax.tree.map(
        np.testing.assert_array_equal,
        gradients_of((hidden, head, ignored), mask, chunk),
        gradients_of((hidden, head, targets), mask, chunk),
    )


# --- chunks


@pytest.mark.parametrize("chunk", [1, 4, 13, 1000])
def test_chunks_change_nothing(chunk):
    """Neither values nor gradients, whether chunks divide the 13 positions or not."""
    arguments = states((3, 13))
    weights = np.random.default_rng(1).normal(size=(3, 13)).astype(np.float32)
    found = token_logprobs(*arguments, chunk=chunk)
    np.testing.assert_allclose(found, expected_logprobs(*arguments), rtol=1e-5, atol=1e-5)
    both = gradients_of(arguments, weights, chunk), expected_gradients(*arguments, weights)
    for found, expected in zip(*both, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_chunk_of_no_positions():
    with pytest.raises(ValueError, match="chunk 0: at least one"):
        token_logprobs(*states(), chunk=0)


def test_in_transformations():
    """jit, vmap, checkpoint, and gradients inside of a scan, as gradient accumulation takes them,
    are the plain gradient.
    """
    hidden, head, targets = states((4, 7))
    plain = jax.grad(lambda h, w: token_logprobs(h, w, targets).sum(), argnums=(0, 1))(hidden, head)

    def loss(h, w, y):
        return token_logprobs(h, w, y, chunk=3).sum()

    def accumulated(h, w):
        def step(total, x):
            gradient, by_head = jax.grad(loss, argnums=(0, 1))(x[0], w, x[1])
            return total + by_head, gradient

        by_head, gradients = jax.lax.scan(step, jnp.zeros_like(w), (h, targets))
        return gradients, by_head

    ways = {
        "jit": jax.jit(jax.grad(lambda h, w: loss(h, w, targets), argnums=(0, 1))),
        "vmap": jax.grad(
            lambda h, w: jax.vmap(loss, in_axes=(0, None, 0))(h, w, targets).sum(), argnums=(0, 1)
        ),
        "checkpoint": jax.grad(lambda h, w: jax.checkpoint(loss)(h, w, targets), argnums=(0, 1)),
        "scan": accumulated,
    }
    for name, way in ways.items():
        for found, expected in zip(way(hidden, head), plain, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=name)


# --- gradients


@pytest.mark.parametrize("chunk", [None, 3])
def test_gradients_by_finite_differences(chunk):
    """In float64, in which logits of float64 states are computed."""
    with jax.enable_x64(True):
        hidden, head, targets = states((2, 7))
        hidden, head = jnp.asarray(hidden, jnp.float64), jnp.asarray(head, jnp.float64)
        assert token_logprobs(hidden, head, targets, chunk=chunk).dtype == jnp.float64
        loss = lambda h, w: token_logprobs(h, w, targets, chunk=chunk)  # noqa: E731
        options = {"order": 1, "modes": ["rev"], "atol": 1e-7, "rtol": 1e-7, "eps": 1e-6}
        check_grads(loss, (hidden, head), **options)


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradients_are_finite_under_any_mask(chunk):
    """And zero where the mask is: of hidden states, and of the head when nothing is kept at all."""
    for kept in (np.s_[:0], np.s_[1], np.s_[:, ::2]):
        mask = np.zeros((3, 5), np.float32)
        mask[kept] = 1
        by_hidden, by_head = gradients_of(states((3, 5)), mask, chunk)
        assert np.isfinite(by_head).all()
        assert (np.abs(by_head).max() > 0) == mask.any()
        np.testing.assert_array_equal(np.abs(by_hidden).max(-1) > 0, mask == 1)


# --- low precision


@pytest.mark.parametrize("chunk", [None, 2])
def test_bfloat16_states(chunk):
    """Products of bfloat16 numbers are exact in float32, where they are added up: only the rounding
    of the inputs is seen.
    """
    hidden, head, targets = states((3, 5), d=64, vocabulary=50)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (hidden, head)]
    found = token_logprobs(*low, targets, chunk=chunk)
    assert found.dtype == jnp.float32
    rounded = [np.asarray(x, np.float32) for x in low]
    np.testing.assert_allclose(found, expected_logprobs(*rounded, targets), rtol=1e-5, atol=1e-4)
    # The head follows the states.
    np.testing.assert_array_equal(token_logprobs(low[0], head, targets, chunk=chunk), found)


def test_the_gradient_of_a_float32_head_is_summed_in_float32():
    """Of bfloat16 states, over 256 chunks: added up in bfloat16, whose sums stop growing at 256
    equal terms, it would be far off.
    """
    hidden, head, targets = states((1, 512), d=4, vocabulary=3)
    low, ones = jnp.ones_like(hidden, jnp.bfloat16), np.ones((1, 512), np.float32)
    _, found = gradients_of((low, head, np.zeros_like(targets)), ones, 2)
    assert found.dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(head, jnp.bfloat16), np.float32)
    _, exact = expected_gradients(np.ones_like(hidden), rounded, np.zeros_like(targets), ones)
    # The gradient by logits is rounded once, to 8 bits.
    np.testing.assert_allclose(found, exact, rtol=2**-8)


# --- what is in memory

POSITIONS, VOCABULARY, CHUNK, WIDTH = 64, 512, 4, 24


def jaxprs(jaxpr):
    """A program and all that it calls."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from jaxprs(inner)


def shapes_of(function, *arguments):
    """Shapes of everything that is computed on the way."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    return {
        v.aval.shape
        for jaxpr in jaxprs(program)
        for equation in jaxpr.eqns
        for v in equation.outvars
    }


def logits_in(shapes, vocabulary=VOCABULARY):
    """The most positions that have logits, or anything else as wide as the vocabulary, at a time;
    the head itself aside.
    """
    return max(
        int(np.prod(s)) // vocabulary
        for s in shapes
        if vocabulary in s and s not in ((vocabulary,), (WIDTH, vocabulary))
    )


@pytest.mark.parametrize("by", ["value", "hidden", "hidden and head"])
def test_logits_of_a_chunk_at_a_time(by):
    """In the traced program, forward and backward, nothing holds [all positions, V]."""
    rows = 2
    hidden, head, targets = states((rows, POSITIONS), d=WIDTH, vocabulary=VOCABULARY)

    def program(chunk):
        loss = weighted(targets, np.ones(targets.shape, np.float32), chunk)
        return {
            "value": loss,
            "hidden": jax.grad(loss),
            "hidden and head": jax.grad(loss, argnums=(0, 1)),
        }[by]

    # The search finds what it looks for.
    assert logits_in(shapes_of(program(None), hidden, head)) == rows * POSITIONS
    assert logits_in(shapes_of(program(CHUNK), hidden, head)) == rows * CHUNK


def test_a_frozen_head_has_no_gradient():
    """Not even one that is computed and dropped: no array of its shape comes up in the program."""
    hidden, head, targets = states((2, POSITIONS), d=WIDTH, vocabulary=VOCABULARY)
    loss = weighted(targets, np.ones(targets.shape, np.float32), CHUNK)
    assert head.shape not in shapes_of(jax.grad(loss), hidden, head)
    both = jax.grad(loss, argnums=(0, 1))
    assert head.shape in shapes_of(both, hidden, head)
    np.testing.assert_array_equal(jax.grad(loss)(hidden, head), both(hidden, head)[0])


# --- many devices

SHARDED = """
import math
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from inbol_jax.losses import token_logprobs
from hlo import collectives

rows, length, width, vocabulary, chunk = 8, 13, 16, 64, 4
random = np.random.default_rng(0)
hidden = random.normal(size=(rows, length, width)).astype(np.float32)
head = random.normal(size=(width, vocabulary)).astype(np.float32)
targets = random.integers(0, vocabulary, (rows, length)).astype(np.int32)
weights = random.normal(size=(rows, length)).astype(np.float32)

head_too = (0, 1)
cases = [((8, 1), head_too), ((4, 2), (0,)), ((4, 2), head_too)]
for (data, tensor), wanted in cases:
    mesh = jax.make_mesh((data, tensor), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    by_word = NamedSharding(mesh, PartitionSpec(None, "tensor"))
    h, y, w = (jax.device_put(x, by_row) for x in (hidden, targets, weights))
    v = jax.device_put(head, by_word)

    def loss(h, v, y, w, chunk):
        logprobs = token_logprobs(h, v, y, chunk=chunk)
        return (w * logprobs).sum(), logprobs

    def run(chunk):
        function = lambda *a: loss(*a, chunk)
        return jax.jit(jax.value_and_grad(function, argnums=wanted, has_aux=True))

    program = run(chunk).lower(h, v, y, w).compile()
    moved = list(collectives(program.as_text()))
    assert {c.operation for c in moved} == {"all-reduce"}, moved
    # Sums over the vocabulary of one chunk's normalizers or states, over rows of the head's
    # gradient; of no more than these.
    of_head = width * (vocabulary // tensor) if 1 in wanted else 0
    limit = max((rows // data) * chunk * (width if tensor > 1 else 1), of_head)
    assert max(math.prod(c.shape) for c in moved) <= limit, (moved, limit)
    (_, logprobs), gradients = program(h, v, y, w)
    for x in (logprobs, gradients[0]):
        assert {s.data.shape[0] for s in x.addressable_shards} == {rows // data}, x.sharding
    (_, expected), exact = run(None)(hidden, head, targets, weights)
    np.testing.assert_allclose(logprobs, expected, atol=1e-5)
    for found, wished in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(found, wished, atol=1e-5)
print("checked")
"""


def test_sharded_rows_and_words_stay_where_they_are():
    """On eight devices: rows over `data`, the head's words over `tensor`. Nothing is gathered; one
    chunk's sums are all that travels.
    """
    own = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tpu"))),
    }
    done = run_on_devices(SHARDED, **own)
    assert done.stdout == "checked\n", done.stderr[-3000:]
    assert "rematerialization" not in done.stderr
