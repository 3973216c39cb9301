"""Quantised kernels: how far they are off, and that the model computes with what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax.traverse_util import flatten_dict, unflatten_dict
from torch_reference import dequantized, load, make_batch

from inbol_jax.models import LoraConfig
from inbol_jax.models.layers import product
from inbol_jax.models.lora import init_lora
from inbol_jax.models.quantize import quantize_decoder


def quantized(kernel, kind):
    path = ("language_model", "layers_0", "mlp", "up_proj", "kernel")
    params = unflatten_dict({path: jnp.copy(kernel)})  # it is deleted
    return flatten_dict(quantize_decoder(params, path[0], kind, LoraConfig()))[path]


def relative_error(found, expected):
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.01), ("nf4", 0.12)])
def test_the_error_is_that_of_so_many_bits(kind, bound, dtype):
    """Of normal weights, and whatever stands in other groups."""
    rows = jax.random.normal(jax.random.key(0), (256, 48)).at[64:128].multiply(1000.0)
    exact = rows.at[128:192].set(0.0).astype(dtype).astype(jnp.float32)
    kernel = quantized(exact.astype(dtype), kind)
    assert kernel.shape == (256, 48)
    assert kernel.scale.shape == (4, 48)
    assert (kernel.qvalue.dtype, kernel.dtype) == ({"int8": "int8", "nf4": "uint4"}[kind], dtype)
    found = qwix.dequantize(kernel.astype(jnp.float32))
    for group in (slice(0, 64), slice(64, 128), slice(192, 256)):
        assert bound / 4 < relative_error(found[group], exact[group]) < bound
    assert not found[128:192].any()
    odd = quantized(exact[:48], kind)  # groups divide any number of inputs
    assert 48 % odd.scale.shape[0] == 0


def test_a_product_with_a_quantised_kernel():
    """Forward and backward, in the dtype of the rows."""
    kernel = quantized(jax.random.normal(jax.random.key(0), (64, 8)), "nf4")
    rows = jax.random.normal(jax.random.key(1), (3, 64))
    exact = qwix.dequantize(kernel)
    np.testing.assert_allclose(product(rows, kernel), rows @ exact, atol=1e-5)
    found, expected = (
        jax.grad(lambda x, k=k: jnp.sum(jnp.sin(product(x, k))))(rows) for k in (kernel, exact)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert product(rows.astype(jnp.bfloat16), kernel).dtype == jnp.bfloat16


def test_the_decoders_frozen_kernels_alone_are_quantised(micro):
    before = load(micro.path).variables["params"]
    config = LoraConfig(rank=2, trainable=(r"mlp\.down_proj",))
    params = load(micro.path).variables["params"]
    after = quantize_decoder(params, "language_model", "nf4", config)
    names = {
        path.removeprefix("language_model/layers_0/")
        for path, x in flatten_dict(after, sep="/").items()
        if isinstance(x, qwix.QArray)
    }
    attention = {f"self_attn/{name}_proj/kernel" for name in "qkvo"}
    assert names == attention | {"mlp/gate_proj/kernel", "mlp/up_proj/kernel"}
    flat, exact = (flatten_dict(dequantized(x), sep="/") for x in (after, before))
    assert flat.keys() == exact.keys()
    same = {path for path in flat if (flat[path] == exact[path]).all()}
    assert same == flat.keys() - {f"language_model/layers_0/{name}" for name in names}


@pytest.mark.parametrize(("kind", "remat"), [("int8", "none"), ("nf4", "full")])
def test_logits_and_gradients_are_those_of_the_dequantised_model(micro, kind, remat):
    config = LoraConfig(rank=2, alpha=3.0)
    model = micro.model.clone(lora=config, remat=remat)
    params = quantize_decoder(load(micro.path).variables["params"], "language_model", kind, config)
    lora = init_lora(params, config, jax.random.key(0))
    lora = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), lora
    )
    tokens = micro.config.num_image_tokens
    batch = make_batch(micro.config, [tokens + 4, tokens + 9])

    @jax.jit
    def run(lora, params):
        def total(lora):
            logits = model.apply({"params": params, "lora": lora}, batch)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(total, has_aux=True)(lora)

    found, expected, plain = (
        run(lora, x) for x in (params, dequantized(params), micro.variables["params"])
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    assert all(x.any() for x in jax.tree.leaves(found[0])), "every adapter gets a gradient"
    assert np.abs(found[1] - plain[1]).max() > 1e-3, "what is computed is quantised"
