"""FLOPs of traced programs, and a roofline's time."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from costs import CHIPS, OF_BANDWIDTH, OF_FLOPS, OF_LINKS, chip_of, count_flops, time
from hlo import Collective


def test_products_are_counted_with_the_trips_of_their_loops():
    """A product, a scan of three, a loop of unknown length, a branch, and remat's second time."""

    def run(x, w):
        y = x @ w  # [4, 8] x [8, 8]
        y = jax.lax.scan(lambda y, _: (y @ w, None), y, None, length=3)[0]
        y = jax.lax.while_loop(lambda y: y.sum() < 1, lambda y: y @ w, y)
        return jax.lax.cond(y.sum() > 0, lambda: y @ w @ w, lambda: y)

    x, w = jnp.ones((4, 8)), jnp.ones((8, 8))
    once = 2 * 4 * 8 * 8
    assert count_flops(jax.jit(run).trace(x, w).jaxpr, trips=10) == (1 + 3 + 10 + 2) * once
    kept = jax.jit(jax.grad(lambda w: jnp.sin(x @ w).sum()))
    again = jax.jit(jax.grad(lambda w: jax.checkpoint(lambda w: jnp.sin(x @ w).sum())(w)))
    assert count_flops(kept.trace(w).jaxpr, 1) == 2 * once
    assert count_flops(again.trace(w).jaxpr, 1) == 3 * once


def test_a_convolution_is_counted():
    x, kernel = jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 4, 4))  # [n, c, h, w] and [o, c, h, w]
    run = jax.jit(lambda x, k: jax.lax.conv(x, k, (4, 4), "VALID"))
    assert count_flops(run.trace(x, kernel).jaxpr, 1) == 2 * (2 * 5 * 2 * 2) * (3 * 4 * 4)


def test_what_takes_longest_is_the_step():
    chip = CHIPS["TPU v5 lite"]
    ring = [Collective("all-gather", "bf16", (10**9,), (0, 1), 2)]
    found = time(chip, 1, flops=1e12, moved=1e9, exchanges=ring)
    assert found.products == pytest.approx(1e12 / (197e12 * OF_FLOPS))
    assert found.memory == pytest.approx(1e9 / (819e9 * OF_BANDWIDTH))
    # Half of 2 GB each, by two of four links with 50 GB/s inwards each
    assert found.exchanges == pytest.approx(2 * 1e9 / (100e9 * OF_LINKS))
    assert found.step == found.exchanges
    between = Collective("all-reduce", "bf16", (10**9,), (), 1, slices=4)
    found = time(chip, 1, flops=1e12, moved=1e9, exchanges=[*ring, between])
    # 2 GB x 3/4 twice, to reduce and to gather, by 25 Gbit/s
    assert found.network == pytest.approx(3e9 / (3.125e9 * OF_LINKS))
    assert found.exchanges == pytest.approx(2 * 1e9 / (100e9 * OF_LINKS))
    assert found.step == found.network


def test_a_chip_may_be_two_devices():
    """TPU7x has two, in the same place."""
    devices = [SimpleNamespace(device_kind="TPU7x", coords=(i // 2, 0, 0)) for i in range(8)]
    assert chip_of(devices) == (CHIPS["TPU7x"], 2)
    slices = [SimpleNamespace(slice_index=i, **vars(x)) for i in range(2) for x in devices]
    assert chip_of(slices) == (CHIPS["TPU7x"], 2), "each slice has the same places"
    assert chip_of([SimpleNamespace(device_kind="cpu", coords=(0, 0, 0))])[0] is None
