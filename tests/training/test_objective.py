"""The objectives of both stages against plain forwards, and the log-probabilities of packed
batches.
"""

import functools
import re

import jax
import numpy as np
import optax
import pytest
from training_data import mean_loss, objectives, own_logprobs, random_batch

from inbol_jax.losses import (
    PAIR_LOSSES,
    PairLogprobs,
    dpo_loss,
    linear_weights,
    sequence_logprob,
    value_weights,
)
from inbol_jax.models.packing import collate
from inbol_jax.records import PairKind
from inbol_jax.training.ca_dpo import ca_dpo_objective
from inbol_jax.training.config import CaDpoLossConfig
from inbol_jax.training.step import CHUNK, target_logprobs


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradient(model, name, params, batch):
    return jax.value_and_grad(
        lambda p: mean_loss(objectives(model)[name], {"params": p}, batch), has_aux=True
    )(params)


def means(metrics):
    return {name: float(x) / float(weight) for name, (x, weight) in metrics.items() if weight}


@pytest.mark.parametrize("name", ["IDK-IT", "CA-DPO"])
def test_neither_order_nor_rows_that_fill_up_the_batch_matter(micro, name):
    rows, params = random_batch(micro.config, 3), micro.variables["params"]
    (loss, metrics), gradient = value_and_gradient(micro.model, name, params, collate(rows, 3))
    assert optax.tree.norm(gradient) > 1e-3
    for batch in (collate(rows, 8), collate(rows[::-1], 3)):
        (again, other_metrics), other = value_and_gradient(micro.model, name, params, batch)
        assert again == pytest.approx(float(loss), rel=1e-5)
        found, expected = (means(x) | {"padding": 0} for x in (other_metrics, metrics))
        assert found == pytest.approx(expected, rel=1e-5)
        close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-4)
        jax.tree.map(close, other, gradient)


def test_objectives_are_their_definitions(micro):
    """Against log-probabilities from plain forwards, branch by branch."""
    checkpoint, rows = micro, random_batch(micro.config, 3)
    each = [own_logprobs(checkpoint, row) for row in rows]
    params, batch = checkpoint.variables["params"], collate(rows, 3)
    tokens = np.concatenate([x for pair in each for x in pair])
    (loss, metrics), _ = value_and_gradient(checkpoint.model, "IDK-IT", params, batch)
    assert float(loss) == pytest.approx(-tokens.mean(), rel=1e-4)
    assert float(metrics["loss"][1]) == len(tokens)

    chosen, rejected = (np.array([pair[i].sum() for pair in each]) for i in (0, 1))
    nll = -np.array([pair[0].mean() for pair in each])
    (loss, metrics), _ = value_and_gradient(checkpoint.model, "CA-DPO", params, batch)
    confidence, kind = batch["confidence"], batch["kind"]
    policy = PairLogprobs(chosen, rejected)
    reference = PairLogprobs(batch["ref_chosen"], batch["ref_rejected"])
    weight = np.asarray(linear_weights(confidence, kind))
    assert len(set(weight.tolist())) > 1
    dpo = weight * dpo_loss(policy, reference, beta=0.3)
    assert float(loss) == pytest.approx(float((dpo + 0.5 * weight * nll).mean()), rel=1e-4)
    reward = 0.3 * ((chosen - batch["ref_chosen"]) - (rejected - batch["ref_rejected"]))
    expected = {
        "loss": float(loss),
        "dpo": float(dpo.mean()),
        "nll": nll.mean(),
        "reward_margin": reward.mean(),
        "reward_accuracy": (reward > 0).mean(),
        "logprob_chosen": chosen.mean(),
        "logprob_rejected": rejected.mean(),
        "tokens": (batch["segments"] >= 0).sum() / 3,
        "padding": (batch["segments"] < 0).mean(),
    }
    for of in PairKind:
        if (among := kind == of.number).any():
            expected[f"reward_margin/{of}"] = reward[among].mean()
            expected[f"reward_accuracy/{of}"] = (reward > 0)[among].mean()
    assert means(metrics) == pytest.approx(expected, rel=1e-3, abs=1e-4)


VARIANTS = [(name, {}) for name in PAIR_LOSSES if name != "robust"]
VARIANTS += [(name, {"label_smoothing": 0.2}) for name in ("sigmoid", "robust")]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_objective_of_every_loss(micro, name, options):
    """The weighted loss of sums or averages, and the NLL term, which is an average either way."""
    length_normalized = name in ("ipo", "hinge")
    batch = collate(random_batch(micro.config, 3), 3)
    own = {"beta": 0.3, "nll_coef": 0.5, "length_normalized": length_normalized}
    config = CaDpoLossConfig(loss=name, **own, **options)
    loss, metrics = mean_loss(ca_dpo_objective(micro.model, config), micro.variables, batch)
    logprobs = target_logprobs(micro.model, micro.variables, batch)
    of_branch = [batch["target_segment"] == branch for branch in (1, 2)]
    policy = PairLogprobs(
        *(sequence_logprob(logprobs, mask, average=length_normalized) for mask in of_branch)
    )
    reference = PairLogprobs(batch["ref_chosen"], batch["ref_rejected"])
    weight = value_weights(batch["confidence"], batch["kind"])
    nll = -sequence_logprob(logprobs, of_branch[0], average=True)
    pair = weight * PAIR_LOSSES[name](policy, reference, beta=0.3, **options)
    assert float(loss) == pytest.approx(float((pair + 0.5 * weight * nll).mean()), rel=1e-5)
    expected = {
        "dpo": pair,
        "nll": nll,
        "logprob_chosen": policy.chosen,
        "logprob_rejected": policy.rejected,
    }
    found = {metric: means(metrics)[metric] for metric in expected}
    expected = {metric: float(values.mean()) for metric, values in expected.items()}
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_chunks_of_targets_change_nothing(micro):
    batch = collate(random_batch(micro.config, 3), 3)
    whole = np.asarray(target_logprobs(micro.model, micro.variables, batch, chunk=None))
    assert whole.shape[1] == 12
    for chunk in (1, 5, CHUNK):
        found = target_logprobs(micro.model, micro.variables, batch, chunk=chunk)
        np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("name", ["IDK-IT", "CA-DPO"])
def test_long_responses_have_the_logits_of_a_chunk_at_a_time(micro, name):
    rows, targets, words = 2, 300, micro.config.text.vocab_size
    batch = collate(random_batch(micro.config, rows), rows)
    for key in ("targets", "target_index", "target_segment"):
        batch[key] = np.resize(batch[key], (rows, targets))
    objective = objectives(micro.model)[name]
    gradient = jax.grad(lambda p: objective({"params": p}, batch)["loss"][0])
    program = str(jax.make_jaxpr(gradient)(micro.variables["params"]))
    found = re.findall(rf"f32\[((?:\d+,)+){words}\]", program)
    positions = [np.prod([int(n) for n in shape.split(",")[:-1]]) for shape in found]
    assert max(positions) == rows * -(-targets // -(-targets // CHUNK))
