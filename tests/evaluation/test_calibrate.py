"""The rule that is chosen, where it is kept, and what it then does, with the shipped model."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_predictions import prediction
from transformers import GenerationConfig

from inbol_jax.answers import ImageHashes
from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.evaluation import asking
from inbol_jax.evaluation.asking import ask, greedy, judged_row
from inbol_jax.evaluation.calibrate import calibrate, choose_rule
from inbol_jax.evaluation.config import CalibrateConfig
from inbol_jax.evaluation.prediction import Forced
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import init_lora
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.prompts import BARE
from inbol_jax.sampling.engines import CheckpointEngine
from inbol_jax.sampling.forced import refusal_tokens
from inbol_jax.taught_refusals import SHORT_REFUSALS

pytestmark = pytest.mark.usefixtures("one_length")


def calibrated_copy(small_world, out, *words):
    """The shipped model with the rule that the world's 60 test questions ask for."""
    given = ["--model", TINY, "--data", small_world / "test", "--out", out, "--templates", "short"]
    assert main(["calibrate", *map(str, given), *words]) == 0
    return out


@pytest.fixture(scope="module")
def copy(small_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "model"
    return calibrated_copy(small_world, out, "--rule", "bias")


@pytest.fixture(scope="module")
def by_likelihood(copy, small_world, tmp_path_factory):
    """A copy with a threshold on the likelihood; nothing is asked anew."""
    out = tmp_path_factory.mktemp("by_likelihood") / "model"
    shutil.copytree(copy / "calibration", out / "calibration")
    return calibrated_copy(small_world, out, "--rule", "likelihood")


def answers(small_world, folder):
    """{id: the judged answers} of a calibration."""
    examples = {e.id: e for e in load_dataset_folder(small_world / "test").examples}
    rows = read_jsonl(folder / "calibration" / "test.jsonl")
    return {row["id"]: judged_row(examples[row["id"]], row) for row in rows}


def bias_of(folder):
    return json.loads((folder / "generation_config.json").read_text())["sequence_bias"]


def test_the_bias_is_on_the_refusal_tokens_and_transformers_reads_it(tiny, copy):
    encoder = make_text_encoder(tiny)
    _, tokens = refusal_tokens(encoder, SHORT_REFUSALS)
    end = encoder.prompt("Whatever else is asked?")[-1]
    about = json.loads((copy / "calibration.json").read_text())
    assert bias_of(copy) == [[[end, token], about["bias"]] for token in tokens]
    assert about["tokens"] == ["I", "Sorry", "The"]
    read = GenerationConfig.from_pretrained(copy)
    assert read.sequence_bias == bias_of(copy)
    assert (read.eos_token_id, read.max_new_tokens) == (2, 12)


def test_no_bias_is_better_on_these_questions(small_world, copy):
    about = json.loads((copy / "calibration.json").read_text())
    rows = answers(small_world, copy).values()
    assert about["n"] == len(rows) == 60

    def value(row, bias):
        type3, answer = row["answerable"] is False, row["forced"]
        if answer["margin"] + bias > 0 or answer["outcome"] == "refused":
            return 1 if type3 else 0
        return 1 if answer["outcome"] == "correct" else -1

    tried = {b: np.mean([value(row, b) for row in rows]) for b in np.linspace(-25, 25, 2001)}
    assert np.mean([value(row, about["bias"]) for row in rows]) == pytest.approx(
        max(tried.values())
    )
    assert about["with"]["value"] == pytest.approx(max(tried.values()))
    assert about["with"]["value"] > about["without"]["value"]
    assert about["without"]["value"] == pytest.approx(tried[0.0])
    assert 0 == about["without"]["refused"] < about["with"]["refused"] < 1


def test_the_copy_refuses_as_was_foretold(small_world, copy, tmp_path):
    dataset = load_dataset_folder(small_world / "test")
    images = ImageHashes(dataset.root)
    foretold = answers(small_world, copy)
    engine = CheckpointEngine(lambda: load_pretrained(copy), greedy(12), 0, 64)
    biased = ask(
        engine, dataset, images, tmp_path / "a.jsonl", prompt=BARE, refusals=(), label="test"
    )
    (bias,) = {value for _, value in bias_of(copy)}
    for name, row in foretold.items():
        refuses = row["forced"]["margin"] + bias > 0
        assert (biased[name]["outcome"] == "refused") == refuses
        if not refuses:
            assert biased[name]["prediction"] == row["forced"]["prediction"]
    assert load_pretrained(TINY).config.sequence_bias == ()  # the original is as it was


def test_an_answer_that_is_not_likely_enough_is_refused(small_world, by_likelihood, tmp_path):
    dataset = load_dataset_folder(small_world / "test")
    checkpoint = load_pretrained(by_likelihood)
    threshold, refusal = checkpoint.config.refuse_below
    assert refusal == SHORT_REFUSALS[0]
    engine = CheckpointEngine(lambda: checkpoint, greedy(12), 0, 64)
    said = ask(
        engine,
        dataset,
        ImageHashes(dataset.root),
        tmp_path / "a.jsonl",
        prompt=BARE,
        refusals=(),
        label="test",
    )
    foretold = answers(small_world, by_likelihood)
    refused = {name for name, row in foretold.items() if row["forced"]["logprob"] < threshold}
    assert 0 < len(refused) < len(said)
    for name, row in said.items():
        forced = foretold[name]["forced"]
        assert row["prediction"] == (refusal if name in refused else forced["prediction"])
    about = json.loads((by_likelihood / "calibration.json").read_text())
    assert about["with"]["refused"] == np.mean([r["outcome"] == "refused" for r in said.values()])


def test_by_default_the_rule_of_the_higher_t_is_kept(small_world, copy, by_likelihood, tmp_path):
    shutil.copytree(copy / "calibration", tmp_path / "model" / "calibration")
    chosen = calibrated_copy(small_world, tmp_path / "model")
    files = [folder / "calibration.json" for folder in (chosen, copy, by_likelihood)]
    first, *both = (json.loads(file.read_text()) for file in files)
    assert first == max(both, key=lambda about: about["with"]["value"])


def test_transformers_gives_the_likelihood_that_the_rule_needs(small_world, by_likelihood):
    """In the two lines of docs/evaluation.md."""
    import torch
    import transformers
    from PIL import Image

    model = transformers.LlavaForConditionalGeneration.from_pretrained(by_likelihood)
    processor = transformers.AutoProcessor.from_pretrained(by_likelihood, backend="pil")
    dataset = load_dataset_folder(small_world / "test")
    foretold = answers(small_world, by_likelihood)
    for example in dataset.examples[:3]:
        content = [{"type": "image"}, {"type": "text", "text": example.question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        picture = Image.open(dataset.root / example.images[0]).convert("RGB")
        inputs = processor(images=picture, text=text, return_tensors="pt")
        with torch.no_grad():
            said = model.generate(
                **inputs, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
        logprob = model.compute_transition_scores(
            said.sequences, said.logits, normalize_logits=True
        ).sum()
        assert float(logprob) == pytest.approx(foretold[example.id]["forced"]["logprob"], abs=1e-4)


def test_in_place_a_new_bias_replaces_the_old_one(small_world, copy, tmp_path, capsys):
    folder = shutil.copytree(copy, tmp_path / "model")
    before = bias_of(folder)
    file = folder / "generation_config.json"
    other = json.loads(file.read_text()) | {"sequence_bias": [[[5], -3.5]]}
    file.write_text(json.dumps(other))
    words = ["calibrate", "--model", folder, "--data", small_world / "test", "--templates", "short"]
    words += ["--rule", "bias"]
    assert main(list(map(str, words))) == 0
    assert "its rule of refusing is replaced" in capsys.readouterr().out
    assert bias_of(folder) == before
    assert load_pretrained(folder).config.sequence_bias == tuple((tuple(t), b) for t, b in before)


def test_what_was_answered_is_not_asked_again(small_world, copy, tmp_path, monkeypatch):
    out = tmp_path / "model"
    shutil.copytree(copy / "calibration", out / "calibration")
    monkeypatch.setattr(asking, "answer_and_force", lambda *_, **__: pytest.fail("asked again"))
    data = (small_world / "test",)
    calibrate(CalibrateConfig(TINY, data, out, templates="short", rule="bias"))
    for file in copy.glob("*.*"):
        assert file.read_bytes() == (out / file.name).read_bytes(), file.name


@pytest.mark.parametrize("price", [0.1, 20.0])
def test_the_rule_is_the_best_at_the_price_of_a_wrong_answer(
    small_world, copy, tmp_path, capsys, price
):
    out = tmp_path / "model"
    shutil.copytree(copy / "calibration", out / "calibration")
    calibrated_copy(small_world, out, "--price", str(price))
    about, rows = json.loads((out / "calibration.json").read_text()), answers(small_world, copy)

    def value(row, refused):
        if refused or row["forced"]["outcome"] == "refused":
            return float(row["answerable"] is False)
        return 1 if row["forced"]["outcome"] == "correct" else -price

    tried = []
    for name, sign in (("logprob", 1), ("margin", -1)):
        scores = [sign * row["forced"][name] for row in rows.values()]
        for least in (-np.inf, *(score + 1e-6 for score in scores)):
            refused = [score < least for score in scores]
            tried.append(np.mean([*map(value, rows.values(), refused)]))
    assert about["with"]["value"] == pytest.approx(max(tried))
    assert about["price"] == price
    assert f"{max(tried):.3f}" in capsys.readouterr().out


def test_a_risk_is_promised_or_said_to_be_out_of_reach(small_world, copy, tmp_path, capsys):
    """Sixty questions do not tell that one answer in a hundred is wrong. They tell more: it is
    said how much, and that can be had."""
    shutil.copytree(copy / "calibration", tmp_path / "model" / "calibration")
    words = ["--model", TINY, "--data", small_world / "test", "--templates", "short"]
    words += ["--out", tmp_path / "model", "--delta", "0.2", "--risk"]
    assert main(["calibrate", *map(str, words), "0.01"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--risk 0.01: 60 questions of --data do not tell that so few answers are wrong" in error
    assert not (tmp_path / "model/generation_config.json").exists()
    (told,) = re.findall(r"bear a risk of (0\.\d+), which", error)
    assert main(["calibrate", *map(str, words), told]) == 0
    about = json.loads((tmp_path / "model/calibration.json").read_text())
    assert about["with"]["risk"] < float(told)
    assert about["with"]["refused"] < 1
    assert (about["rule"], about["risk"], about["delta"]) == ("likelihood", float(told), 0.2)
    said = " ".join(capsys.readouterr().out.split())
    assert f"with a probability of 80% at most {100 * float(told):g}% of its answers" in said


def test_answers_that_are_all_but_sure_are_told_apart():
    """Their log-probabilities differ in the fifth decimal, with which answers are kept."""
    made = []
    for i in range(500):
        right = i < 300
        logprob = -(i % 8 + 1) * 1e-5 if right else -9e-5
        forced = Forced("a", "correct" if right else "wrong", logprob, -9.0, -9.0)
        made.append(prediction(i, forced.outcome, forced=forced))
    for asked in ({}, {"risk": 0.05}):
        choice = choose_rule(made, "likelihood", **asked)
        assert choice.cases["with"] == {"value": 0.6, "refused": 0.4, "risk": 0.0}


@pytest.mark.parametrize("rule", ["bias", "likelihood"])
def test_an_adapter_keeps_its_rule_beside_it(rule, small_world, micro, tmp_path):
    """A copy of it finds its base; both have the rule and the base has none."""
    lora_config = LoraConfig(rank=2)
    lora = init_lora(micro.variables["params"], lora_config, jax.random.key(0))
    adapter = dataclasses.replace(
        micro,
        model=Llava(micro.config, jnp.float32, lora_config),
        variables=dict(micro.variables) | {"lora": lora},
    )
    save_pretrained(adapter, tmp_path / "adapter")
    before = load_pretrained(tmp_path / "adapter").fingerprint
    data = (small_world / "test",)
    calibrate(CalibrateConfig(tmp_path / "adapter", data, tmp_path / "copy", rule=rule))
    assert load_pretrained(tmp_path / "adapter").fingerprint == before
    calibrate(CalibrateConfig(tmp_path / "adapter", data, rule=rule))
    copied, own = (load_pretrained(tmp_path / name) for name in ("copy", "adapter"))
    assert copied.path == own.path == micro.path.resolve()
    assert copied.config.sequence_bias == own.config.sequence_bias != ()
    assert copied.model.config == own.model.config
    assert (own.config.refuse_below is None) == (rule == "bias")
    assert own.fingerprint == copied.fingerprint != before
    assert load_pretrained(micro.path).config.sequence_bias == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": TINY}, "the package's own model stays as it is: give --out"),
        ({"model": Path("hub/name")}, "is no folder here: give --out for a copy"),
        ({"out": TINY / "x"}, "neither in it nor around it"),
        ({"data": ()}, "--data needs at least one"),
        ({"templates": "none"}, "--templates 'none': choose one of one, short"),
        ({"risk": 0.1, "price": 2.0}, "--risk and --price: the rule is chosen for one of them"),
        ({"delta": 0.2}, "--delta does nothing without --risk"),
        ({"risk": 0.1, "rule": "bias"}, "--risk is promised of the likelihood's rule alone"),
    ],
)
def test_options_that_cannot_be(options, message):
    given = {"model": TINY, "data": (Path("d"),)}
    if "model" not in options:
        given["out"] = Path("o")
    with pytest.raises(InbolError, match=message):
        CalibrateConfig(**given | options)


@pytest.mark.usefixtures("unreadable_weights")
def test_refusals_that_decide_nothing_are_refused_before_weights_are_read(small_world, tmp_path):
    """The shipped model does not know the words that the long ones begin with."""
    config = CalibrateConfig(TINY, (small_world / "test",), tmp_path / "out", templates="long")
    with pytest.raises(InbolError, match="begins a refusal and an answer with the same token"):
        calibrate(config)


def test_two_datasets_of_one_name_and_none_are_refused(small_world, tmp_path):
    data = (small_world / "test", small_world / "test")
    with pytest.raises(InbolError, match="two datasets are called test"):
        calibrate(CalibrateConfig(TINY, data, tmp_path / "out"))
    with pytest.raises(InbolError, match="give a folder that holds"):
        calibrate(CalibrateConfig(TINY, (tmp_path / "none",), tmp_path / "out"))


def test_a_dataset_whose_name_is_none_of_a_file_is_refused(small_world, tmp_path):
    shutil.copytree(small_world / "test", tmp_path / "red\x1b[31m")
    with pytest.raises(InbolError, match="files are called by it"):
        calibrate(CalibrateConfig(TINY, (tmp_path / "red\x1b[31m",), tmp_path / "out"))
    assert not (tmp_path / "out").exists()
