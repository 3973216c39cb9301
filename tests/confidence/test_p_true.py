"""P(True): the question about the answer, its probability against transformers', and the store that
it is added to."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from command_lines import QUICK, confidence
from virtual_devices import run_on_devices

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_json, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence.estimators import proposed_answer
from inbol_jax.confidence.p_true import self_evaluate, verdict_tokens
from inbol_jax.confidence.p_true_prompt import P_TRUE_PROMPT
from inbol_jax.confidence.store import read_rows, read_store
from inbol_jax.data.images import load_image
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models.processor import make_text_encoder


def build(out, *options):
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


def asked_of(checkpoint, proposals, images, set_aside=pytest.fail):
    """{id: probability} of examples with proposed answers."""
    options = {"total": len(proposals), "batch_size": 4, "label": "test", "set_aside": set_aside}
    batches = self_evaluate(checkpoint, proposals, images, **options)
    return {example.id: value for batch in batches for example, value in batch}


def evaluations(out):
    return {row["id"]: row for row in read_jsonl(out / "confidence/p_true/test.jsonl")}


# --- what is asked, and what comes back


def test_the_words_part_at_their_first_different_token(tiny):
    encoder = make_text_encoder(tiny)
    shared, true, false = verdict_tokens(encoder)
    for question in ("What is this?", "Is the answer true or false?"):
        for word, token in (("True", true), ("False", false)):
            assert encoder.response(question, word)[: len(shared) + 1] == (*shared, token)
    assert true != false


def test_words_that_begin_alike(tiny):
    """A tokenizer may write a space, say, as a token of its own in front of both: the prompt goes
    on with it."""
    encoder = make_text_encoder(tiny)
    tokens, response = verdict_tokens(encoder), encoder.response
    encoder.response = lambda question, word: (7, *response(question, word))
    assert verdict_tokens(encoder) == tokens._replace(shared=(7, *tokens.shared))


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
    shared, *words = verdict_tokens(make_text_encoder(micro))
    behind = torch.tensor([shared] * len(examples), dtype=torch.long)  # padded on the left
    inputs["input_ids"] = torch.cat([inputs["input_ids"], behind], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(behind)], 1)
    with torch.inference_mode():
        logits = model(**inputs).logits[:, -1]
    expected = torch.softmax(logits[:, words], -1)[:, 0].numpy()
    np.testing.assert_allclose([found[e.id] for e in examples], expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


# --- the store


def test_it_is_added_without_sampling(sampled, asked, small_world, tmp_path, capsys):
    """The samples' file is not touched; in one go it comes out the same; once more there is nothing
    to do."""
    file, extra = (asked / "confidence" / name for name in ("test.jsonl", "p_true/test.jsonl"))
    assert file.read_bytes() == (sampled / "confidence/test.jsonl").read_bytes()
    questions = {question.example.id: question for _, question in read_rows(file)}
    found = evaluations(asked)
    assert found.keys() == questions.keys()
    for id, row in found.items():
        assert row["proposed"] == proposed_answer(questions[id])
        assert (row["p_true"] is None) == (row["proposed"] is None)
        assert row["p_true"] is None or 0 < row["p_true"] < 1
    for question in read_store(file):
        assert question.p_true == (found[question.example.id]["p_true"] or 0.0)
    header = read_meta(extra)
    assert (header["rows"], header["set_aside"]) == (60, 0)
    assert header["samples"] == read_meta(file)["config"]
    options = (*QUICK, "--p-true", "--estimator", "p-true")
    assert confidence(small_world / "test", tmp_path, *options) == 0
    assert "60 questions x 2 samples, mean confidence (p-true) 0." in capsys.readouterr().out
    assert sorted((tmp_path / "confidence/p_true/test.jsonl").read_text().splitlines()) == sorted(
        extra.read_text().splitlines()
    )
    before = extra.read_bytes()
    assert confidence(small_world / "test", asked, *QUICK, "--p-true") == 0
    assert extra.read_bytes() == before
    assert "programs compiled" not in capsys.readouterr().out


def test_a_killed_run_goes_on(asked, small_world, tmp_path):
    """With what it left, the last line torn: nothing is lost, nothing twice, to the last bit."""
    out = copy(asked, tmp_path)
    extra = out / "confidence/p_true/test.jsonl"
    lines = extra.read_bytes().splitlines(keepends=True)
    extra.write_bytes(b"".join(lines[:23]) + lines[23][:30])
    header = {k: v for k, v in read_meta(extra).items() if k not in ("rows", "set_aside")}
    write_json(meta_path(extra), header)
    assert build(out, "--estimator", "p-true") == 2
    assert confidence(small_world / "test", out, *QUICK, "--p-true") == 0
    assert extra.read_bytes().startswith(b"".join(lines[:23]))
    assert sorted(extra.read_bytes().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize("command", ["confidence", "--status", "--plot", "build"])
def test_a_store_without_it_is_refused(sampled, small_world, command, capsys):
    if command == "build":
        assert build(sampled, "--estimator", "p-true") == 2
    else:
        options = ("--estimator", "p-true", *[command][command == "confidence" :])
        assert confidence(small_world / "test", sampled, *QUICK, *options) == 2
    error = capsys.readouterr().err
    assert (
        "test.jsonl has no p_true; `inbol confidence --p-true` adds it and samples nothing again"
        in error
    )
    assert error.count("\n") == 1


def test_a_store_with_some_of_it_is_not_built_from(asked, small_world, tmp_path, capsys):
    """Sampled further, after P(True) was asked for: a store may grow with its dataset."""
    out = copy(asked, tmp_path)
    file = out / "confidence/test.jsonl"
    with file.open("a") as lines:
        lines.write(json.dumps(next(read_jsonl(file)) | {"id": "new"}) + "\n")
    write_json(meta_path(file), read_meta(file) | {"rows": 61})
    assert build(out, "--estimator", "p-true") == 2
    assert "test.jsonl has p_true for 60 questions so far" in capsys.readouterr().err
    assert confidence(small_world / "test", out, "--status", "--estimator", "p-true") == 0
    assert "test: 61 answered, 0 pending, 0 set aside, 60 with P(True), " in capsys.readouterr().out


def test_it_belongs_to_the_samples(asked, small_world, tmp_path, capsys):
    """Another seed has other samples: what was said of the first ones is neither read nor gone on
    with."""
    out = copy(asked, tmp_path)
    for file in (out / "confidence").glob("test.jsonl*"):
        file.unlink()
    assert confidence(small_world / "test", out, *QUICK, "--seed", 1, "--p-true") == 2
    assert "p_true/test.jsonl was made with --samples" in capsys.readouterr().err
    assert build(out, "--estimator", "p-true") == 2
    assert "p_true/test.jsonl is of other samples than those of" in capsys.readouterr().err


def test_records_by_p_true(asked, capsys):
    """Confidence, class and no interval; Type 3 stays without any."""
    values = sorted(row["p_true"] or 0 for row in evaluations(asked).values())
    low, high = values[len(values) // 3], values[2 * len(values) // 3]
    assert build(asked, "--estimator", "p-true", "--delta-uk", low, "--delta-k", high) == 0
    records = {r["id"]: r for r in read_jsonl(asked / "records.jsonl")}
    for id, row in evaluations(asked).items():
        value = 0.0 if records[id]["type"] == 3 else row["p_true"] or 0.0
        assert records[id]["confidence"] == value
        if records[id]["type"] != 3:
            assert records[id]["boundary"] == (
                "known" if value >= high else "unknown" if value <= low else "mixed"
            )
    inputs = read_meta(asked / "records.jsonl")["inputs"]
    assert build(asked) == 0
    assert read_meta(asked / "records.jsonl")["inputs"] != inputs, "other files were read"


def test_a_question_that_cannot_be_asked_is_set_aside(small_world, tmp_path, capsys):
    """With its answer it is longer than the context: reported, counted, left out by `inbol build`;
    beyond --max-rejected it ends the run."""
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
    meta = read_meta(out / "confidence/test.jsonl")
    assert confidence(data, out, *QUICK, "--p-true", "--max-rejected", 0) == 2
    assert "could not be asked, more than --max-rejected 0" in capsys.readouterr().err
    assert confidence(data, out, *QUICK, "--p-true") == 0
    assert (
        f"{len(shared)} of {len(shared)} questions set aside (first: {gone.id}: "
        in capsys.readouterr().out
    )
    assert evaluations(out).keys() == {e.id for e in examples} - shared
    assert read_meta(out / "confidence/p_true/test.jsonl")["set_aside"] == len(shared)
    assert read_meta(out / "confidence/test.jsonl")["config"] == meta["config"]
    left_out = {e.id for e in examples if e.id in shared and e.answerable}
    assert build(out, "--estimator", "p-true", "--delta-uk", 0.5, "--delta-k", 0.51) == 0
    assert (
        f"{len(left_out)} questions could not be asked for P(True), and are left out"
        in capsys.readouterr().out
    )
    kept = {r["id"] for r in read_jsonl(out / "records.jsonl")}
    assert kept == {e.id for e in examples} - left_out


def proposed_answer_of(out, id):
    questions = read_store(out / "confidence/test.jsonl")
    return next(proposed_answer(question) for question in questions if question.example.id == id)


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


def test_a_prompt_that_is_too_long_is_set_aside(tiny, small_world):
    example = load_dataset_folder(small_world / "test").examples[0]
    aside = []
    proposals = [(example, "red " * 300)]
    assert not asked_of(tiny, proposals, small_world / "test", lambda *why: aside.append(why))
    ((rejected, reason),) = aside
    assert rejected.id == example.id
    assert "the model was made for 256" in reason


def test_probabilities_that_are_not_finite_stop(micro, small_world):
    params = jax.tree.map(lambda x: x * np.nan, dict(micro.variables["params"]))
    broken = dataclasses.replace(micro, variables={"params": params})
    example = load_dataset_folder(small_world / "test").examples[0]
    with pytest.raises(InbolError, match=rf"^{micro.path}: .* {example.id!r} is not finite"):
        asked_of(broken, [(example, "red")], small_world / "test")
