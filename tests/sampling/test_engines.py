"""Models behind endpoints: what a request holds, what servers may lack, and what goes wrong."""

import base64
import io

import numpy as np
import pytest
from endpoint_server import asked, said
from PIL import Image

from inbol_jax.data.images import load_image
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
    """The requests, in the order of what they ask."""
    return sorted((body for _, _, body in server.asked), key=lambda body: asked(body)[0])


def answers(body, n):
    """A server that takes everything. Its answers say the question and the choice's own seed."""
    seeds = [body.get("seed", n) + i for i in range(body.get("n", 1))]
    return said(*(f"{asked(body)[0]} {seed}" for seed in seeds), scored=body.get("logprobs"))


def test_one_request_gives_all_answers_of_a_question(serve, questions, sample, capsys):
    server = serve(answers)
    options = SamplingOptions(n=3, temperature=0.7, top_p=0.9, max_new_tokens=8)
    given, rejected = sample(server, questions(2), options)
    bodies = bodies_of(server)
    fields = {k: v for k, v in bodies[0].items() if k not in ("messages", "seed")}
    assert fields == {
        "model": "m",
        "n": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 8,
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
    assert capsys.readouterr().out == ""  # nothing is doubtful
    assert sample(server, questions(2), options, seed=1)[0] != given
    assert sample(server, []) == ({}, [])


@pytest.mark.parametrize("most", [1, 7])
def test_fewer_answers_than_asked_for_are_made_up_for(serve, questions, sample, most):
    """transformers' server gives one, whatever n is; others give more than that."""
    expected = sample(serve(answers), questions(2))
    server = serve(lambda body, n: answers(body | {"n": most if "n" in body else 1}, n))
    assert sample(server, questions(2)) == expected
    assert len(server.asked) == 2 * -(-3 // most)


@pytest.mark.parametrize("without", [("n",), ("logprobs", "seed"), ("top_k", "min_p")])
def test_fields_that_a_server_does_not_know_are_left_out(serve, questions, sample, without):
    """The answers are the same where nothing else is asked for, each in a request of its own."""
    server = serve(answers)
    given, rejected = sample(server, questions(4), endpoint_without=without)
    assert rejected == []
    assert not any({*without} & body.keys() for body in bodies_of(server))
    assert len(server.asked) == (12 if "n" in without else 4)
    if without == ("n",):
        assert given == sample(serve(answers), questions(4))[0]
    scored = {g.logprob is not None for generations in given.values() for g in generations}
    assert scored == {"logprobs" not in without}


def test_a_server_whose_answers_to_a_request_are_all_the_same_is_doubted_once(
    serve, questions, sample, capsys
):
    server = serve(lambda body, n: said(*["red"] * body.get("n", 1)))
    sample(server, questions(4))
    assert capsys.readouterr().out == ""
    sample(server, questions(12))
    assert capsys.readouterr().out.count("m gave the same answer 3 times to each of 5") == 1


def test_thoughts_that_a_server_leaves_in_its_answers_are_cut(serve, questions, sample):
    """And log-probabilities that it does not give are not made up."""
    replies = ["It is red.", "<think>Hm.</think> red", "<think>It may"]
    server = serve(lambda body, n: said(*replies))
    given, _ = sample(server, questions(1), SamplingOptions(n=3))
    assert [g.text for g in given["q0"]] == ["It is red.", "red", ""]
    assert {(g.logprob, g.tokens) for g in given["q0"]} == {(None, None)}


def test_a_truncation_that_the_user_wants_is_sent_and_never_left_out(serve, questions, sample):
    server, options = serve(answers), SamplingOptions(n=1, top_k=5)
    sample(server, questions(1), options, endpoint_without=("top_k",))
    assert {body["top_k"] for _, _, body in server.asked} == {5}


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
        ((500, b"oops", {}), "status 500"),
        ((400, {"message": "no"}, {}), "status 400"),
        ((200, b"{", {}), "not the answer"),
        (said(5), "not the answer"),
        (said("re", finish_reason="content_filter"), "withheld (finish_reason 'content_filter')"),
        (None, "disconnected"),
    ]

    def reply(body, n):
        number = int(asked(body)[0].split()[-1].strip("?"))
        return bad[number][0] if number < 6 else answers(body, n)

    mixed = [e for pair in zip(questions(6), questions(12)[6:], strict=True) for e in pair]
    lost = [VQAExample(f"lost{i}", ("none.png",), "What?") for i in range(9)]
    given, rejected = sample(serve(reply), [*mixed, *lost])
    assert given.keys() == {f"q{i}" for i in range(6, 12)}
    causes = dict(rejected)
    assert causes.keys() == {f"q{i}" for i in range(6)} | {e.id for e in lost}
    for i, (_, cause) in enumerate(bad):
        assert cause in causes[f"q{i}"]
    assert all("none.png" in causes[e.id] for e in lost)
