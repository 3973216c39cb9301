"""P(True): the question about the answer, its probability against transformers', and the store that
it is added to."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from command_lines import QUICK, confidence
from virtual_devices import run_on_devices

from inbol_jax.artifacts import read_jsonl, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence.confidence import proposed_answer
from inbol_jax.confidence.samples import P_TRUE_PROMPT, Samples
from inbol_jax.data.images import load_image
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.sampling.p_true import self_evaluate, verdict_tokens


def build(out, *options):
    (out / "records.jsonl").unlink(missing_ok=True)
    return main(["build", "--out", str(out), *map(str, options)])


def copy(out, to):
    """A store knows where its images are, seen from itself: another folder must lie as deep."""
    return shutil.copytree(out, to, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def asked(sampled, small_world, tmp_path_factory):
    """The store of `sampled` with P(True) added. Read-only by agreement."""
    out = copy(sampled, tmp_path_factory.mktemp("asked"))
    assert confidence(small_world / "test", out, *QUICK, "--p-true") == 0
    return out


def asked_of(checkpoint, proposals, images):
    """{id: probability} of examples with proposed answers."""
    options = {"total": len(proposals), "batch_size": 4, "label": "test"}
    options["set_aside"] = pytest.fail
    questions = [
        (example, P_TRUE_PROMPT.format(question=example.question, answer=answer))
        for example, answer in proposals
    ]
    batches = self_evaluate(checkpoint, questions, images, **options)
    return {example.id: value for batch in batches for example, value in batch}


def evaluations(out):
    return {row["id"]: row for row in read_jsonl(out / "confidence/p_true/test.jsonl")}


# --- what is asked, and what comes back


def test_the_words_part_at_their_first_different_token(tiny):
    encoder = make_text_encoder(tiny)
    shared, (true, false) = verdict_tokens(encoder)
    for question in ("What is this?", "Is the answer true or false?"):
        for word, token in (("True", true), ("False", false)):
            assert encoder.response(question, word)[: len(shared) + 1] == (*shared, token)
    assert true != false


def test_words_that_begin_alike(tiny):
    """A tokenizer may write a space, say, as a token of its own in front of both: the prompt goes
    on with it."""
    encoder = make_text_encoder(tiny)
    (shared, words), response = verdict_tokens(encoder), encoder.response
    encoder.response = lambda question, word: (7, *response(question, word))
    assert verdict_tokens(encoder) == ((7, *shared), words)


def test_probabilities_are_those_of_transformers(micro, small_world):
    """Softmax over the two words at the end of the prompt, with transformers' own processor,
    padding and model; several lengths a batch."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    images, examples = small_world / "test", load_dataset_folder(small_world / "test").examples[::6]
    answers = ["red", "I see a circle and a square", "2", "yes"] * 3
    proposed = list(zip(examples, answers, strict=False))
    found = asked_of(micro, proposed, images)
    assert found.keys() == {e.id for e in examples}
    model = LlavaForConditionalGeneration.from_pretrained(micro.path).eval()
    processor = AutoProcessor.from_pretrained(TINY, backend="pil")
    questions = [P_TRUE_PROMPT.format(question=e.question, answer=a) for e, a in proposed]
    messages = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q}]}]
        for q in questions
    ]
    texts = [processor.apply_chat_template(m, add_generation_prompt=True) for m in messages]
    pictures = [load_image(images / e.image) for e in examples]
    inputs = processor(
        images=pictures, text=texts, padding=True, add_special_tokens=False, return_tensors="pt"
    )
    assert len(set(inputs["attention_mask"].sum(1).tolist())) > 2
    shared, words = verdict_tokens(make_text_encoder(micro))
    behind = torch.tensor([shared] * len(examples), dtype=torch.long)  # padded on the left
    inputs["input_ids"] = torch.cat([inputs["input_ids"], behind], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(behind)], 1)
    with torch.inference_mode():
        logits = model(**inputs).logits[:, -1]
    expected = torch.softmax(logits[:, words], -1)[:, 0].numpy()
    np.testing.assert_allclose([found[e.id] for e in examples], expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


# --- the store


def questions(out):
    """{id: question} of a store, with P(True)."""
    samples = Samples.open(out / "confidence/test.jsonl")
    samples.read_p_true()
    return {q.example.id: q for q in samples}


def test_it_is_added_without_sampling(sampled, asked, small_world, capsys):
    """The samples' file is not touched; once more there is nothing to do."""
    file, extra = (asked / "confidence" / name for name in ("test.jsonl", "p_true/test.jsonl"))
    assert file.read_bytes() == (sampled / "confidence/test.jsonl").read_bytes()
    found = evaluations(asked)
    for id, question in questions(asked).items():
        proposed = proposed_answer(question)
        if proposed is None:
            assert question.p_true == 0
        else:
            assert found[id]["proposed"] == proposed
            assert 0 < found[id]["p_true"] == question.p_true < 1
    before = extra.read_bytes()
    assert confidence(small_world / "test", asked, *QUICK, "--p-true") == 0
    assert extra.read_bytes() == before
    assert "programs compiled" not in capsys.readouterr().out


def test_a_question_that_cannot_be_asked_is_set_aside(small_world, tmp_path, capsys):
    """With its answer it is longer than the context: reported and counted; beyond --max-rejected it
    ends the run."""
    out, data = tmp_path / "out", shutil.copytree(small_world / "test", tmp_path / "test")
    rows = list(read_jsonl(data / "data.jsonl"))
    long = [i for i, row in enumerate(rows) if row["answerable"]][:3]
    for i in long:
        rows[i]["question"] += " red" * 215
    write_jsonl(data / "data.jsonl", rows, {})
    assert confidence(data, out, *QUICK) == 0
    examples = load_dataset_folder(data).examples
    shared = {rows[i]["id"] for i in long if proposed_answer_of(out, rows[i]["id"]) is not None}
    gone = next(e for e in examples if e.id in shared)
    assert confidence(data, out, *QUICK, "--p-true", "--max-rejected", 0) == 2
    assert "more than --max-rejected 0" in capsys.readouterr().err
    assert confidence(data, out, *QUICK, "--p-true") == 0
    assert f"{len(shared)} of 60 questions set aside (first: {gone.id}: " in capsys.readouterr().out
    assert {id for id, row in evaluations(out).items() if row["set_aside"]} == shared
    assert {id for id, q in questions(out).items() if q.p_true is None} == shared


def proposed_answer_of(out, id):
    return proposed_answer(questions(out)[id])


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "mesh"), [(8, (-1, 1, 1)), (4, (1, 2, 2))])
def test_on_several_devices(asked, sampled, small_world, tmp_path, devices, mesh):
    """To the last bit where each has the whole model, to rounding where it is split."""
    out = copy(sampled, tmp_path)
    program = "import sys; from inbol_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ("--data", small_world / "test", "--out", out, *QUICK, "--p-true", "--mesh", *mesh)
    run_on_devices(program, "confidence", *options, devices=devices)
    found, expected = (
        {id: row["p_true"] for id, row in evaluations(folder).items()} for folder in (out, asked)
    )
    if mesh[1] == 1:
        assert found == expected
    else:
        assert found == pytest.approx(expected, abs=1e-5)


def test_probabilities_that_are_not_finite_stop(micro, small_world):
    params = jax.tree.map(lambda x: x * np.nan, dict(micro.variables["params"]))
    broken = dataclasses.replace(micro, variables={"params": params})
    example = load_dataset_folder(small_world / "test").examples[0]
    with pytest.raises(InbolError, match=rf"^{micro.path}: .* {example.id!r} is not finite"):
        asked_of(broken, [(example, "red")], small_world / "test")
