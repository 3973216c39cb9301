"""CA-DPO learns with every loss and every kind of reference."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_data import (
    dpo,
    metrics_of,
    random_batch,
    stage_config,
)

from inbol_jax.artifacts import read_jsonl
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.losses import PAIR_LOSSES, value_weights
from inbol_jax.models import LoraConfig
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import init_lora
from inbol_jax.models.packing import collate
from inbol_jax.records import Preference
from inbol_jax.training.ca_dpo import ca_dpo, ca_dpo_objective
from inbol_jax.training.config import FROZEN, PairLossConfig
from inbol_jax.training.objective import target_logprobs
from inbol_jax.training.reference import pair_logprobs
from inbol_jax.training.state import init_state, split_variables
from inbol_jax.training.step import make_train_step

ROOT = Path(__file__).parents[2]


def test_ca_dpo_learns_sixteen_pairs(data, tmp_path):
    options = {"epochs": 15, "batch_size": 16, "learning_rate": 5e-4, "beta": 0.5}
    dpo(data, TINY, tmp_path / "start", **options | {"epochs": 1, "learning_rate": 1e-12})
    start = metrics_of(tmp_path / "start")[0]
    # The reference is the model itself before any update.
    assert start["reward_margin"] == pytest.approx(0, abs=1e-3)
    pairs = [Preference.from_json(row) for row in read_jsonl(data / "preferences.jsonl")]
    weights = np.asarray(
        value_weights(
            jnp.array([p.confidence for p in pairs], jnp.float32),
            jnp.array([p.kind for p in pairs]),
        )
    )
    assert start["dpo"] == pytest.approx(np.log(2) * np.mean(weights), rel=1e-3)
    dpo(data, TINY, tmp_path, **options)
    rows = metrics_of(tmp_path)
    assert rows[-1]["step"] == 15
    assert rows[-1]["dpo"] < 0.5 * start["dpo"]
    assert rows[-1]["loss"] < start["loss"]
    assert rows[-1]["reward_margin"] > 2
    assert rows[-1]["reward_accuracy"] > 0.9
    assert rows[-1]["logprob_chosen"] > start["logprob_chosen"]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "robust", "label_smoothing": 0.1},
        {"loss": "ipo", "length_normalized": True},
        {"loss": "hinge", "reference_free": True},
    ],
    ids=lambda options: " ".join(f"{k} {v}" for k, v in options.items()),
)
def test_every_loss_learns_sixteen_pairs(data, micro, tmp_path, options):
    """Without the NLL term, so that it is the loss itself which does it. The first row is of the
    model before any update.
    """
    options = {
        "epochs": 16,
        "batch_size": 16,
        "frozen": (),
        "nll_coef": 0.0,
        "beta": 0.5,
        "learning_rate": 5e-3,
    } | options
    ca_dpo(stage_config("CA-DPO", data, micro, tmp_path, save_steps=1, **options))
    start, *_, end = metrics_of(tmp_path)
    assert (start["step"], end["step"]) == (1, 16)
    assert end["loss"] == pytest.approx(end["dpo"], rel=1e-5)
    assert end["dpo"] < start["dpo"]
    assert end["reward_margin"] > start["reward_margin"] + 0.3
    assert end["reward_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"pair_weighting": "cubic"}, "'cubic': choose one of linear, margin, uniform, value"),
        ({"loss": "dpo"}, "--loss 'dpo': choose one of sigmoid, robust, ipo, hinge"),
        ({"beta": 0.0}, "--beta 0.0"),
        ({"beta": -1.0}, "--beta"),
        ({"beta": float("nan")}, "--beta nan"),
        ({"nll_coef": -0.1}, "-0.1"),
        ({"label_smoothing": -0.1}, "--label-smoothing -0.1: at least 0"),
        ({"label_smoothing": 0.5}, "--label-smoothing 0.5: at least 0 and less than 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "--label-smoothing 0.1: the loss 'ipo' has none"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "the loss 'hinge' has none"),
    ],
)
def test_an_option_of_the_pair_loss_that_cannot_be_meant_is_named(
    data, micro, tmp_path, options, culprit
):
    with pytest.raises(InbolError, match=re.escape(culprit)):
        ca_dpo(stage_config("CA-DPO", data, micro, tmp_path, **options))


REFERENCES = ("cached", "online", "adapters off", "none")
COMBINATIONS = [  # the everyday suite has each loss and each reference once
    pytest.param(
        loss,
        reference,
        marks=() if "sigmoid" in loss or reference == "cached" else pytest.mark.slow,
    )
    for loss in sorted(PAIR_LOSSES)
    for reference in REFERENCES
]


@pytest.mark.parametrize(("loss", "reference"), COMBINATIONS)
def test_sixteen_pairs_are_learnt(micro, loss, reference):
    """With each loss and each kind of reference the loss falls under its start and the margin of
    every pair rises.
    """
    batch = {
        name: jnp.asarray(x) for name, x in collate(random_batch(micro.config, 16), 16).items()
    }
    lora = LoraConfig(rank=8, alpha=16.0) if reference == "adapters off" else None
    model, variables = Llava(micro.config, lora=lora), dict(micro.variables)
    if lora:
        variables["lora"] = init_lora(variables["params"], lora, jax.random.key(0))
    trainable, frozen = split_variables(variables, FROZEN if lora is None else (), lora)
    start = pair_logprobs(target_logprobs(model, variables, batch), batch, average=False)
    batch["ref_chosen"], batch["ref_rejected"] = (
        start if reference == "cached" else (jnp.zeros(16),) * 2
    )
    reference_start = {"online": trainable, "adapters off": {}}.get(reference)
    options = PairLossConfig(
        loss=loss,
        beta=0.1,
        pair_weighting="uniform",
        nll_coef=0.0,
        label_smoothing=0.1 if loss == "robust" else 0.0,
    )
    objective = ca_dpo_objective(model, options)
    steps = 40
    optimizer = optax.adam(1e-2)
    step = make_train_step(objective, optimizer)

    @jax.jit
    def run(state):
        return jax.lax.scan(
            lambda state, _: step(state, frozen, reference_start, batch), state, length=steps
        )

    _, metrics = run(init_state(trainable, optimizer))
    losses = np.asarray(metrics["loss"][0] / metrics["loss"][1])
    margins = np.asarray(metrics["reward_margin"][0] / metrics["reward_margin"][1])
    if reference != "none":
        assert margins[0] == pytest.approx(0, abs=1e-4)
    assert losses[-1] < losses[0]
    assert margins[-1] > margins[0] + 0.4  # IPO's goal is a margin of a half
    assert metrics["reward_accuracy"][0][-1] == 16
    assert not metrics["skipped"][0].any()
