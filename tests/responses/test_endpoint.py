import base64
import contextlib
import io
import threading

import pytest
from endpoint_server import KEY, said
from PIL import Image

from inbol_jax.artifacts import canonical_json
from inbol_jax.errors import InbolError
from inbol_jax.responses.chat import ChatQuestion
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.responses.endpoint import Endpoint

NOW = {"Retry-After-Ms": "1"}  # a wait that no test feels


def client(server, endpoint_retries=0, **options):
    config = {name: options.pop(name) for name in list(options) if name.startswith("endpoint")}
    config |= {"endpoint_retries": endpoint_retries}
    return Endpoint(EndpointConfig(server.url, "judge-1", **config), **options)


def ask(endpoint, question):
    (reply,) = replies(endpoint, [question])
    if isinstance(reply, InbolError):
        raise reply
    return reply


def numbers(n, taken=None):
    """Questions; those that were taken are noted."""
    for i in range(n):
        if taken is not None:
            taken.append(i)
        yield ChatQuestion(str(i))


def number(body):
    return int(body["messages"][0]["content"])


def replies(endpoint, questions):
    """What `map` yields of them, without the questions."""
    with contextlib.closing(endpoint.map(endpoint.ask, questions)) as batches:
        yield from (reply for batch in batches for _, reply in batch)


def test_a_question_and_its_answer(serve):
    server = serve(lambda body, n: said("  yes\n"))
    endpoint = client(server, max_tokens=8)
    assert ask(endpoint, ChatQuestion("Is it?", system="Be short.")) == "yes"
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "judge-1",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Is it?"},
        ],
        "temperature": 0.0,
        "max_tokens": 8,
    }


def test_an_image_travels_as_a_data_url_upright_and_without_metadata(serve, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "taken at home"
    Image.new("RGB", (60, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    server = serve(lambda body, n: said("red"))
    question = ChatQuestion("Which colour?", (tmp_path / "a.jpg",))
    assert ask(client(server), question) == "red"
    image, text = server.asked[0][2]["messages"][0]["content"]
    assert text == {"type": "text", "text": "Which colour?"}
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    data = base64.b64decode(data)
    assert b"taken at home" not in data
    sent = Image.open(io.BytesIO(data))
    assert (sent.size, sent.getpixel((5, 15))) == ((20, 60), (254, 0, 0))
    with pytest.raises(InbolError, match=r"none\.jpg"):
        ask(client(server), ChatQuestion("?", (tmp_path / "none.jpg",)))


@pytest.mark.parametrize("failure", [(429, {}, NOW), (503, b"oops", NOW), (408, {}, NOW), None])
def test_what_may_pass_is_tried_again(serve, failure):
    server = serve(lambda body, n: said("yes") if n == 2 else failure)
    assert ask(client(server, 2), ChatQuestion("?")) == "yes"
    assert len(server.asked) == 3


def test_it_gives_up_after_the_retries(serve):
    server = serve(lambda body, n: (503, {"error": {"message": "model is loading"}}, NOW))
    with pytest.raises(InbolError, match=r"/v1: status 503: model is loading$"):
        ask(client(server, 2), ChatQuestion("?"))
    assert len(server.asked) == 3


@pytest.fixture
def hang():
    """A server that waits until the test has ended, and then hangs up."""
    ended = threading.Event()
    yield lambda body, n: ended.wait() and None
    ended.set()


def test_an_endpoint_that_says_nothing_times_out(serve, hang):
    with pytest.raises(InbolError, match="timed out; is the endpoint up"):
        ask(client(serve(hang), endpoint_timeout=0.05), ChatQuestion("?"))


def test_nobody_listens(serve):
    server = serve(lambda body, n: None)
    with pytest.raises(InbolError, match=r"disconnected.*; is the endpoint up"):
        ask(client(server), ChatQuestion("?"))
    server.shutdown()
    server.server_close()
    with pytest.raises(InbolError, match="; is the endpoint up"):
        ask(client(server), ChatQuestion("?"))


HALF_A_PAIR = b'{"choices": [{"message": {"content": "\\ud800"}}]}'
NO_COMPLETION = "not the answer of a chat-completions endpoint"
ECHO = {"error": {"message": f"Incorrect API key provided: {KEY}"}}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (401, ECHO, {}),
            r"status 401: Incorrect API key provided: \*\*\*.*environment variable OPENAI_API_KEY$",
        ),
        ((404, {"detail": "Not Found"}, {}), "status 404.*--endpoint-model"),
        ((400, {"message": "image too large"}, {}), "status 400: image too large$"),
        ((200, b"<html>", {}), NO_COMPLETION),
        ((200, f"<html>{KEY}".encode(), {}), NO_COMPLETION),
        ((200, b"[" * 100_000, {}), NO_COMPLETION),
        ((200, b'{"choices": [{"message": {"content": ' + b"9" * 5000, {}), NO_COMPLETION),
        ((200, HALF_A_PAIR, {}), NO_COMPLETION),
        ((200, {"choices": []}, {}), NO_COMPLETION),
        (said(None, finish_reason="length"), "the model said nothing .finish_reason 'length'"),
        (said(" \n"), "the model said nothing"),
        ((307, KEY.encode() * 50, {"Location": "http://127.0.0.1:9/elsewhere"}), "status 307"),
    ],
)
def test_what_does_not_pass_is_said_once_and_never_with_the_key(serve, reply, message):
    server = serve(lambda body, n: reply)
    asked = client(server)
    with pytest.raises(InbolError, match=message) as caught:
        ask(asked, ChatQuestion("?"))
    assert len(server.asked) == 1
    assert len(str(caught.value)) < 500
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(asked) + repr(asked.config) + canonical_json(asked.settings())


def test_an_answer_that_quotes_the_key_loses_it_and_a_placeholder_is_none(serve, monkeypatch):
    assert ask(client(serve(lambda body, n: said(f"I got {KEY}."))), ChatQuestion("?")) == (
        "I got ***."
    )
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert ask(client(serve(lambda body, n: said("It is EMPTY."))), ChatQuestion("?")) == (
        "It is EMPTY."
    )


def test_without_a_key_none_is_sent(serve, monkeypatch):
    server = serve(lambda body, n: said("yes") if n == 0 else (401, {}, {}))
    monkeypatch.setenv("OTHER", "abc")
    ask(client(server, endpoint_key="OTHER"), ChatQuestion("?"))
    with pytest.raises(InbolError, match="status 401"):
        ask(client(server), ChatQuestion("?"))
    assert [headers["Authorization"] for _, headers, _ in server.asked] == [
        "Bearer abc",
        f"Bearer {KEY}",
    ]
    with pytest.raises(InbolError, match="NONE, which is not set"):
        ask(client(server, endpoint_key="NONE"), ChatQuestion("?"))
    assert "Authorization" not in server.asked[-1][1]
    monkeypatch.setenv("OTHER", "abc\nX-Evil: 1")
    with pytest.raises(InbolError, match=r"OTHER: .* no API key") as caught:
        client(server, endpoint_key="OTHER")
    assert "Evil" not in str(caught.value)


def test_many_questions_in_order_with_bounded_concurrency(serve):
    """The first reply waits for the second request: two are in flight, and never four."""
    second = threading.Event()

    def reply(body, n):
        second.wait() if n == 0 else second.set()
        return (400, {}, {}) if number(body) % 10 == 7 else said(f"answer {number(body)}")

    server, taken = serve(reply), []
    results = replies(client(server, endpoint_concurrency=3), numbers(40, taken))
    assert next(results) == "answer 0"
    assert len(taken) < 10  # no more than are needed
    found = ["answer 0", *results]
    assert [i for i, r in enumerate(found) if isinstance(r, InbolError)] == [7, 17, 27, 37]
    answered = [i for i in range(40) if i % 10 != 7]
    assert [r for r in found if isinstance(r, str)] == [f"answer {i}" for i in answered]
    assert 2 <= server.most <= 3


def test_who_leaves_asks_no_more_and_does_not_wait_for_further_attempts(serve):
    """The second question would be asked again after a minute."""
    server = serve(lambda body, n: said("yes") if n == 0 else (429, {}, {"Retry-After": "60"}))
    asked = replies(client(server, 5, endpoint_concurrency=1), numbers(1000))
    assert next(asked) == "yes"
    asked.close()
    assert len(server.asked) <= 2


def test_many_failures_in_a_row_end_it(serve):
    server = serve(lambda body, n: (401, {}, {}))
    message = r"8 questions in a row failed, the last one with: .*status 401"
    with pytest.raises(InbolError, match=message):
        list(replies(client(server), numbers(1000)))
    assert len(server.asked) < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "localhost:8000"}, "a base URL is needed"),
        ({"endpoint": "file:///etc/passwd"}, "a base URL is needed"),
        ({"endpoint": "http://h:port/v1"}, "a base URL is needed"),
        ({"endpoint": "http://a b/v1"}, "a base URL is needed"),
        ({"endpoint": "https://user:pw@host/v1"}, "without user, password and query"),
        ({"endpoint": "https://host/v1?key=1"}, "without user, password and query"),
        ({"endpoint_model": "m"}, "--endpoint-model m: give --endpoint as well"),
        ({"endpoint": "http://[::1]:1/v1"}, "--endpoint-model: the name"),
        ({"endpoint_retries": -1}, "--endpoint-retries -1: at least 0"),
        ({"endpoint_concurrency": 0}, "--endpoint-concurrency 0: at least 1"),
        ({"endpoint_timeout": 0.0}, "--endpoint-timeout 0.0"),
        ({"endpoint_timeout": float("nan")}, "--endpoint-timeout nan"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(InbolError, match=message) as caught:
        Endpoint(EndpointConfig(**options))
    assert "pw" not in str(caught.value)
