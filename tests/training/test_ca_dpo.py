"""CA-DPO learns with every loss; its reference is computed once and kept."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from training_data import dpo, metrics_of, own_logprobs, random_batch

from inbol_jax.artifacts import read_jsonl
from inbol_jax.models import LoraConfig
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import init_lora
from inbol_jax.models.packing import collate
from inbol_jax.records import Preference
from inbol_jax.sharding import make_mesh
from inbol_jax.training import ca_dpo as ca_dpo_module
from inbol_jax.training.ca_dpo import (
    ca_dpo_objective,
    cached_reference,
    pair_dataset,
    pair_logprobs,
    reference_logprobs,
)
from inbol_jax.training.config import FROZEN, CaDpoLossConfig, DpoConfig
from inbol_jax.training.dataset import read_data
from inbol_jax.training.model import split_variables
from inbol_jax.training.step import init_state, make_train_step, target_logprobs


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=8, alpha=16.0)], ids=["whole", "adapters"])
@pytest.mark.parametrize(
    "loss",
    ["sigmoid", *(pytest.param(x, marks=pytest.mark.slow) for x in ("ipo", "hinge", "robust"))],
)
def test_sixteen_pairs_are_learnt(micro, loss, lora):
    """With each loss, which falls under its start, and the margin of every pair rises. Without the
    NLL term, so that it is the loss itself which does it."""
    batch = jax.tree.map(jnp.asarray, collate(random_batch(micro.config, 16), 16))
    model, variables = Llava(micro.config, lora=lora), dict(micro.variables)
    if lora:
        variables["lora"] = init_lora(variables["params"], lora, jax.random.key(0))
    trainable, frozen = split_variables(variables, FROZEN if lora is None else (), lora)
    start = pair_logprobs(target_logprobs(model, variables, batch), batch, average=False)
    batch["ref_chosen"], batch["ref_rejected"] = start
    options = {"pair_weighting": "uniform", "nll_coef": 0.0}
    options |= {"label_smoothing": 0.1} if loss == "robust" else {}
    objective = ca_dpo_objective(model, CaDpoLossConfig(loss=loss, beta=0.1, **options))
    optimizer = optax.adam(1e-2)
    step = make_train_step(objective, optimizer)

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda state, _: step(state, frozen, batch), state, length=40)

    _, metrics = run(init_state(trainable, optimizer))
    losses, margins = (
        np.asarray(metrics[name][0] / metrics[name][1]) for name in ("loss", "reward_margin")
    )
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert losses[-1] < losses[0]
    assert margins[-1] > margins[0] + 0.4  # IPO's goal is a margin of a half
    assert metrics["reward_accuracy"][0][-1] == 16
    assert not metrics["skipped"][0].any()


@pytest.mark.parametrize("average", [False, True])
def test_the_reference_is_the_model_before_training(micro, average):
    """In the order of the rows, whatever the batches; the margin over it is zero at the start."""
    rows = random_batch(micro.config, 5)

    class Rows:
        checkpoint = micro

        def __len__(self):
            return len(rows)

        def batch(self, indices, mine):
            own = [{k: v for k, v in rows[i].items() if not k.startswith("ref")} for i in indices]
            return collate(own, len(mine))

    found = reference_logprobs(Rows(), batch_size=2, mesh=make_mesh(), average=average)
    assert found.shape == (5, 2)
    reduce = np.mean if average else np.sum
    expected = [[reduce(logprobs) for logprobs in own_logprobs(micro, row)] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_run_without_reference_does_not_compute_one(data, micro, tmp_path, monkeypatch):
    fail = lambda *_, **__: pytest.fail("the reference was computed")  # noqa: E731
    monkeypatch.setattr(ca_dpo_module, "reference_logprobs", fail)
    dpo(data, micro.path, tmp_path, batch_size=8, beta=0.5, reference="none")
    last = metrics_of(tmp_path)[-1]
    margin = 0.5 * (last["logprob_chosen"] - last["logprob_rejected"])
    assert last["reward_margin"] == pytest.approx(margin, rel=1e-4, abs=1e-4)


def test_the_reference_is_kept_and_computed_anew_for_another_one(
    data, small_world, micro, tmp_path, monkeypatch
):
    """The same pictures in another folder are not other ones."""
    images = shutil.copytree(small_world / "train", tmp_path / "images")
    computed = []

    def counted(dataset, **options):
        computed.append(options)
        return np.full((len(dataset), 2), -len(computed), np.float32)

    monkeypatch.setattr(ca_dpo_module, "reference_logprobs", counted)

    def reference(**options):
        own = {"data": data / "preferences.jsonl", "out": tmp_path, "images": images}
        config = DpoConfig.from_options(**own, **options)
        (file,) = read_data(config, Preference.from_json, "pair")
        rows = cached_reference(config, make_mesh(), 8, pair_dataset(micro, file, 1), "ref.npy")
        assert (rows.columns["ref_chosen"] == rows.columns["ref_rejected"]).all()
        return len(computed), rows.columns["ref_chosen"][0]

    assert reference() == reference() == (1, -1)
    images = images.rename(tmp_path / "moved")
    assert reference() == (1, -1)
    first = next(read_jsonl(data / "preferences.jsonl"))["images"][0]
    Image.new("RGB", (64, 64)).save(images / first)
    assert reference() == (2, -2)
    assert reference(length_normalized=True) == (3, -3)
    (tmp_path / "ref.npy.meta.json").unlink()  # as if it had been killed between the two
    assert reference(length_normalized=True) == (4, -4)
    values = np.load(tmp_path / "ref.npy")
    for n, changed in enumerate((values + 0.5, values.astype(np.float16), np.array(["a"])), 5):
        np.save(tmp_path / "ref.npy", changed)  # whatever it is, it is not trained with
        assert reference(length_normalized=True) == (n, -n)


def test_evaluation_of_pairs_has_a_reference_of_its_own(data, micro, tmp_path):
    lines = (data / "preferences.jsonl").read_text().splitlines()
    (data / "some.jsonl").write_text("\n".join(lines[:5]) + "\n")
    shutil.copy(data / "preferences.jsonl.meta.json", data / "some.jsonl.meta.json")
    dpo(data, micro.path, tmp_path, eval_data=data / "some.jsonl", batch_size=16)
    own, whole = (np.load(tmp_path / f"{name}.npy") for name in ("eval_reference", "reference"))
    assert own.shape == (5, 2)
    np.testing.assert_allclose(own, whole[:5], atol=1e-4)
    names = metrics_of(tmp_path)[-1].keys()
    assert {"eval/loss", "eval/reward_margin", "eval/reward_accuracy"} <= names
