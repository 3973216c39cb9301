"""Models behind endpoints: what a request holds, what servers may lack, and what goes wrong."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from endpoint_server import asked, said
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.prompts import BARE
from inbol_jax.records import VQAExample
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engines import EndpointEngine
from inbol_jax.sampling.generate import Generation

OPTIONS = SamplingOptions(n=3, max_new_tokens=8)


@pytest.fixture
def questions(tmp_path):
    """`questions(n)` are n questions about one image in `tmp_path`."""
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
    return lambda n: [VQAExample(f"q{i}", ("red.png",), f"What is {i}?") for i in range(n)]


@pytest.fixture
def sample(tmp_path):
    """`sample(server, examples)` is {id: texts}, and what was set aside."""

    def run(server, examples, options=OPTIONS, seed=0, **endpoint):
        config = EndpointConfig(server.url, "m", **{"endpoint_retries": 0} | endpoint)
        rejected = []
        batches = EndpointEngine(config, options, seed).generate(
            examples,
            tmp_path,
            prompt=BARE,
            label="sampling",
            set_aside=lambda example, reason: rejected.append((example.id, reason)),
        )
        given = {e.id: generations for batch in batches for e, generations in batch}
        return given, rejected

    return run


def bodies_of(server):
    """The requests about questions; those before them, which have no image, try what it takes."""
    return [body for _, _, body in server.asked if asked(body)[1] is not None]


def answers(body, n):
    """A server that takes everything. Its answers say the question and the choice's own seed."""
    seeds = [body.get("seed", n) + i for i in range(body.get("n", 1))]
    return said(*(f"{asked(body)[0]} {seed}" for seed in seeds), scored=body.get("logprobs"))


def without(*names):
    """A server that rejects these fields."""

    def reply(body, n):
        if unknown := [name for name in names if name in body]:
            return 400, {"error": {"message": f"unknown: {unknown[0]}"}}, {}
        return answers(body, n)

    return reply


def test_one_request_gives_all_answers_of_a_question(serve, questions, sample, capsys):
    server = serve(answers)
    options = SamplingOptions(n=3, temperature=0.7, top_p=0.9, max_new_tokens=8, stop=("\n", "."))
    given, rejected = sample(server, questions(2), options)
    bodies = bodies_of(server)
    assert len(bodies) == 2
    bodies.sort(key=lambda body: asked(body)[0])
    fields = {k: v for k, v in bodies[0].items() if k not in ("messages", "seed")}
    assert fields == {
        "model": "m",
        "n": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 8,
        "stop": ["\n", "."],
        "logprobs": True,
        "top_logprobs": 1,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert bodies[0]["seed"] != bodies[1]["seed"]
    for i, body in enumerate(bodies):
        assert [m["role"] for m in body["messages"]] == ["user"]
        texts = [f"What is {i}? {body['seed'] + k}" for k in range(3)]
        assert given[f"q{i}"] == [Generation(text, -2.5, 5) for text in texts]
    assert rejected == []
    assert capsys.readouterr().out == ""  # nothing is missing
    assert sample(server, questions(2), options, seed=1)[0] != given


def test_who_lacks_several_answers_per_request_is_asked_as_often(serve, questions, sample, capsys):
    """The same answers come, whether n is rejected (400, 500, or if it is more than the server's
    slots, as by llama.cpp), or takes one seed for all answers (SGLang and sglang-jax if they sample
    deterministically)."""
    options = dataclasses.replace(OPTIONS, n=4)
    expected = sample(serve(answers), questions(3), options)

    def same(body, n):
        _, reply, _ = answers(body | {"n": 1}, n)
        other = answers(body | {"n": 1, "seed": 1}, n)[1]["choices"]
        return 200, {"choices": reply["choices"] * (body["n"] - 1) + other}, {}

    servers = [
        without("n"),
        lambda body, n: (500, {}, {}) if "n" in body else answers(body, n),
        lambda body, n: (400, {}, {}) if body.get("n", 1) > 2 else answers(body, n),
        lambda body, n: same(body, n) if "n" in body else answers(body, n),
    ]
    for reply in servers:
        server = serve(reply)
        capsys.readouterr()
        assert sample(server, questions(3), options) == expected
        shown = capsys.readouterr().out
        assert "m: the endpoint has no different answers to one request" in shown
        bodies = bodies_of(server)
        assert len(bodies) == 12
        assert all("n" not in body for body in bodies)


@pytest.mark.parametrize("most", [1, 7])
def test_fewer_answers_than_asked_for_are_made_up_for(serve, questions, sample, most):
    """transformers' server gives one, whatever n is; others give more than that."""
    expected = sample(serve(answers), questions(2))
    server = serve(lambda body, n: answers(body | {"n": most if "n" in body else 1}, n))
    assert sample(server, questions(2)) == expected
    assert len(bodies_of(server)) == 2 * -(-3 // most)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["seed"], "no seed, so another run samples other answers"),
        (["logprobs"], "no log-probabilities, so the estimator likelihood cannot be used"),
        (["top_k", "min_p"], "no top_k, so its own default holds; no min_p"),
        (["n", "seed", "logprobs", "top_k", "min_p", "repetition_penalty"], "no seed, so"),
    ],
)
def test_what_a_server_rejects_is_left_out_and_said(serve, questions, sample, capsys, names, said):
    server = serve(without(*names))
    given, rejected = sample(server, questions(4))
    assert rejected == []
    assert {len(generations) for generations in given.values()} == {3}
    assert f"the endpoint has {said}" in capsys.readouterr().out
    bodies = bodies_of(server)
    assert len(bodies) == 4 * (3 if "n" in names else 1)
    kept = {"n", "seed", "logprobs", "top_k", "min_p", "repetition_penalty"} - {*names}
    assert all(kept <= body.keys() for body in bodies)
    scored = {g.logprob is not None for generations in given.values() for g in generations}
    assert scored == {"logprobs" not in names}


def test_stop_strings_and_thoughts_that_a_server_leaves_in_its_answers_are_cut(
    serve, questions, sample
):
    """And log-probabilities that it does not give are not made up."""
    replies = ["It is red. Or", "<think>Hm.</think> red", "<think>It may"]
    server = serve(lambda body, n: said(*replies))
    given, _ = sample(server, questions(1), SamplingOptions(n=3, stop=(".", "\n")))
    assert [g.text for g in given["q0"]] == ["It is red", "red", ""]
    assert {(g.logprob, g.tokens) for g in given["q0"]} == {(None, None)}


def test_a_truncation_that_the_user_wants_is_sent_and_never_left_out(serve, questions, sample):
    options = SamplingOptions(n=1, top_k=5, min_p=0.1)
    server = serve(answers)
    sample(server, questions(1), options)
    assert {(body["top_k"], body["min_p"]) for _, _, body in server.asked} == {(5, 0.1)}
    with pytest.raises(InbolError, match="unknown: top_k"):
        sample(serve(without("top_k")), questions(1), options)


def test_images_arrive_in_their_order_with_the_pixels_of_the_file(serve, sample, tmp_path):
    """Upright, without transparency and without metadata, whatever their size."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (40, 1500, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "taken at home"
    noise.save(tmp_path / "0.jpg", exif=exif)
    noise.convert("RGBA").save(tmp_path / "1.png")
    noise.convert("P").save(tmp_path / "2.gif")
    names = ("2.gif", "0.jpg", "1.png", "1.png")
    server = serve(lambda body, n: said("It is."))
    sample(server, [VQAExample("all", names, "Which?"), VQAExample("none", (), "Why?")])
    contents = [body["messages"][0]["content"] for _, _, body in server.asked]
    assert "Why?" in contents
    *images, question = next(content for content in contents if not isinstance(content, str))
    assert question["text"] == "Which?"
    for name, part in zip(names, images, strict=True):
        kind, _, data = part["image_url"]["url"].partition("base64,")
        assert kind == "data:image/png;"
        data = base64.b64decode(data)
        assert b"taken at home" not in data
        sent, read = Image.open(io.BytesIO(data)), load_image(tmp_path / name)
        assert (sent.mode, sent.size, sent.tobytes()) == (read.mode, read.size, read.tobytes())


def test_questions_that_fail_are_set_aside_and_the_others_sampled(serve, questions, sample):
    """Errors, malformed replies and images that are none, one each."""
    bad = [
        (500, b"oops", {}),
        (429, {}, {}),
        (400, {"message": "no"}, {}),
        (200, b"{", {}),
        (200, {"choices": []}, {}),
        said(5),
        said("re", finish_reason="content_filter"),
        None,
    ]

    def reply(body, n):
        number = int("".join(filter(str.isdigit, asked(body)[0])) or 99)
        return bad[number] if number < 8 else answers(body, n)

    server = serve(reply)
    good = questions(16)[8:]
    examples = [e for pair in zip(questions(8), good, strict=True) for e in pair]
    lost = [VQAExample(f"lost{i}", ("none.png",), "What?") for i in range(9)]
    given, rejected = sample(server, [*examples, *lost])
    assert given.keys() == {e.id for e in good}
    causes = dict(rejected)
    assert causes.keys() == {f"q{i}" for i in range(8)} | {e.id for e in lost}
    expected = [f"status {code}" for code in (500, 429, 400)]
    expected += ["not the answer"] * 3 + ["withheld (finish_reason 'content_filter')"]
    for i, cause in enumerate([*expected, "disconnected"]):
        assert cause in causes[f"q{i}"], i
    assert all("none.png" in causes[e.id] for e in lost)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {}, {}), "status 401.*; the key is read from"),
        (
            (404, {"detail": "no m"}, {}),
            "status 404: .*no m.*; check --endpoint .* --endpoint-model",
        ),
        ((200, b"<html>", {}), "not the answer of a chat-completions endpoint"),
        (None, "is the endpoint up"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_found_at_once(
    serve, questions, sample, reply, message
):
    server = serve(lambda body, n: reply)
    with pytest.raises(InbolError, match=message):
        sample(server, questions(5))
    assert len(server.asked) == 1


def test_nothing_is_sent_without_questions(serve, sample):
    server = serve(answers)
    assert sample(server, []) == ({}, [])
    assert server.asked == []
