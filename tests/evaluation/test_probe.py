"""A linear probe: the hidden states, the fit and its file. tests/test_demo.py has the baseline."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from inbol_jax.artifacts import write_jsonl
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.record import make_record
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.evaluation import probe as module
from inbol_jax.evaluation.config import ProbeConfig
from inbol_jax.evaluation.probe import Probe, hidden_states, probe, read_probe
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED
from inbol_jax.prompts import BARE, Prompt
from inbol_jax.records import Sample, SampledQuestion, VQAExample


def test_a_state_is_what_the_first_token_follows_from(micro, small_world):
    """By the model's own logits, question by question and without padding."""
    dataset = load_dataset_folder(small_world / "test")
    asked = dataset.examples[:7]
    states = dict(hidden_states(micro, asked, dataset.root, batch_size=4))
    assert {*states} == {e.id for e in asked}
    encoder, head = make_text_encoder(micro), micro.model.apply(micro.variables, method="head")
    for example in asked:
        ids = np.array([encoder.prompt(example.question)], np.int32)
        images = load_image_inputs(micro, [dataset.root / example.image], [UNTILED])
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        batch |= {name: array[None] for name, array in images.items()}
        logits = micro.model.apply(micro.variables, batch)[0, -1]
        np.testing.assert_allclose(states[example.id] @ head, logits, atol=1e-4)


def question(i, known):
    answerable = i % 3 > 0
    example = VQAExample(f"q{i}", (f"{i // 2}.png",), "What?", ("a",) * answerable, answerable)
    outcome = "correct" if known and answerable else "wrong"
    return SampledQuestion(example, (Sample("a" if known else "b", -1.0, 2, outcome),) * 10)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Records whose states, in f32[6], hold the label along one direction, and a checkpoint that
    is none. Returns states by id and labels."""
    rng = np.random.default_rng(0)
    known = rng.random(300) < 0.5
    records = [make_record(question(i, known[i]), Thresholds()) for i in range(300)]
    refuse = np.array([r.type == 3 or r.confidence < 0.5 for r in records])
    x = rng.normal(size=(300, 6)) + 2 * refuse[:, None] * np.eye(6)[0]
    states = (5 + x * (1, 10, 0.1, 1, 1, 1)).astype(np.float32)
    header = {"command": "build", "images": ".", **BARE.to_json()}
    write_jsonl(tmp_path / "records.jsonl", (r.to_json() for r in records), header)
    checkpoint = SimpleNamespace(fingerprint="f00d")
    checkpoint.asked_by = lambda prompt: checkpoint
    monkeypatch.setattr(module, "prompt_for", lambda *_: BARE)
    monkeypatch.setattr(module, "load_pretrained", lambda *_, **__: checkpoint)
    monkeypatch.setattr(module, "load_without_weights", lambda *_: checkpoint)
    found = {r.id: state for r, state in zip(records, states, strict=True)}
    monkeypatch.setattr(
        module,
        "hidden_states",
        lambda checkpoint, examples, images, **_: ((e.id, found[e.id]) for e in examples),
    )
    return SimpleNamespace(out=tmp_path, states=states, refuse=refuse, checkpoint=checkpoint)


def test_a_direction_that_tells_is_found_and_kept(planted, capsys, monkeypatch):
    file = probe(ProbeConfig(planted.out))
    said = capsys.readouterr().out
    assert said.startswith(f"300 questions, {planted.refuse.mean():.0%} of them to be refused")
    kept = read_probe(file, planted.out, [BARE])
    with pytest.raises(InbolError, match="was fitted with another --prompt"):
        read_probe(file, planted.out, [BARE, Prompt("short")])
    monkeypatch.setattr(planted.checkpoint, "fingerprint", "another")
    with pytest.raises(InbolError, match="is for another model than"):
        read_probe(file, planted.out, [BARE])
    logits = planted.states @ kept.weight + kept.bias
    # Standard deviations beside the direction's own are folded in: the other weights are small.
    scale = planted.states.std(axis=0)
    assert np.abs(kept.weight * scale)[1:].max() < 0.2 * (kept.weight * scale)[0]
    assert ((logits > 0) == planted.refuse).mean() > 0.8
    examples = [question(i, True).example for i in range(3)]
    scores = kept.scores(planted.checkpoint, examples, planted.out, batch_size=2)
    np.testing.assert_allclose([*scores.values()], logits[:3], rtol=1e-5)


def test_what_it_says_of_itself_is_of_questions_that_it_has_not_seen(planted, capsys, monkeypatch):
    """Of noise in 200 dimensions, a fit tells the 300 questions that it has seen, and no others."""
    rng = np.random.default_rng(1)
    noise = functools.partial(rng.normal, size=200)
    monkeypatch.setattr(
        module, "hidden_states", lambda _, examples, *__, **___: ((e.id, noise()) for e in examples)
    )
    probe(ProbeConfig(planted.out))
    auroc = float(capsys.readouterr().out.split("AUROC ")[1].split()[0])
    assert 0.38 < auroc < 0.62


def test_records_that_cannot_be_told_apart(planted):
    (planted.out / "records.jsonl").unlink()
    with pytest.raises(InbolError, match=r"no finished records\.jsonl"):
        probe(ProbeConfig(planted.out / "elsewhere"))
    records = [make_record(question(3 * i, False), Thresholds()) for i in range(9)]
    header = {"command": "build", "images": ".", **BARE.to_json()}
    write_jsonl(planted.out / "records.jsonl", (r.to_json() for r in records), header)
    with pytest.raises(InbolError, match="needs questions to answer and questions to refuse"):
        probe(ProbeConfig(planted.out))
    # Both sides, but only one image with an answer.
    records = [make_record(question(i, i == 1), Thresholds()) for i in range(40)]
    write_jsonl(planted.out / "records.jsonl", (r.to_json() for r in records), header)
    with pytest.raises(InbolError, match="of several images"):
        probe(ProbeConfig(planted.out))


def test_a_file_that_is_no_probe(tmp_path):
    (tmp_path / "a.safetensors").write_text("no tensors")
    for name in ("a.safetensors", "b.safetensors"):
        with pytest.raises(InbolError, match="is no file of `inbol probe`"):
            read_probe(tmp_path / name, tmp_path, [BARE])


def test_scores_are_the_logits():
    states = {"a": np.array([1.0, 2.0]), "b": np.array([0.0, -1.0])}
    kept = Probe(np.array([0.5, 0.25], np.float32), -1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hidden_states", lambda *_, **__: iter(states.items()))
        assert kept.scores(None, (), None) == {"a": 0.0, "b": -1.25}
