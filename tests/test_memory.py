"""Programs that do not fit into a device's memory: refused before they run, with the size that
does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inbol_jax import memory
from inbol_jax.errors import InbolError
from inbol_jax.memory import check_batch_fits, check_fits
from inbol_jax.sharding import make_mesh
from inbol_jax.training import parallel
from inbol_jax.training.parallel import Jit


@functools.partial(jax.jit, static_argnums=0)
def scores(power, variables, batch):
    """Its scratch memory grows with the rows."""
    x = batch["input_ids"].astype(jnp.float32)[:, None] * variables  # [b, 1000]
    return jnp.sort(jnp.sin(x) ** power, axis=1)[:, 0]


def planned(rows):
    """(program, bytes that it holds, bytes besides)."""
    compiled = scores.lower(2, jnp.ones(1000), {"input_ids": jnp.arange(rows)}).compile()
    plan = compiled.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return compiled, held, plan.temp_size_in_bytes


def test_a_device_that_does_not_say_what_it_has_is_not_asked(monkeypatch):
    assert memory.memory_limit() is None, "as CPUs do not"
    check_fits(planned(8)[0], "a batch", lambda share: pytest.fail("it was asked"))


def test_the_share_that_fits(monkeypatch):
    compiled, held, scratch = planned(16)
    for limit, share in ((held + scratch // 4, 0.25), (held // 2, 0.0)):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        found: list[float] = []

        def advice(share, found=found):
            found.append(share)
            return ""

        with pytest.raises(InbolError, match=r"^a batch needs .* GiB on each device, which has"):
            check_fits(compiled, "a batch", advice)
        assert found == [pytest.approx(share, abs=0.01)]
    monkeypatch.setattr(memory, "memory_limit", lambda: held + scratch)
    check_fits(compiled, "a batch", lambda share: pytest.fail("it fits"))


def test_a_batch_of_questions_names_the_size_that_fits(monkeypatch):
    _, held, scratch = planned(16)
    step = functools.partial(scores, 2)
    arrays = {"input_ids": jnp.arange(16)}
    for limit, advice in ((held + scratch // 2 + 64, "--batch-size 8 fits"), (held // 2, "--mesh")):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        with pytest.raises(InbolError, match=f"^a batch of 16 questions needs .*{advice}"):
            check_batch_fits(step, jnp.ones(1000), arrays)


def test_a_training_step_that_does_not_fit(monkeypatch):
    """It is refused before it runs, and what is not larger than one that fitted is not asked."""

    def step(state, batch):
        return state + scores(2, state, batch).sum(), {}

    run = Jit(step, make_mesh(devices=jax.devices()[:1]))
    state, batch = run.place(np.ones(1000, np.float32)), {"input_ids": np.arange(16)}
    for module in (memory, parallel):
        monkeypatch.setattr(module, "memory_limit", lambda: 20_000)
    advice = "about [1-9] of its rows fit at a time: multiply --gradient-accumulation-steps by"
    with pytest.raises(InbolError, match=f"^a step of 16 rows needs .*{advice}"):
        run.run(state, run.shard(batch))
    for module in (memory, parallel):
        monkeypatch.setattr(module, "memory_limit", lambda: 1 << 30)
    state, _ = run.run(state, run.shard(batch))
    monkeypatch.setattr(parallel, "check_fits", lambda *_: pytest.fail("it was asked again"))
    run.run(state, run.shard(batch))
