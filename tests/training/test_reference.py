"""The frozen reference: computed once and kept, or computed in every step."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from training_data import (
    dpo,
    metrics_of,
    own_logprobs,
    random_batch,
    run_sft,
    stage_config,
    weights_of,
)

from inbol_jax.errors import InbolError
from inbol_jax.models.packing import collate
from inbol_jax.sharding import make_mesh
from inbol_jax.training import reference as reference_module
from inbol_jax.training.ca_dpo import ca_dpo
from inbol_jax.training.dataset import in_order
from inbol_jax.training.reference import reference_logprobs

ROOT = Path(__file__).parents[2]


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
    expected = [
        [logprobs.mean() if average else logprobs.sum() for logprobs in own_logprobs(micro, row)]
        for row in rows
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_run_without_reference_does_not_compute_one(data, micro, tmp_path, monkeypatch):
    monkeypatch.setattr(
        reference_module,
        "reference_logprobs",
        lambda *_, **__: pytest.fail("the reference was computed"),
    )
    ca_dpo(stage_config("CA-DPO", data, micro, tmp_path, epochs=1, beta=0.5, reference_free=True))
    last = metrics_of(tmp_path)[-1]
    assert last["reward_margin"] == pytest.approx(
        0.5 * (last["logprob_chosen"] - last["logprob_rejected"]), rel=1e-4, abs=1e-4
    )


def test_the_reference_is_computed_once(data, micro, tmp_path, monkeypatch):
    out = tmp_path / "dpo"
    dpo(data, micro.path, out, batch_size=16)
    reference = np.load(out / "reference.npy")
    assert reference.shape == (16, 2)
    plain = weights_of(out / "model")
    for folder in ("checkpoints", "model"):
        subprocess.run(["rm", "-r", str(out / folder)], check=True)
    monkeypatch.setattr(
        "inbol_jax.training.reference.reference_logprobs",
        lambda *a, **b: pytest.fail("computed again"),
    )
    again = weights_of(dpo(data, micro.path, out, batch_size=16))
    for key, x in plain.items():
        np.testing.assert_array_equal(again[key], x)
    with pytest.raises(InbolError, match="reference of another model or other pairs"):
        dpo(data, micro.path, out, batch_size=16, length_normalized=True)
    (out / "reference.npy").write_bytes(b"broken")
    with pytest.raises(InbolError, match=r"reference\.npy: cannot be read"):
        dpo(data, micro.path, out, batch_size=16)
    monkeypatch.undo()
    (
        out / "reference.npy.meta.json"
    ).unlink()  # a run that was killed between the two: it is computed again
    dpo(data, micro.path, out, batch_size=16)
    np.testing.assert_array_equal(np.load(out / "reference.npy"), reference)


def test_the_reference_comes_in_batches_that_go_with_the_micro_batches(
    data, micro, tmp_path, monkeypatch
):
    sizes = []
    monkeypatch.setattr(
        reference_module,
        "in_order",
        lambda rows, mesh, size: sizes.append(size) or in_order(rows, mesh, size),
    )
    dpo(data, micro.path, tmp_path, batch_size=16, gradient_accumulation_steps=8)
    assert sizes == [8]


def test_evaluation_of_pairs_has_a_reference_of_its_own(data, micro, tmp_path):
    lines = (data / "preferences.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[:5]) + "\n")
    header = (data / "preferences.jsonl.meta.json").read_text()
    (data / "some.jsonl").write_text("\n".join(lines[:5]) + "\n")
    (data / "some.jsonl.meta.json").write_text(header)
    dpo(data, micro.path, tmp_path, eval_data=data / "some.jsonl", batch_size=16)
    assert np.load(tmp_path / "eval_reference.npy").shape == (5, 2)
    np.testing.assert_allclose(
        np.load(tmp_path / "eval_reference.npy"), np.load(tmp_path / "reference.npy")[:5], atol=1e-4
    )
    assert {"eval/loss", "eval/reward_margin", "eval/reward_accuracy"} <= metrics_of(tmp_path)[
        -1
    ].keys()


@pytest.mark.parametrize("start", ["whole", "new adapters", "its own adapters"])
def test_both_references_train_alike(data, micro, tmp_path, start):
    """A frozen copy of the start; adapters off; the adapters as they were. Dropout, where there is
    any, is not the reference's.
    """
    model, options = micro.path, {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}
    if start == "new adapters":
        options |= {"lora_rank": 2, "lora_trainable": ("multi_modal_projector",)}
    if start == "its own adapters":
        model = run_sft(
            data,
            micro.path,
            tmp_path / "sft",
            lora_rank=2,
            learning_rate=1e-2,
            epochs=4,
            batch_size=8,
        )
    for kind in ("cached", "online"):
        dpo(data, model, tmp_path / kind, reference=kind, **options)
    assert not (tmp_path / "online/reference.npy").exists()
    one, two = metrics_of(tmp_path / "cached"), metrics_of(tmp_path / "online")
    for row, other in zip(one, two, strict=True):
        numbers = [k for k in row if "reward_accuracy" not in k]
        assert {k: other[k] for k in numbers} == pytest.approx(
            {k: row[k] for k in numbers}, rel=1e-4, abs=1e-4
        )
    assert abs(one[-1]["reward_margin"]) > 1e-3
