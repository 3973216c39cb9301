"""The command with a stand-in for the models; tests/test_demo.py runs it with real ones."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from endpoint_server import said
from msgspec.structs import replace
from PIL import Image

from inbol_jax.answers import from_row
from inbol_jax.artifacts import read_jsonl
from inbol_jax.confidence.confidence import self_consistency
from inbol_jax.confidence.samples import judged
from inbol_jax.data import vqa
from inbol_jax.defaults import NEW_TOKENS, TINY
from inbol_jax.errors import InbolError, printable
from inbol_jax.evaluation import asking
from inbol_jax.evaluation import evaluate as module
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.evaluate import evaluate, predictions, report
from inbol_jax.evaluation.prediction import BASELINES, PROMPTED, Forced, read_predictions
from inbol_jax.prompts import BARE
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.sampling import engines
from inbol_jax.sampling.forced import ForcedAnswer
from inbol_jax.sampling.generate import Generation
from inbol_jax.taught_refusals import SHORT_REFUSALS

# id -> gold answers (Type 3 has none) and what the base said in two samples
QUESTIONS = {
    "a": (["red"], ("correct", "correct")),
    "b": (["blue"], ("wrong", "correct")),
    "c": ([], ("wrong", "wrong")),
}


def rows_of(config):
    """The records of the first dataset, which `write_rows` writes back."""
    return list(read_jsonl(config.in_domain[0] / "data.jsonl"))


def write_rows(config, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (config.in_domain[0] / "data.jsonl").write_text(lines)


def load_pretrained(folder, **options):
    """A checkpoint without weights."""
    model = SimpleNamespace(dtype=np.dtype("f4"))
    checkpoint = SimpleNamespace(fingerprint=str(folder), model=model)
    checkpoint.asked_by = lambda prompt: SimpleNamespace(**vars(checkpoint), prompt=prompt)
    return checkpoint


def bare(model, options, files, refusals, tell):
    return [BARE] * len(files)


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A dataset of three questions, and two models that always say "red"."""
    (tmp_path / "colours").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "colours" / "black.png")
    lines, store = [], []
    for id, (answers, outcomes) in QUESTIONS.items():
        example = VQAExample(id, ("black.png",), "What colour?", tuple(answers), bool(answers))
        samples = tuple(Sample("red", -1.0, 2, outcome) for outcome in outcomes)
        store.append(SampledQuestion(example, samples))
        lines.append(json.dumps(example.to_json() | {"kind": "colour"}) + "\n")
    (tmp_path / "colours" / "data.jsonl").write_text("".join(lines))

    def generate(checkpoint, examples, images, **options):
        for example in examples:
            yield [(example, [Generation("red", -1.0, 2)])]

    alone = SimpleNamespace(share=lambda: (0, 1))
    monkeypatch.setattr(module, "confidence_engine", lambda options: alone)
    monkeypatch.setattr(module, "asker_settings", lambda *_: {})
    monkeypatch.setattr(module, "ask_samples", lambda *_: (store, False))
    monkeypatch.setattr(module, "load_pretrained", load_pretrained)
    monkeypatch.setattr(module, "prompts_for", bare)
    monkeypatch.setattr(engines, "generate", generate)
    return EvaluateConfig(
        in_domain=(tmp_path / "colours",),
        out=tmp_path / "out",
        models=(("base", tmp_path / "base"), ("tuned", tmp_path / "tuned")),
    )


def test_every_model_answers_every_question(config):
    metrics = evaluate(config)
    predicted = read_predictions(config.out / "predictions.jsonl")
    assert [p.model + p.id for p in predicted] == ["basea", "baseb", "basec"] + [
        f"tuned{id}" for id in QUESTIONS
    ]
    assert {(p.dataset, p.domain) for p in predicted} == {("colours", "in_domain")}
    assert {(p.kind, p.prediction) for p in predicted} == {("colour", "red")}
    base = [(p.type, p.confidence, p.outcome) for p in predicted[:3]]
    assert base == [(1, 1.0, "correct"), (None, 0.5, "wrong"), (3, 0.0, "wrong")]
    assert json.loads((config.out / "metrics.json").read_text()) == metrics.to_json()
    asked = [d for d in metrics.differences if (d.a, d.b) == ("base", "tuned")]
    assert {d.diff for d in asked} == {0.0, None}
    assert list(metrics.seconds) == ["evaluation"]
    for name in ("report.html", "figures/summary.png"):
        assert (config.out / name).is_file()


@pytest.mark.parametrize("n_cut", [0, 1])
def test_cut_answers_are_said_also_by_a_run_that_asks_nothing(config, monkeypatch, capsys, n_cut):
    def generate(checkpoint, examples, images, **options):
        for i, example in enumerate(examples):
            yield [(example, [Generation("red", -1.0, 2, cut=i < n_cut)])]

    monkeypatch.setattr(engines, "generate", generate)
    for _ in range(2):
        predictions(config)
        lines = capsys.readouterr().out.splitlines()
        about = [line for line in lines if line.startswith("Warning")]
        assert len(about) == 2 * n_cut  # both models
        assert all("33% of the answers were cut at --max-new-tokens" in line for line in about)


def test_a_limit_takes_the_first_records_of_each_dataset(config):
    limited = predictions(dataclasses.replace(config, limit=2))
    assert [p.id for p in limited] == ["a", "b"] * 2


def test_processes_ask_their_shares_and_the_same_command_without_them_asks_nothing(
    config, monkeypatch
):
    whole = predictions(dataclasses.replace(config, out=config.out / "whole"))
    for index in (1, 0):
        share = lambda engine, index=index: (index, 2)  # noqa: E731
        monkeypatch.setattr(engines.CheckpointEngine, "share", share)
        assert evaluate(dataclasses.replace(config, distributed=True)) is None
        assert not (config.out / "predictions.jsonl").exists()
    files = {f.name: len(f.read_text().splitlines()) for f in config.out.glob("answers/base/*")}
    assert files == {"colours.jsonl": 2, "colours.process-1.jsonl": 1}
    monkeypatch.setattr(engines.CheckpointEngine, "share", lambda engine: (0, 1))
    monkeypatch.setattr(engines, "generate", lambda *_, **__: pytest.fail("something is asked"))
    assert predictions(config) == whole


def test_results_that_are_replaced_are_said(config, capsys):
    predictions(config)
    predictions(config)
    assert "replaced" not in capsys.readouterr().out
    predictions(dataclasses.replace(config, seed=3, limit=2))
    file = config.out / "predictions.jsonl"
    made = f"{file} was made with no --limit, and now --limit 2; --seed 0, and now --seed 3: it is "
    assert made + "replaced\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["predictions.jsonl", "report.html", "metrics.json"])
def test_nobody_elses_results_are_replaced(config, monkeypatch, name):
    monkeypatch.setattr(module, "ask_models", lambda config: pytest.fail("asked first"))
    config.out.mkdir()
    (config.out / name).write_text("mine")
    with pytest.raises(InbolError, match=f"{name} .*choose another --out, or delete it"):
        evaluate(config)
    assert (config.out / name).read_text() == "mine"


def test_what_changed_in_the_dataset_is_judged_or_asked_again(config, monkeypatch):
    """Answers: judged again. Question or image: asked again. Gone: left out."""
    predictions(config)
    asked, generate = [], engines.generate

    def counting(checkpoint, examples, *rest, **options):
        asked.append([example.id for example in examples])
        return generate(checkpoint, examples, *rest, **options)

    monkeypatch.setattr(engines, "generate", counting)
    rows = rows_of(config)

    def changed():
        write_rows(config, rows)
        asked.clear()
        return predictions(config)

    rows[1]["answers"], rows[2]["kind"] = ["red"], "shade"
    second = [p for p in changed() if p.model == "tuned"]
    assert [(p.id, p.outcome, p.kind) for p in second] == [
        ("a", "correct", "colour"),
        ("b", "correct", "colour"),
        ("c", "wrong", "shade"),
    ]
    assert asked == []
    rows[1]["question"] = "Which colour?"
    assert {p.question for p in changed() if p.id == "b"} == {"Which colour?"}
    assert asked == [["b"]] * 2
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(config.in_domain[0] / "black.png")
    changed()
    assert asked == [["a", "b", "c"]] * 2
    del rows[0]
    assert [p.id for p in changed()] == ["b", "c"] * 2
    assert asked == []


def test_a_killed_evaluation_goes_on(config, monkeypatch):
    """The order of the predictions is that of the dataset, whatever was asked first."""
    before = predictions(config)
    file = config.out / "answers" / "tuned" / "colours.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[2] + lines[0] + lines[1][:20])
    generate = engines.generate

    def only_b(checkpoint, examples, *rest, **options):
        assert [example.id for example in examples] == ["b"]
        return generate(checkpoint, examples, *rest, **options)

    monkeypatch.setattr(engines, "generate", only_b)
    assert predictions(config) == before


def test_a_question_that_was_set_aside_while_sampling_is_left_out(config, monkeypatch):
    store, _ = module.ask_samples()
    monkeypatch.setattr(module, "ask_samples", lambda *_: (store[1:], False))
    assert [p.id for p in predictions(config)] == ["b", "c"] * 2


def test_two_datasets_of_one_name_are_refused(config, tmp_path):
    same = shutil.copytree(tmp_path / "colours", tmp_path / "other" / "colours")
    with pytest.raises(InbolError, match="two datasets are called colours"):
        predictions(dataclasses.replace(config, out_of_domain=(same,)))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"models": (("base", TINY), ("b", Path("gone")))}, "gone is not a checkpoint folder"),
        ({"out_of_domain": (Path("gone"),)}, "gone is not there: give a folder that holds"),
    ],
)
def test_what_is_missing_is_found_before_anything_is_sampled(config, monkeypatch, option, message):
    monkeypatch.setattr(module, "prompts_for", asking.prompts_for)
    monkeypatch.setattr(module, "ask_samples", lambda *_: pytest.fail("sampled first"))
    with pytest.raises(InbolError, match=message):
        predictions(dataclasses.replace(config, **option))


@pytest.mark.usefixtures("unreadable_weights")
def test_models_that_cannot_be_asked_are_found_before_anything_is_sampled(
    config, untold, monkeypatch
):
    """One without a chat template to go by, and refusals whose words the model does not know."""
    monkeypatch.setattr(module, "prompts_for", asking.prompts_for)
    monkeypatch.setattr(module, "ask_samples", lambda *_: pytest.fail("sampled first"))
    models = (("base", TINY), ("b", untold))
    with pytest.raises(InbolError, match="its chat template writes the question 0 times"):
        predictions(dataclasses.replace(config, models=models))
    folder = shutil.copytree(config.in_domain[0], untold.parent / "validation")
    options = {"models": models[:1], "validation": (folder,), "templates": "long"}
    with pytest.raises(InbolError, match="begins a refusal and an answer with the same token"):
        predictions(dataclasses.replace(config, **options))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../../model", "a\\b", "a\x1b[2J", "é" * 51]
)
def test_a_model_is_not_called_what_a_file_cannot_be(name):
    with pytest.raises(InbolError, match=r"--models .* files are called by it") as error:
        EvaluateConfig((Path("a"),), Path("b"), models=((name, TINY),))
    assert printable(str(error.value)) == str(error.value)


URL = EndpointConfig("http://127.0.0.1:1/v1")
NAMED = EndpointConfig("http://127.0.0.1:1/v1", "m")
X, Y, VALIDATION = Path("x"), Path("y"), {"validation": (Path("v"),)}
SERVED = (("a", Path("endpoint:m")),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_domain": ()}, "--in-domain needs at least one"),
        ({"batch_size": 0}, "--batch-size 0: at least 1 "),
        ({"models": ()}, "--models needs at least one"),
        ({"models": (("a", X), ("a", Y))}, "--models: two models have the same"),
        ({"templates": "long"}, "--templates says where thresholds lie: give --validation"),
        ({"templates": "no"} | VALIDATION, "--templates 'no': choose one of one"),
        ({"models": (("oracle", X),)}, "--models oracle: a baseline has this name"),
        (
            {"models": (("a", X), ("a_calibrated", Y))} | VALIDATION,
            "--models a_calibrated: a baseline has this name",
        ),
        (
            {"models": (("a", X), ("a_likelihood", Y))},
            "--models a_likelihood: a baseline has this name",
        ),
        ({"endpoint": URL}, "--endpoint: give endpoint:NAME in --models in place of a folder"),
        ({"models": SERVED}, "--models endpoint:m: give --endpoint, the URL"),
        ({"models": (("a", Path("endpoint:")),), "endpoint": URL}, "the name of the endpoint's"),
        ({"models": SERVED, "endpoint": NAMED}, "and no --endpoint-model"),
        (
            {"models": SERVED, "endpoint": URL, "distributed": True},
            "--distributed: an endpoint is asked by one process",
        ),
        (
            {"models": SERVED, "endpoint": URL} | VALIDATION,
            "--validation: what a answers if it may not refuse",
        ),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InbolError, match=message):
        EvaluateConfig(**({"in_domain": (Path("a"),), "out": Path("b")} | options))


@pytest.fixture
def served(config, serve, monkeypatch):
    """`served(...)` is the same with a server of `small`, which knows "blue", and of `large`."""
    monkeypatch.setattr(module, "prompts_for", lambda *_: pytest.fail("of an endpoint"))
    monkeypatch.setattr(module, "load_pretrained", lambda *_, **__: pytest.fail("of an endpoint"))
    server = serve(lambda body, n: said("blue" if body["model"] == "small" else "I don't know."))
    endpoint = EndpointConfig(server.url)

    def make(*models, **options):
        models = tuple((name, Path(place)) for name, place in models)
        return dataclasses.replace(config, models=models, endpoint=endpoint, **options)

    make.server = server
    return make


def test_models_of_an_endpoint_are_compared(served):
    """Several, the base among them; nothing is asked twice, and greedily."""
    config = served(("base", "endpoint:small"), ("more", "endpoint:large"))
    metrics = evaluate(config)
    predicted = read_predictions(config.out / "predictions.jsonl")
    outcomes = [(p.model, p.id, p.outcome) for p in predicted]
    assert outcomes == [
        ("base", "a", "wrong"),
        ("base", "b", "correct"),
        ("base", "c", "wrong"),
        *(("more", id, "refused") for id in "abc"),
    ]
    assert list(metrics.models) == ["base", "more", "always_refuse", "oracle"]
    bodies = [body for _, _, body in served.server.asked]
    assert {(body["temperature"], body["max_tokens"], body.get("n")) for body in bodies} == {
        (0.0, NEW_TOKENS, None)
    }
    before = len(bodies)
    assert predictions(config) == predicted
    assert len(served.server.asked) == before


def test_a_model_of_an_endpoint_beside_a_checkpoint(served, config, monkeypatch):
    monkeypatch.setattr(module, "prompts_for", bare)
    monkeypatch.setattr(module, "load_pretrained", load_pretrained)
    predicted = predictions(served(("base", "folder"), ("served", "endpoint:small")))
    assert [p.prediction for p in predicted] == ["red"] * 3 + ["blue"] * 3


def test_the_base_of_an_endpoint_is_sampled_there(served, monkeypatch):
    sampled, (store, _) = [], module.ask_samples()

    def ask_samples(options, *_):
        sampled.append(options)
        return store, False

    monkeypatch.setattr(module, "ask_samples", ask_samples)
    predictions(served(("base", "endpoint:small"), n=4, temperature=0.5))
    (options,) = sampled
    assert (options.endpoint.endpoint_model, options.sampling.n) == ("small", 4)
    assert options.sampling.temperature == 0.5
    assert options.endpoint.endpoint == served.server.url


def test_a_question_without_an_answer_is_left_out_for_all_models(served, monkeypatch, capsys):
    monkeypatch.setattr(asking, "MAX_UNANSWERED", 0.5)
    reply, failing = served.server.reply, ["b"]

    def failed(body, n):
        bad = body["model"] == "large" and n == 3
        return (500, {}, {}) if bad and failing else reply(body, n)

    served.server.reply = failed
    config = served(("base", "endpoint:small"), ("more", "endpoint:large"))
    config = dataclasses.replace(
        config,
        endpoint=dataclasses.replace(config.endpoint, endpoint_retries=0, endpoint_concurrency=1),
    )
    # The first model's requests are 0 to 2.
    assert [p.id for p in predictions(config)] == ["b", "c"] * 2
    shown = capsys.readouterr().out
    assert "more on colours: 1 of 3 questions set aside (first: a: " in shown
    failing.clear()
    assert [p.id for p in predictions(config)] == ["a", "b", "c"] * 2
    failing.append("b")
    monkeypatch.setattr(asking, "MAX_UNANSWERED", 0.1)
    shutil.rmtree(config.out)
    served.server.asked.clear()
    message = r"1 of 3 questions set aside \(first: a: .*status 500.*more than 0.1.* asks for"
    with pytest.raises(InbolError, match=message):
        predictions(config)


@pytest.fixture
def validated(config, monkeypatch, tmp_path):
    """The same, with the three questions once more as validation. The models answer "blue" if they
    may not refuse, and both say "I don't know." to question c."""
    folder = shutil.copytree(config.in_domain[0], tmp_path / "validation")

    def answer_and_force(checkpoint, examples, images, *, refusals, **options):
        assert refusals == SHORT_REFUSALS[:1]
        for example in examples:
            refuses = example.id == "c"
            said = Generation("I don't know." if refuses else "blue", -1.0, 2)
            forced = Generation("blue", -0.123456, 2)
            margin = 1.0 if refuses else -2.0
            yield [(example, ForcedAnswer(said, forced, margin + 0.5, margin))]

    monkeypatch.setattr(asking, "answer_and_force", answer_and_force)
    return dataclasses.replace(config, validation=(folder,))


def test_validation_keeps_both_answers_and_adds_baselines(validated, monkeypatch):
    sampled, (store, _) = [], module.ask_samples()

    def ask_samples(options, *_):
        sampled.append(options)
        return store, False

    monkeypatch.setattr(module, "ask_samples", ask_samples)
    metrics = evaluate(validated)
    asked = [(s.data.parent.name, s.p_true) for s in sampled]
    assert asked == [("colours", True), ("validation", True)]
    predicted = read_predictions(validated.out / "predictions.jsonl")
    assert [p.domain for p in predicted] == (["in_domain"] * 3 + ["validation"] * 3) * 2
    first, second = predicted[:2]
    assert (first.prediction, first.outcome) == ("blue", "wrong")
    assert second.forced == Forced("blue", "correct", -0.12346, -1.5, -2.0)
    assert (second.consistency, second.p_true) == (1.0, 0.0)  # "red" twice, P(True) not asked
    baselines = {*BASELINES} - {"base_threshold_probe"}  # nobody gave one
    assert set(metrics.models) >= {"base", "tuned", "tuned_calibrated", *baselines}
    assert metrics.models["tuned_calibrated"]["in_domain"]["all"].t == pytest.approx(1 / 3)
    assert (validated.out / "figures" / "tradeoff.png").is_file()


def test_validation_questions_that_are_test_questions_are_said(validated, capsys):
    file = validated.validation[0] / "data.jsonl"
    file.write_text(file.read_text().replace("What colour?", "Which colour?", 1))
    predictions(validated)
    said = "Warning: 1 of 2 questions of --validation are test questions too"
    assert said in capsys.readouterr().out


def test_the_base_that_may_refuse_is_a_baseline(validated, monkeypatch):
    """It is asked with a sentence more, judged by the question, and compared as it is."""
    asked = []

    def generate(checkpoint, examples, images, **options):
        for example in examples:
            asked.append(checkpoint.prompt.text(example).splitlines()[0])
            yield [
                (example, [Generation("I don't know." if example.id == "b" else "red", -1.0, 2)])
            ]

    monkeypatch.setattr(engines, "generate", generate)
    metrics = evaluate(dataclasses.replace(validated, prompted=True))
    assert asked == ['What colour? If you do not know the answer, say "I don\'t know".'] * 6
    said = [p for p in read_predictions(validated.out / "predictions.jsonl") if p.model == PROMPTED]
    assert [p.outcome for p in said] == ["correct", "refused", "wrong"] * 2
    assert {p.question for p in said} == {"What colour?"}
    assert metrics.models[PROMPTED]["in_domain"]["all"].t == 0
    assert metrics.asked == ["base", "tuned"]
    assert PROMPTED not in metrics.curves
    # It answers "a" and "c", and refuses "b": a wrong answer to "c" costs the price.
    at = metrics.prices[PROMPTED]["in_domain"]
    assert at["1"].value == pytest.approx(max(0, 1 / 3))
    assert PROMPTED in (validated.out / "report.html").read_text()
    monkeypatch.setattr(engines, "generate", lambda *_, **__: pytest.fail("asked again"))
    assert evaluate(dataclasses.replace(validated, prompted=True)).models == metrics.models


def test_both_answers_resume_and_follow_the_dataset(validated, monkeypatch):
    before = predictions(validated)
    monkeypatch.setattr(asking, "answer_and_force", lambda *_, **__: pytest.fail("asked again"))
    assert predictions(validated) == before
    rows = rows_of(validated)
    rows[0]["answers"] = ["blue"]
    write_rows(validated, rows)
    after = predictions(validated)
    assert (before[0].outcome, before[0].forced.outcome) == ("wrong", "wrong")
    assert (after[0].outcome, after[0].forced.outcome) == ("correct", "correct")


def test_answers_without_the_other_ones_are_asked_for_again(config, validated):
    assert {p.forced for p in predictions(config)} == {None}
    assert all(p.forced for p in predictions(validated))
    old = [p for p in predictions(config) if p.domain == "in_domain"]
    with pytest.raises(InbolError, match="made without it; give `inbol evaluate` again"):
        report(validated, old, validated.out, {})


def test_columns_of_the_dataset_are_not_taken_for_answers(config):
    own = {"forced": "yes", "consistency": "x", "p_true": None, "probe": "y"}
    write_rows(config, [row | own for row in rows_of(config)])
    assert {(p.forced, p.consistency, p.p_true) for p in predictions(config)} == {(None,) * 3}
    assert predictions(config)


def test_a_base_that_answers_as_it_would_refuse_stops_before_the_next_is_asked(
    validated, monkeypatch
):
    asked = []

    def answer_and_force(checkpoint, examples, images, **options):
        asked.append(options["label"])
        for example in examples:
            said = Generation("I see red.", -1.0, 2)  # and "I don't know." begins so as well
            forced = Generation("red", -1.0, 2)
            yield [(example, ForcedAnswer(said, forced, 1.0, 1.0))]

    monkeypatch.setattr(asking, "answer_and_force", answer_and_force)
    with pytest.raises(InbolError, match=r"^base: 6 of 6 answers begin with a refusal token"):
        predictions(validated)
    assert asked == ["base on colours", "base on validation"]


@pytest.mark.slow
def test_a_real_model_is_compared_with_what_its_own_samples_say(small_world, micro, tmp_path):
    """The base's self-consistency and P(True) are those of its store; nothing is asked twice."""
    config = EvaluateConfig(
        in_domain=(small_world / "test",),
        validation=(small_world / "train",),
        out=tmp_path,
        models=(("base", micro.path), ("same", micro.path)),
        n=4,
        max_new_tokens=4,
    )
    metrics = evaluate(config)
    predicted = read_predictions(tmp_path / "predictions.jsonl")
    assert len(predicted) == 2 * (60 + 60)
    said, p_true = (
        {row["id"]: row for row in read_jsonl(tmp_path / "samples" / name)}
        for name in ("test.jsonl", "p_true/test.jsonl")
    )
    examples = {e.id: e for e in vqa.load_dataset_folder(small_world / "test").examples}
    for p in (p for p in predicted if p.dataset == "test"):
        question = judged(examples[p.id], from_row(said[p.id], config.n))
        assert p.consistency == self_consistency(question).value
        assert p.p_true == (p_true[p.id]["p_true"] if p.id in p_true else 0.0)
    base, same = ([p for p in predicted if p.model == name] for name in ("base", "same"))
    assert [replace(p, model="base") for p in same] == base
    assert metrics.curves["base"] == {
        domain: dataclasses.replace(curve, aurc_change=None)
        for domain, curve in metrics.curves["same"].items()
    }
    before = {file: file.read_bytes() for file in (tmp_path / "answers").rglob("*.jsonl")}
    assert evaluate(config).models == metrics.models
    assert {file: file.read_bytes() for file in before} == before
