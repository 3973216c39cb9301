"""The schedule, weight decay and clipping of AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inbol_jax.training.config import OptimizerConfig
from inbol_jax.training.step import make_optimizer


def optimizer_of(total_steps, **options):
    return make_optimizer(OptimizerConfig(**options), total_steps)


@pytest.mark.parametrize(("steps", "rise"), [(50, 5), (1, 0)])
def test_the_learning_rate_rises_and_falls(steps, rise):
    """Under a constant gradient AdamW moves by the learning rate itself, whatever the gradient. A
    run of one step has the peak."""
    optimizer = optimizer_of(steps, learning_rate=0.01)
    params = {"w": jnp.ones(1)}
    state, found = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update({"w": jnp.full(1, 0.5)}, state, params)
        found.append(-float(update["w"][0]) / 0.01)
    after = (1 + np.cos(np.pi * np.arange(steps - rise) / (steps - rise))) / 2
    expected = [*np.arange(rise) / max(rise, 1), *after]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_weight_decay_spares_vectors():
    params = {"matrix": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    optimizer = optimizer_of(20, learning_rate=0.01, weight_decay=0.5)
    state = optimizer.init(params)
    for _ in range(3):
        last, state = optimizer.update(zero, state, params)
    np.testing.assert_allclose(last["matrix"], -0.01 * 0.5, rtol=1e-5)
    assert (last["norm"] == 0).all()


def test_gradients_are_clipped_by_their_common_norm():
    optimizer = optimizer_of(20, learning_rate=0.01)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    _, state = optimizer.update({"a": jnp.full(1, 30.0), "b": jnp.full(1, 40.0)}, state, params)
    mean = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose([mean["a"][0], mean["b"][0]], [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)
