"""Low-rank adapters: which modules have one, how they start, what they do, and merging."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from torch_reference import load, our_logits, with_adapters

from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig
from inbol_jax.models.lora import init_lora, target_modules, trainable_params


def test_targets(base):
    params = load(base).variables["params"]
    decoder = target_modules(params, LoraConfig())
    assert {path.split("/")[0] for path in decoder} == {"language_model"}
    assert {path.split("/")[-1] for path in decoder} == {
        f"{m}_proj" for m in ("q", "k", "v", "o", "gate", "up", "down")
    }
    assert len(decoder) == 7 * 2
    both = target_modules(params, LoraConfig(targets=("q_proj",)))
    assert {path.split("/")[0] for path in both} == {"language_model", "vision_tower"}
    assert target_modules(params, LoraConfig(targets=(r"layers\.0\.mlp\.up_proj",))) == [
        "language_model/layers_0/mlp/up_proj"
    ]
    whole = LoraConfig(targets=("linear_1", "linear_2"), trainable=("linear_1",))
    assert target_modules(params, whole) == ["multi_modal_projector/linear_2"]
    assert {path.split("/")[1] for path in trainable_params(params, whole)} == {"linear_1"}
    projector = trainable_params(params, LoraConfig(trainable=("multi_modal_projector",)))
    assert all(path.startswith("multi_modal") for path in projector)


def test_options_that_do_not_fit(base):
    params = load(base).variables["params"]
    init_lora(params, LoraConfig(rank=24, targets=("up_proj",)), jax.random.key(0))
    with pytest.raises(InbolError, match=r"rank of 25 is more than .*up_proj .* 24 x 40; choose"):
        init_lora(params, LoraConfig(rank=25, targets=("up_proj",)), jax.random.key(0))
    for options in ({"targets": ("nowhere",)}, {"targets": ("norm",)}, {"trainable": ("proj",)}):
        with pytest.raises(InbolError, match=r"'(nowhere|norm|proj)'"):
            init_lora(params, LoraConfig(**options), jax.random.key(0))
    for options in ({"rank": 0}, {"targets": ()}, {"targets": ("(",)}):
        with pytest.raises(InbolError):
            LoraConfig(**options)


def test_new_adapters_change_nothing_and_learn(base, batch):
    config = LoraConfig(rank=2, alpha=4.0, targets=("o_proj", r"layers\.0\.mlp\.fc2"))
    checkpoint = with_adapters(base, config, scale=0.0)
    lora = checkpoint.variables["lora"]
    plain = load(base)
    np.testing.assert_array_equal(our_logits(checkpoint, batch), our_logits(plain, batch))
    for path, x in flatten_dict(dict(lora), sep="/").items():
        bound = x.shape[0] ** -0.5
        if path.endswith("/a"):
            assert np.abs(x).max() <= bound
            assert np.std(x) > 0.4 * bound
        else:
            assert not x.any()
    # One target less changes no other's start.
    fewer = LoraConfig(rank=2, targets=("o_proj",))
    for path, x in flatten_dict(
        init_lora(plain.variables["params"], fewer, jax.random.key(0)), sep="/"
    ).items():
        np.testing.assert_array_equal(x, flatten_dict(dict(lora), sep="/")[path])

    def loss(lora):
        return checkpoint.model.apply(checkpoint.variables | {"lora": lora}, batch).var()

    for path, x in flatten_dict(dict(jax.jit(jax.grad(loss))(lora)), sep="/").items():
        assert bool(x.any()) == path.endswith("/b"), path  # a has no effect while b is zero
    with pytest.raises(ValueError, match="LoraConfig"):
        jax.eval_shape(plain.model.apply, checkpoint.variables, batch)
