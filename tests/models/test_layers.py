import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inbol_jax.models import layers
from inbol_jax.models.layers import ComputeOptions, attention_for, dot_product_attention


def arrays(t, heads=4, groups=2, dim=8, batch=2):
    random = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(random.normal(size=(batch, t, n, dim)), jnp.float32)
        for n in (heads, groups, groups)
    )
    segments = np.where(np.arange(t) < t // 2, 0, 1 + np.arange(t) % 2)
    segments = jnp.asarray(segments[None].repeat(batch, 0))
    causal = jnp.tril(jnp.ones((t, t), bool))
    mask = causal & ((segments[:, None] == 0) | (segments[:, None] == segments[:, :, None]))
    return q, k, v, mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("t", [8, 17])
def test_attention_in_chunks_is_that_in_one_piece(t, causal, monkeypatch):
    """Values and gradients, for lengths that chunks do not divide, under a packed mask; keys may
    lie behind their queries if it is not causal, as in images of Gemma 3."""
    q, k, v, mask = arrays(t)
    mask = mask if causal else mask | mask.swapaxes(1, 2)

    def run(q, k, v):
        y = dot_product_attention(q, k, v, mask, causal=causal)
        return jnp.sum(jnp.sin(y)), y

    def computed():
        return jax.jit(jax.grad(run, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    expected = computed()
    monkeypatch.setattr(layers, "QUERY_CHUNK_SIZE", 8)
    chunked = computed()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), chunked, expected)


@pytest.mark.parametrize("masked", ["packed", "not at all", "no key"])
@pytest.mark.parametrize("t", [8, 17])
def test_fused_attention_is_the_plain_one(t, masked, kernels_anywhere):
    """Values and gradients, with grouped heads, for even and odd lengths."""
    q, k, v, mask = arrays(t)
    mask = {"packed": mask, "not at all": None, "no key": mask.at[:, : t // 2].set(False)}[masked]
    causal = masked == "packed"

    def run(implementation, q, k, v):
        y = dot_product_attention(
            q, k, v, mask, causal=causal, implementation=implementation
        ).reshape(*q.shape)
        if masked == "no key":  # both average then, over different keys: nobody reads it
            y = y[:, t // 2 :]
        return jnp.sum(jnp.sin(y))

    plain, fused = (
        jax.jit(jax.value_and_grad(functools.partial(run, name), argnums=(0, 1, 2)))(q, k, v)
        for name in ("xla", "cudnn")
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, fused, plain)
    assert [call["is_causal"] for call in kernels_anywhere] == [causal]


def test_long_rows_have_no_weights_of_all_queries():
    """Neither forward nor backward."""
    t = 2 * layers.QUERY_CHUNK_SIZE + 5
    q, k, v, mask = arrays(t, dim=2, batch=1)
    gradient = jax.grad(lambda q: dot_product_attention(q, k, v, mask, causal=True).sum())
    shapes = re.findall(r"f32\[([\d,]+)\]", str(jax.make_jaxpr(gradient)(q)))
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
    assert max(sizes) <= 4 * layers.QUERY_CHUNK_SIZE * t


H100 = SimpleNamespace(platform="gpu", compute_capability="9.0")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, "bfloat16"])
def test_nvidia_gpus_have_fused_attention(dtype):
    """Whatever this machine has: a program may be compiled for another."""
    assert attention_for(H100, dtype) == "cudnn"


@pytest.mark.parametrize("capability", ["7.5", "gfx942", None])
def test_other_devices_and_float32_have_the_plain_one(capability):
    other = SimpleNamespace(platform="gpu", compute_capability=capability)
    assert attention_for(other, jnp.bfloat16) == "xla"
    assert attention_for(jax.devices()[0], jnp.bfloat16) == "xla"
    assert attention_for(H100, jnp.float32) == "xla"


@pytest.mark.parametrize(
    ("size", "found"), [(12, "xla"), (72, "cudnn"), (128, "cudnn"), (160, "xla")]
)
def test_heads_that_the_kernels_do_not_take(size, found):
    """Of the tower and of the decoder, each for itself."""
    assert ComputeOptions(attention="cudnn").attention_of(size) == found
    assert ComputeOptions().attention_of(size) == "xla"
