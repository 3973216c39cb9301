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


def updates(optimizer, params, gradients):
    """The updates of one parameter tree under a series of gradients."""
    state, found = optimizer.init(params), []
    for gradient in gradients:
        update, state = optimizer.update(gradient, state, params)
        found.append(update)
    return found


def test_learning_rate_rises_and_falls():
    """AdamW under a constant gradient moves by the learning rate itself, whatever the gradient."""
    params, n, peak = {"w": jnp.ones(1)}, 50, 0.01
    found = [
        -float(u["w"][0])
        for u in updates(optimizer_of(n, learning_rate=peak), params, [{"w": jnp.full(1, 0.5)}] * n)
    ]
    rise = 5
    expected = [peak * i / rise for i in range(rise)] + [
        peak * (1 + np.cos(np.pi * i / (n - rise))) / 2 for i in range(n - rise)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_runs_have_a_schedule(steps):
    found = updates(
        optimizer_of(steps, learning_rate=0.01), {"w": jnp.ones(1)}, [{"w": jnp.ones(1)}] * steps
    )
    assert np.isfinite([float(u["w"][0]) for u in found]).all()
    if steps > 1:
        assert any(u["w"][0] != 0 for u in found)


def test_one_step_trains():
    """A run of one update updates something."""
    (update,) = updates(
        optimizer_of(1, learning_rate=0.01), {"w": jnp.ones(1)}, [{"w": jnp.ones(1)}]
    )
    assert update["w"][0] < 0


def test_weight_decay_spares_vectors():
    params = {"matrix": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    *_, last = updates(optimizer_of(20, learning_rate=0.01, weight_decay=0.5), params, [zero] * 3)
    np.testing.assert_allclose(last["matrix"], -0.01 * 0.5, rtol=1e-5)
    assert (last["norm"] == 0).all()


def test_gradients_are_clipped_by_their_common_norm():
    optimizer = optimizer_of(20, learning_rate=0.01)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    _, state = optimizer.update({"a": jnp.full(1, 30.0), "b": jnp.full(1, 40.0)}, state, params)
    moments = [
        s
        for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, optax.ScaleByAdamState))
        if hasattr(s, "mu")
    ]
    np.testing.assert_allclose(
        [moments[0].mu["a"][0], moments[0].mu["b"][0]], [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd", "lamb", "rmsprop"])
def test_optimizers_of_optax_by_name(name):
    optimizer, params = (
        optimizer_of(60, learning_rate=0.05, optimizer=name),
        {"w": jnp.full((4, 4), 0.5), "v": jnp.ones(3)},
    )
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
    optimizer, params = (
        optimizer_of(100, learning_rate=0.1, optimizer="sgd", schedule=schedule),
        {"w": jnp.zeros(1)},
    )
    state, rates = optimizer.init(params), []
    for _ in range(100):
        updates, state = optimizer.update({"w": jnp.full(1, -0.5)}, state, params)
        rates.append(float(updates["w"][0]) / 0.5 / 0.1)
    assert rates[:11] == pytest.approx(np.arange(11) / 10, abs=1e-6)
    assert rates[55] == pytest.approx(middle, abs=0.02)
    assert rates[99] == pytest.approx(end, abs=0.02)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_run_of_one_update_has_the_peak(schedule):
    optimizer, params = (
        optimizer_of(1, learning_rate=0.1, optimizer="sgd", schedule=schedule),
        {"w": jnp.zeros(1)},
    )
    updates, _ = optimizer.update({"w": jnp.full(1, -0.5)}, optimizer.init(params), params)
    assert float(updates["w"][0]) == pytest.approx(0.05)
