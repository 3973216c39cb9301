"""The choice of one token from its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import truncated
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.sampler import sample_token

# What u can be: `jax.random.uniform` gives multiples of 2^-23 in [0, 1).
grid = st.integers(0, 2**23 - 1).map(lambda i: i / 2**23) | st.sampled_from(
    [0.0, 2**-23, 1 - 2**-23, 1 - 2**-22, float(np.nextafter(1, 0, dtype="f4"))]
)


@given(
    hnp.arrays(
        np.float32,
        24,
        elements=st.sampled_from([-np.inf, -200.0, -3.0, -1.0, 0.0, 0.5, 2.0, 60.0])
        | st.floats(-9, 9, width=16),
    ),
    st.lists(grid, min_size=1, max_size=8),
    st.sampled_from([0.0, 0.05, 0.7, 1.0, 3.0]),
    st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    st.sampled_from([0, 1, 3, 30]),
)
@settings(max_examples=50, deadline=None)
def test_sample_token_picks_what_can_be(logits, uniform, temperature, top_p, top_k):
    logits[0] = max(logits[0], 0)  # one token at least has probability
    uniform = np.resize(np.array(uniform, np.float32), 8)
    options = SamplingOptions(temperature, top_p, top_k=top_k)
    found = np.asarray(sample_token(np.broadcast_to(logits, (1, 8, 24)), uniform[None], options))[0]
    assert found.dtype == np.int32
    if temperature == 0:
        assert (found == np.argmax(logits)).all()
        return
    p = np.asarray(jax.nn.softmax(logits / np.float32(temperature)))
    assert (p[found] > 0).all()
    # No token outside the smallest set of probability `top_p`, but for those that are exactly as
    # probable as one inside.
    larger = np.array([p[p > p[token]].sum(dtype=np.float64) for token in found])
    assert (larger < top_p + 1e-6).all()
    assert not top_k or all((p > p[token]).sum() < top_k for token in found)


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(top_p=0.95)], ids=str)
def test_sample_token_at_every_edge(options):
    """u just below, at and above each edge between tokens, in a vocabulary where the sum's rounding
    is larger than some steps.

    Half of the tokens cannot be: a cumulative sum in parallel need not be monotone, and may rise
      where nothing was added.
    """
    random, vocabulary = np.random.default_rng(0), 1080
    logits = random.normal(0, 3, vocabulary).astype(np.float32)
    logits[random.random(vocabulary) < 0.5] = -np.inf
    p = jax.nn.softmax(logits)
    edges = np.round(np.asarray(jnp.cumsum(p), np.float64) * 2**23)
    u = np.unique(np.clip(edges[:, None] + [-1, 0, 1], 0, 2**23 - 1)) / 2**23
    allowed = truncated(jnp.log(p), options) > 0
    parts = np.resize(u, (-(-len(u) // 256), 256)).astype(np.float32)
    run = jax.jit(
        lambda u: sample_token(jnp.broadcast_to(logits, (1, 256, vocabulary)), u[None], options)[0]
    )
    found = np.concatenate([run(part) for part in parts])
    assert set(np.flatnonzero(~allowed)) & set(found.tolist()) == set()


@pytest.mark.parametrize(
    "options",
    [SamplingOptions(), SamplingOptions(top_p=0.9), SamplingOptions(1.5, 0.8, top_k=9)],
    ids=str,
)
def test_sample_token_is_the_inverse_of_the_distribution(options):
    """An even grid of u gives each token in proportion."""
    logits, n = np.random.default_rng(0).normal(0, 2, 30).astype(np.float32), 2**15
    u = ((np.arange(n) + 0.5) / n).astype(np.float32)
    found = np.asarray(sample_token(logits[None, None], u[None], options))[0]
    spread = sample_token(np.broadcast_to(logits, (1, n, 30)), u[None], options)[0]
    np.testing.assert_array_equal(found, spread)
    shares = np.bincount(found, minlength=30) / n
    np.testing.assert_allclose(shares, truncated(logits, options), atol=2 / n)
    assert (np.diff(found) >= 0).all()
