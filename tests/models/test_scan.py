"""Layers stacked and scanned: the same model, of which one layer is compiled."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.families import make_model
from inbol_jax.models.layers import STACKED, ComputeOptions
from inbol_jax.models.loading import init_params, param_shapes
from inbol_jax.models.lora import init_lora
from inbol_jax.models.stacking import stack_layers, unstack_layers

LORA = LoraConfig(2, 4.0, targets=(r"(language|text)_model\..*_proj",))


def deeper(config):
    """Of three layers."""
    text = dataclasses.replace(config.text, num_layers=3, windows=(None,) * 3)
    return dataclasses.replace(config, text=text)


def packed_batch(config):
    """Two rows of an image and random tokens."""
    ids = np.random.default_rng(0).integers(0, 90, (2, config.num_image_tokens + 6), np.int32)
    ids[:, : config.num_image_tokens] = config.image_token_id
    side = config.vision.image_size
    pixels = np.random.default_rng(1).normal(size=(2, 1, 3, side, side)).astype(np.float32)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": pixels}


def with_adapters(config):
    """New variables, and adapters that change something."""
    params = init_params(config, jax.random.key(0))
    adapters = init_lora(params, LORA, jax.random.key(1))
    flat, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(2), len(flat))
    moved = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(flat, keys, strict=True)]
    return {"params": params, "lora": jax.tree.unflatten(tree, moved)}


@pytest.mark.parametrize("remat", ["none", "full"])
def test_it_is_the_same_model(micro, remat):
    """Logits, and gradients of adapters and of all else."""
    config = deeper(micro.config)
    batch = packed_batch(config)
    model = make_model(config, lora=LORA, remat=remat)
    run = jax.jit(jax.value_and_grad(lambda v: (model.apply(v, batch) ** 2).mean()))
    loss, gradients = run(variables := with_adapters(config))
    scanned, found = run(stack_layers(variables, config))
    np.testing.assert_allclose(scanned, loss, rtol=1e-5)
    expected = flatten_dict(stack_layers(gradients, config), sep="/")
    found = flatten_dict(found, sep="/")
    assert any(f"/{STACKED}/" in path for path in expected)
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        np.testing.assert_allclose(found[path], x, atol=2e-5, rtol=1e-3, err_msg=path)


def test_what_was_stacked_comes_apart_again(micro):
    config = deeper(micro.config)
    variables = with_adapters(config)
    found = unstack_layers(stack_layers(variables, config), config)
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(variables)))
    assert jax.tree.structure(unstack_layers(variables, config)) == jax.tree.structure(variables)


def test_features_behind_the_first_layers(micro):
    """DeepStack: two arrays are added, more layers have none; one place per row is read."""
    c, random = deeper(micro.config).text, np.random.default_rng(0)
    decoder, x = Decoder(c, ComputeOptions()), random.normal(size=(2, 5, c.hidden_size))
    added = random.normal(size=(2, *x.shape)).astype(np.float32)
    mask = np.tril(np.ones((2, 5, 5), bool))
    inputs = np.float32(x), np.tile(np.arange(5), (2, 1)), mask, np.array([[4], [2]]), [*added]
    variables = decoder.init(jax.random.key(0), *inputs)
    expected, _ = decoder.apply(variables, *inputs)
    config = SimpleNamespace(decoder="decoder", text=c)
    stacked = stack_layers({"params": {"decoder": variables["params"]}}, config)
    found, _ = decoder.apply({"params": stacked["params"]["decoder"]}, *inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_layers_that_are_not_alike_are_refused(gemma3, micro):
    """Windows that differ, and adapters on some layers."""
    config = deeper(micro.config)
    some = dataclasses.replace(LORA, targets=(r".*layers\.0\..*_proj",))
    adapters = init_lora(param_shapes(config), some, jax.random.key(0))
    for own, variables in ((gemma3.config, {"params": {}}), (config, {"lora": adapters})):
        with pytest.raises(InbolError, match="not alike"):
            stack_layers(variables, own)
