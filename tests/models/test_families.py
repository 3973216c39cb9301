import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from inbol_jax.models.families import attention_for

H100 = SimpleNamespace(platform="gpu", compute_capability="9.0")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, "bfloat16"])
def test_nvidia_gpus_have_fused_attention(tiny, dtype):
    """Whatever this machine has: a program may be compiled for another."""
    assert attention_for(H100, tiny.config, dtype) == "cudnn"


@pytest.mark.parametrize("capability", ["7.5", "gfx942", None])
def test_other_devices_and_float32_have_the_plain_one(tiny, capability):
    other = SimpleNamespace(platform="gpu", compute_capability=capability)
    assert attention_for(other, tiny.config, jnp.bfloat16) == "xla"
    assert attention_for(jax.devices()[0], tiny.config, jnp.bfloat16) == "xla"
    assert attention_for(H100, tiny.config, jnp.float32) == "xla"


@pytest.mark.parametrize("size", [12, 160])
def test_heads_that_the_kernels_do_not_take(tiny, size):
    text = dataclasses.replace(tiny.config.text, head_dim=size)
    config = dataclasses.replace(tiny.config, text=text)
    assert attention_for(H100, config, jnp.bfloat16) == "xla"


def test_models_are_made_for_their_device(tiny):
    assert tiny.model.attention == "xla"
