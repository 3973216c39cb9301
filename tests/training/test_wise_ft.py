"""The saved model mixes fine-tuned and base weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_data import run_sft, weights_of

from inbol_jax.models.loading import load_pretrained, save_pretrained


@pytest.mark.parametrize("named", [False, True])
def test_a_share_of_the_base_is_kept(data, micro, tmp_path, named):
    """alpha * trained + (1 - alpha) * base, of the model that training starts from or of the one
    that is named.
    """
    options = {"batch_size": 8, "learning_rate": 1e-2}
    trained = weights_of(run_sft(data, micro.path, tmp_path / "plain", **options))
    base = tmp_path / "base"
    if named:
        params = jax.tree.map(lambda x: x + 1.0, dict(micro.variables["params"]))
        save_pretrained(dataclasses.replace(micro, variables={"params": params}), base)
    kept = weights_of(base if named else micro.path)
    options |= {"wise_ft_alpha": 0.75, "wise_ft_base": base if named else None}
    found = weights_of(run_sft(data, micro.path, tmp_path / "kept", **options))
    moved = 0
    for key, x in found.items():
        np.testing.assert_allclose(x, 0.75 * trained[key] + 0.25 * kept[key], rtol=1e-5, atol=1e-6)
        moved += bool((trained[key] != kept[key]).any())
    assert moved


def test_a_share_of_the_base_in_bfloat16(data, micro, tmp_path):
    """Mixed in float32, saved as what it was; a base that is stored in another dtype is the same
    architecture.
    """
    low = tmp_path / "low"
    save_pretrained(load_pretrained(micro.path, dtype=jnp.bfloat16), low)
    options = {"learning_rate": 1e-2, "batch_size": 16}
    plain = weights_of(run_sft(data, low, tmp_path / "plain", **options))
    options |= {"wise_ft_alpha": 0.75, "wise_ft_base": micro.path}
    kept = weights_of(run_sft(data, low, tmp_path / "kept", **options))
    start, moved = weights_of(low), 0
    for key, x in kept.items():
        assert x.dtype == jnp.bfloat16
        expected = 0.75 * plain[key].astype(np.float32) + 0.25 * start[key].astype(np.float32)
        expected = np.where(plain[key] == start[key], plain[key], expected.astype(jnp.bfloat16))
        np.testing.assert_array_equal(x, expected, err_msg=key)
        moved += bool((plain[key] != start[key]).any())
    assert moved
