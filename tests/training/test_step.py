"""One training step: accumulation, updates that are not finite, rematerialisation; which
variables are trained."""

import functools
import re

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from training_data import mean_loss, objectives, random_batch

from inbol_jax.errors import InbolError
from inbol_jax.models.packing import collate
from inbol_jax.training.config import FROZEN, OptimizerConfig
from inbol_jax.training.model import split_variables
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.step import init_state, make_optimizer, make_train_step, merge_variables


def one_step(micro, batch, *, objective=None, **options):
    """Parameters after one update of plain gradient descent."""
    trainable, frozen = split_variables(micro.variables, FROZEN)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    step = jax.jit(make_train_step(objective or sft_objective(micro.model), optimizer, **options))
    return step(init_state(trainable, optimizer), frozen, batch)


@pytest.mark.parametrize("objective", ["IDK-IT", "CA-DPO"])
def test_accumulation_changes_nothing(micro, objective):
    """Four micro-batches of two rows and one of eight; the rows' numbers of tokens differ, and two
    rows are padding.
    """
    batch = collate(random_batch(micro.config, 6), 8)
    run = functools.partial(one_step, micro, batch, objective=objectives(micro.model)[objective])
    whole, whole_metrics = run()
    parts, metrics = run(gradient_accumulation_steps=4)
    for path, x in whole.params.items():
        np.testing.assert_allclose(parts.params[path], x, atol=1e-6, err_msg=path)
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_update_that_is_not_finite_is_left_out(micro):
    batch = collate(random_batch(micro.config, 2), 2)
    broken = batch | {"pixel_values": batch["pixel_values"] * np.float32(np.inf)}
    state, metrics = one_step(micro, broken)
    trainable, _ = split_variables(micro.variables, FROZEN)
    assert all((state.params[path] == x).all() for path, x in trainable.items())
    assert (int(state.step), int(state.skipped)) == (1, 1)
    assert {name for name, (_, weight) in metrics.items() if weight} == {"skipped"}
    assert metrics["skipped"] == (1, 1)
    state, metrics = one_step(micro, batch)
    assert int(state.skipped) == 0
    assert metrics["skipped"] == (0, 1)


def test_a_step_leaves_the_frozen_parameters_alone(micro):
    """They have no gradient and no optimizer state; all others move. The norm of the gradient is
    that before clipping.
    """
    trainable, frozen = split_variables(micro.variables, FROZEN)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01), 10)
    state = init_state(trainable, optimizer)
    leaves = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert leaves == 2 * sum(x.size for x in trainable.values())
    objective = sft_objective(micro.model)

    def steep(variables, batch):
        total, weight = objective(variables, batch)["loss"]
        return {"loss": (1000 * total, weight)}

    step = jax.jit(make_train_step(steep, optimizer))
    batch = collate(random_batch(micro.config), 4)
    for _ in range(2):  # the first has learning rate 0
        state, metrics = step(state, frozen, batch)
    assert int(state.step) == 2
    assert metrics["gradient_norm"][0] > 10  # clipped it is 1
    assert state.params.keys() == trainable.keys()
    assert not any((value == trainable[path]).all() for path, value in state.params.items())


def test_remat_changes_nothing_but_memory(micro):
    batch = collate(random_batch(micro.config, 2), 2)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: mean_loss(sft_objective(model), {"params": p}, batch)[0]))

    plain, again = gradient(micro.model), gradient(micro.model.clone(remat="full"))
    params = micro.variables["params"]
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, again(params), plain(params))
    assert "remat" in str(jax.make_jaxpr(again)(params))
    assert "remat" not in str(jax.make_jaxpr(plain)(params))


def test_selective_remat_computes_only_attention_again(micro):
    """That is plain attention; fused attention is kept, see tests/benchmarks."""
    batch = collate(random_batch(micro.config, 2), 2)

    def products(remat):
        objective = sft_objective(micro.model.clone(remat=remat))
        gradient = jax.grad(lambda params: mean_loss(objective, {"params": params}, batch)[0])
        return str(jax.make_jaxpr(gradient)(micro.variables["params"])).count("dot_general[")

    layers = micro.config.text.num_layers
    assert products("selective") == products("none") + 2 * layers
    assert products("full") > products("selective")


def test_split_and_merge(tiny):
    trainable, frozen = split_variables(tiny.variables, FROZEN)
    assert not trainable.keys() & frozen.keys()
    assert all(path.startswith("params/vision_tower/") or "embed_tokens" in path for path in frozen)
    assert not any("vision_tower/" in path or "embed_tokens" in path for path in trainable)
    merged = flatten_dict(merge_variables(trainable, frozen))
    expected = flatten_dict(dict(tiny.variables))
    assert merged.keys() == expected.keys()
    assert all(merged[path] is expected[path] for path in expected)
    everything, nothing = split_variables(tiny.variables, ())
    assert (len(everything), nothing) == (len(expected), {})


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("^decoder/",), "'^decoder/' matches no parameter"),
        ((*FROZEN, "lora"), "'lora' matches no parameter"),
        (("vision_tower", "projector", "language_model"), "leaves no parameter"),
        (("*norm",), "'*norm'"),
    ],
)
def test_patterns_that_cannot_be_meant(tiny, frozen, message):
    with pytest.raises(InbolError, match=re.escape(message)):
        split_variables(tiny.variables, frozen)
