"""IDK-IT learns, and leaves frozen parameters alone."""

import jax.numpy as jnp
import pytest
from training_data import metrics_of, weights_of

from inbol_jax.models.loading import load_pretrained
from inbol_jax.training.config import SftConfig
from inbol_jax.training.sft import sft


@pytest.fixture(scope="module")
def trained(data, micro, tmp_path_factory):
    """IDK-IT on sixteen instructions, many times over."""
    out = tmp_path_factory.mktemp("sft")
    options = {"data": data / "instructions.jsonl", "out": out, "model": micro.path}
    options |= {"epochs": 30, "batch_size": 16, "learning_rate": 1e-2}
    config = SftConfig.from_options(**options)
    return config, sft(config)


def test_idk_it_learns_sixteen_instructions(trained, micro):
    config, model = trained
    rows = metrics_of(config.out)
    assert rows[-1]["step"] == 30
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert model == config.out / "model"
    checkpoint = load_pretrained(model, dtype=jnp.float32)
    assert checkpoint.processor.tokenizer.get_vocab() == micro.processor.tokenizer.get_vocab()


def test_frozen_parameters_are_bit_identical_after_training(trained, micro):
    before, after = weights_of(micro.path), weights_of(trained[1])
    assert before.keys() == after.keys()
    same = {key for key in before if (before[key] == after[key]).all()}
    assert same == {
        key for key in before if key.startswith("vision_tower") or "embed_tokens" in key
    }
