"""`inbol confidence` with the model of an endpoint in place of a checkpoint."""

import os
import re
import signal
import threading

import jax
import pytest
from command_lines import fails
from endpoint_server import KEY, asked, said

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta
from inbol_jax.cli import main
from inbol_jax.confidence.samples import Samples
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.responses import endpoint
from inbol_jax.responses.chat import read_choices
from inbol_jax.responses.outcome import outcome

ANSWERS = ("red", "I don't know.", f"The key is {KEY}.", "red", "blue")


def scripted(body, n):
    """Answers that follow from question, image and seed; with log-probabilities if asked for."""
    text, image = asked(body)
    about = len(text) + sum(image or b"")
    seeds = [about + body.get("seed", 0) + i for i in range(body.get("n", 1))]
    return said(*(ANSWERS[seed % 5] for seed in seeds), scored=body.get("logprobs"))


@pytest.fixture
def no_device(monkeypatch):
    """Who asks JAX for a device fails: the endpoint's server may use all there are."""
    for name in ("devices", "local_devices", "process_index", "process_count"):
        monkeypatch.setattr(jax, name, lambda *_, **__: pytest.fail("a device was asked for"))


@pytest.fixture
def words(small_world, tmp_path):
    """`words(server, ...)` are the words of a run over 60 questions."""

    def make(server, *options, model="org/model-1", n=5):
        about = ["--data", small_world / "test", "--out", tmp_path / "out", "--n", n]
        endpoint = ["--endpoint", server.url, "--endpoint-model", model]
        return ["confidence", *map(str, [*about, *endpoint, *options])]

    return make


@pytest.mark.usefixtures("no_device")
def test_the_store_holds_what_the_model_said(serve, words, small_world, tmp_path, capsys):
    server = serve(scripted)
    assert main(words(server)) == 0
    file = tmp_path / "out/confidence/test.jsonl"
    found = {q.example.id: q for q in Samples.open(file)}
    dataset = load_dataset_folder(small_world / "test")
    assert list(found) == [example.id for example in dataset.examples]
    spoken = {}
    for _, _, body in server.asked:
        text, _ = asked(body)
        spoken.setdefault(text.splitlines()[0], []).append(scripted(body, 0)[1]["choices"])
    for example in dataset.examples:
        question = found[example.id]
        assert question.example == example
        given = sorted((sample.text, sample.logprob) for sample in question.samples)
        assert given in [
            sorted(
                (c["message"]["content"].replace(KEY, "***"), -0.5 * len(c["logprobs"]["content"]))
                for c in choices
            )
            for choices in spoken[example.question]
        ]
        assert all(s.outcome == outcome(example, s.text) for s in question.samples)
    header = read_meta(file)
    settings = header["settings"]
    assert (settings["model"], header["rows"], settings["n"]) == ("endpoint:org/model-1", 60, 5)
    everything = "".join(f.read_text() for f in file.parent.rglob("*") if f.is_file())
    shown = capsys.readouterr()
    assert "***" in everything
    assert "secret" not in everything + shown.out + shown.err
    assert "127.0.0.1" not in everything
    assert "60 questions x 5 samples, mean confidence 0." in shown.out


def test_a_run_that_was_cut_goes_on_at_another_address(serve, words, tmp_path, capsys):
    whole, file = serve(scripted), tmp_path / "out/confidence/test.jsonl"
    assert main(words(whole)) == 0
    expected = file.read_bytes()
    file.unlink()
    meta_path(file).unlink()

    def stopped(body, n):
        if n == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return scripted(body, n)

    assert main(words(serve(stopped))) == 143
    kept = file.read_bytes()
    lines = kept.splitlines(keepends=True)
    assert 10 <= len(lines) < 60
    file.write_bytes(kept[:-10])  # a killed run leaves half a line
    other = serve(scripted)
    assert main(words(other, "--endpoint-concurrency", 1)) == 0
    assert file.read_bytes() == expected
    assert len(other.asked) == 60 - (len(lines) - 1)
    # What is there needs no endpoint; another model or other options are refused.
    other.shutdown()
    other.server_close()
    assert main(words(other)) == 0
    assert "and now --model endpoint:m" in fails(capsys, main, *words(other, model="m"))
    for option, value in (("--temperature", 0.5), ("--top-p", 0.5), ("--seed", 1)):
        error = fails(capsys, main, *words(other, option, value))
        assert f", and now {option} {value}: choose" in error
    assert file.read_bytes() == expected


def test_a_signal_keeps_what_came_behind_a_question_that_hangs(
    serve, words, small_world, tmp_path, monkeypatch
):
    monkeypatch.setattr(endpoint, "LAST_WAIT", 2)
    examples = load_dataset_folder(small_world / "test").examples
    first, file = examples[0].question, tmp_path / "out/confidence/test.jsonl"
    begun, received, released = [], [], threading.Event()

    def hanging(body, n):
        text, image = asked(body)
        if image:  # otherwise it is tried what the server takes
            question = text.splitlines()[0]  # behind it stands how to answer
            begun.append(question)
            if question == first and begun.count(first) == 1:
                released.wait()
        return scripted(body, n)

    def read(reply):
        if begun:
            received.append(reply)
            if len(received) == 8:
                os.kill(os.getpid(), signal.SIGTERM)
        return read_choices(reply)

    monkeypatch.setattr(endpoint, "read_choices", read)
    assert main(words(serve(hanging))) == 143
    released.set()
    kept = [row["id"] for row in read_jsonl(file)]
    assert kept == [example.id for example in examples[1:9]]
    assert main(words(serve(scripted))) == 0
    assert [row["id"] for row in read_jsonl(file)][:9] == [*kept, examples[0].id]


def test_an_endpoint_that_fails_too_often_is_left(serve, words, tmp_path, capsys):
    """Single failures are set aside and asked for again; more than a tenth ends the run."""

    def faulty(every):
        def reply(body, n):
            bad = asked(body)[1] and n % every == 0
            return (400, {"error": {"message": KEY}}, {}) if bad else scripted(body, n)

        return reply

    error = fails(capsys, main, *words(serve(faulty(4))))
    assert re.search("15 of 60 questions set aside .*, more than --max-rejected 0.1 allows", error)
    assert main(words(serve(faulty(6)))) == 0
    shown = capsys.readouterr().out
    assert "3 of 60 questions set aside (first: " in shown
    assert "status 400: ***" in shown
    file = tmp_path / "out/confidence/test.jsonl"
    assert (read_meta(file)["rows"], read_meta(file)["set_aside"]) == (57, 3)
    assert main(words(serve(scripted))) == 0
    assert (read_meta(file)["rows"], read_meta(file)["set_aside"]) == (60, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "x"), "--model is of a checkpoint that is loaded here"),
        (("--p-true",), "--p-true is of a checkpoint"),
        (("--dtype", "bfloat16"), "--dtype is of a checkpoint"),
        (("--distributed",), "--distributed is of a checkpoint"),
        (("--endpoint-model", ""), "--endpoint-model '': is empty"),
        (("--endpoint", ""), "--endpoint '': is empty"),
    ],
)
def test_options_that_do_not_go_together(serve, words, tmp_path, capsys, options, message):
    server = serve(scripted)
    assert message in fails(capsys, main, *words(server, *options))
    assert server.asked == []
    assert list(tmp_path.rglob("*.jsonl")) == []
