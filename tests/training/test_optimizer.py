"""Optimizers by name, schedules, weight decay and clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inbol_jax.training.config import OptimizerConfig
from inbol_jax.training.optimizer import make_optimizer


def optimizer_of(total_steps, **options):
    return make_optimizer(OptimizerConfig(**options), total_steps)


def moves(steps, gradient=0.5, **options):
    """By how much one number moves down in each step of a run under a constant gradient."""
    optimizer, params = optimizer_of(steps, **options), {"w": jnp.ones(1)}
    state, found = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update({"w": jnp.full(1, gradient)}, state, params)
        found.append(-float(update["w"][0]))
    return found


def test_learning_rate_rises_and_falls():
    """AdamW under a constant gradient moves by the learning rate itself, whatever the gradient."""
    n, rise, peak = 50, 5, 0.01
    expected = [peak * i / rise for i in range(rise)]
    expected += [peak * (1 + np.cos(np.pi * i / (n - rise))) / 2 for i in range(n - rise)]
    np.testing.assert_allclose(moves(n, learning_rate=peak), expected, rtol=1e-4, atol=1e-8)


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


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd"])
def test_every_optimizer_learns(name):
    optimizer = optimizer_of(60, learning_rate=0.05, optimizer=name)
    params = {"w": jnp.full((4, 4), 0.5), "v": jnp.ones(3)}
    state = optimizer.init(params)
    for _ in range(60):
        gradients = jax.tree.map(lambda x: 2 * x, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert float(optax.tree.norm(params)) < 1.5


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)],
)
def test_schedules(schedule, middle, end):
    found = moves(100, learning_rate=0.1, optimizer="sgd", schedule=schedule)
    rates = np.array(found) / 0.5 / 0.1
    assert rates[:11] == pytest.approx(np.arange(11) / 10, abs=1e-6)
    assert rates[55] == pytest.approx(middle, abs=0.02)
    assert rates[99] == pytest.approx(end, abs=0.02)
    # A run of one update has the peak.
    one = moves(1, learning_rate=0.1, optimizer="sgd", schedule=schedule)
    assert one == [pytest.approx(0.05)]
