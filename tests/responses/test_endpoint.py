import base64
import contextlib
import io
import json
import socket
import threading
import time
import urllib.parse

import pytest
from endpoint_server import KEY, said
from PIL import Image

from inbol_jax.artifacts import canonical_json
from inbol_jax.errors import InbolError
from inbol_jax.responses import chat
from inbol_jax.responses import endpoint as module
from inbol_jax.responses.chat import ChatQuestion
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.responses.endpoint import Endpoint


def client(server, waits=None, **options):
    config = {name: options.pop(name) for name in list(options) if name.startswith("endpoint")}
    return Endpoint(
        EndpointConfig(server.url, "judge-1", **config),
        sleep=(waits if waits is not None else []).append,
        **options,
    )


def numbers(n, taken=None):
    """Questions; those that were taken are noted."""
    for i in range(n):
        if taken is not None:
            taken.append(i)
        yield ChatQuestion(str(i))


def replies(endpoint, questions):
    """What `map` yields of them, without the questions."""
    with contextlib.closing(endpoint.map(endpoint.ask, questions)) as batches:
        yield from (reply for batch in batches for _, reply in batch)


def test_a_question_and_its_answer(serve):
    server = serve(lambda body, n: said("  yes\n"))
    assert client(server, max_tokens=8).ask(ChatQuestion("Is it?", system="Be short.")) == "yes"
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


def test_an_image_travels_as_a_data_uri_scaled_down_and_without_metadata(
    serve, tmp_path, monkeypatch
):
    monkeypatch.setattr(chat, "MAX_SIDE", 30)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "taken at home"
    Image.new("RGB", (60, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    server = serve(lambda body, n: said("red"))
    assert client(server).ask(ChatQuestion("Which colour?", (tmp_path / "a.jpg",))) == "red"
    image, text = server.asked[0][2]["messages"][0]["content"]
    assert text == {"type": "text", "text": "Which colour?"}
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    data = base64.b64decode(data)
    assert b"taken at home" not in data
    sent = Image.open(io.BytesIO(data))
    assert sent.size == (10, 30)  # upright
    assert sent.getpixel((5, 15))[0] > 240
    with pytest.raises(InbolError, match=r"none\.jpg"):
        client(server).ask(ChatQuestion("?", (tmp_path / "none.jpg",)))


@pytest.mark.parametrize(
    "failure", [(429, {}, {}), (500, b"oops", {}), (503, {}, {}), (408, {}, {}), None]
)
def test_what_may_pass_is_tried_again_with_growing_waits(serve, failure):
    server = serve(lambda body, n: said("yes") if n == 3 else failure)
    waits = []
    assert client(server, waits).ask(ChatQuestion("?")) == "yes"
    assert len(server.asked) == 4
    assert [0.5 * 2**i <= wait <= 0.75 * 2**i for i, wait in enumerate(waits)] == [True] * 3


def test_it_waits_as_long_as_the_endpoint_asks_for_within_limits(serve):
    after = ["7", "Wed, 21 Oct 2026 07:28:00 GMT", "86400"]
    server = serve(lambda body, n: said("yes") if n == 3 else (429, {}, {"Retry-After": after[n]}))
    waits = []
    client(server, waits).ask(ChatQuestion("?"))
    assert waits[0] == 7
    assert waits[1] < 2
    assert waits[2] == module.MAX_WAIT


def test_it_gives_up_after_the_retries(serve):
    server = serve(lambda body, n: (503, {"error": {"message": "model is loading"}}, {}))
    message = r"chat/completions: status 503: model is loading \(3 attempts\)"
    with pytest.raises(InbolError, match=message):
        client(server, endpoint_retries=2).ask(ChatQuestion("?"))
    assert len(server.asked) == 3


def test_a_slow_endpoint_times_out(serve):
    server = serve(lambda body, n: time.sleep(0.5) or said("late"))
    with pytest.raises(InbolError, match=r"timed out \(1 attempts\)"):
        client(server, endpoint_timeout=0.05, endpoint_retries=0).ask(ChatQuestion("?"))


def test_nobody_listens(serve):
    server = serve(lambda body, n: None)
    server.shutdown()
    server.server_close()
    with pytest.raises(InbolError, match=r"refused.*is the endpoint up"):
        client(server).ask(ChatQuestion("?"))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {}),
            r"status 401: Incorrect API key provided: \*\*\*; .*OPENAI_API_KEY$",
        ),
        ((404, {"detail": "Not Found"}, {}), "status 404.*--endpoint-model"),
        ((400, {"message": "image too large"}, {}), "status 400: image too large$"),
        ((200, b"<html>", {}), "not the answer of a chat-completions endpoint"),
        ((200, {"choices": []}, {}), "not the answer of a chat-completions endpoint"),
        ((200, ["choices"], {}), "not the answer of a chat-completions endpoint"),
        (said(None, finish_reason="length"), "the model said nothing .finish_reason 'length'"),
        (said(" \n"), "the model said nothing"),
        ((200, b"x" * (module.MAX_REPLY + 1), {}), "longer than 4 MiB"),
        ((302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}), "status 302"),
        ((307, KEY.encode() * 50, {"Location": "http://127.0.0.1:9/elsewhere"}), "status 307"),
    ],
)
def test_what_does_not_pass_is_said_once_and_never_with_the_key(serve, reply, message):
    server = serve(lambda body, n: reply)
    asked = client(server)
    with pytest.raises(InbolError, match=message) as caught:
        asked.ask(ChatQuestion("?"))
    assert len(server.asked) == 1
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(asked) + repr(asked.config) + canonical_json(asked.settings())


HEADER = f"Bearer {KEY}"
ECHOES = [
    KEY,
    f"Authorization: {HEADER}",
    "".join(f"\\u{ord(c):04X}" for c in KEY),
    "".join(f"\\\\u{ord(c):04x}" for c in KEY),
    "".join(f"%{ord(c):02X}" for c in KEY),
    "".join(f"%25{ord(c):02x}" for c in KEY),
    "".join(f"&#{ord(c)};" for c in KEY),
    KEY.replace("-", "%2d"),
    KEY.encode().hex().upper(),
    *(base64.b64encode(f"{user}{KEY}{end}".encode()).decode()
      for user in ("", "u:", "us:", "user:", "Bearer ") for end in ("", ":", "more")),
    base64.urlsafe_b64encode(HEADER.encode()).decode().replace("=", "%3D"),
]  # fmt: skip


def leaks(text):
    """Whether a text holds the key, or a long part of one of its spellings."""
    parts = {echo[i : i + 12] for echo in ECHOES for i in range(6, len(echo) - 12)}
    return any(part in text for part in parts if part not in "Authorization: Bearer ")


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("layout", ["answer", "error", "half", "page", "reason", "status"])
def test_a_reply_that_quotes_the_key_loses_it(serve, echo, layout):
    raw = b'{"choices": [{"message": {"content": "I got %s."}, "finish_reason": "stop"}]}'
    reply = {
        "answer": (200, raw % echo.encode(), {}),
        "error": (400, b'{"error": {"message": "no: %s"}}' % echo.encode(), {}),
        "half": (503, b" " * (module.MAX_REPLY - 8) + echo.encode(), {}),
        "page": (200, f"<html>{echo}".encode(), {}),
        "reason": said(None, finish_reason=echo),
        "status": (500, {}, {"X\r\n" + echo: "no header"}),
    }[layout]
    server = serve(lambda body, n: reply)
    try:
        text = client(server, endpoint_retries=0).ask(ChatQuestion("?"))
    except InbolError as error:
        text = str(error)
    assert not leaks(text), text
    if layout in ("answer", "error", "page", "reason"):
        assert "***" in text


def test_a_key_with_characters_that_are_escaped(serve, monkeypatch):
    key = 'k/+"e&=y\\_12'
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for form in (json.dumps, urllib.parse.quote_plus, lambda t: t.replace("/", "\\/")):
        server = serve(lambda body, n, form=form: said(f"<{form(form(key))}> /+_"))
        assert client(server).ask(ChatQuestion("?")).strip('<">\\ /+_') == "***"


def test_a_placeholder_is_no_secret(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    server = serve(lambda body, n: said("The glass is EMPTY."))
    assert client(server).ask(ChatQuestion("?")) == "The glass is EMPTY."


def test_looking_for_the_key_takes_no_time(serve):
    server = serve(lambda body, n: (200, b"\\" * (1 << 18), {}))
    start = time.monotonic()
    with pytest.raises(InbolError, match="not the answer"):
        client(server).ask(ChatQuestion("?"))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("drips", [b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\n\r\n", b""])
def test_an_endpoint_that_drips_ends_at_the_timeout(drips, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        with contextlib.suppress(OSError), listener, listener.accept()[0] as connection:
            for byte in drips + b"x" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

    thread = threading.Thread(target=drip)
    thread.start()
    url, start = f"http://127.0.0.1:{listener.getsockname()[1]}/v1", time.monotonic()
    config = EndpointConfig(url, "judge-1", endpoint_timeout=1, endpoint_retries=0)
    with pytest.raises(InbolError, match=r"timed out \(1 attempts\)"):
        Endpoint(config).ask(ChatQuestion("?"))
    assert time.monotonic() - start < 10
    thread.join()


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'"\\ud800"', b'"\\udfff and more"', b"NaN", b"9" * 5000, b'"\0"', b'"\xff'],
)
@pytest.mark.parametrize("status", [200, 400])
def test_hostile_json_in_a_reply_is_an_error_of_one_question(serve, content, status):
    name = b"error" if status == 400 else b"content"
    body = b'{"choices": [{"message": {"%s": %s}}]}' % (name, content)
    server = serve(lambda asked, n: (status, body, {}) if n == 0 else said("yes"))
    first, second = replies(client(server, endpoint_concurrency=1), [ChatQuestion("?")] * 2)
    assert second == "yes"
    assert len(str(first)) < 500
    str(first).encode()


def test_without_a_key_none_is_sent(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server = serve(lambda body, n: said("yes") if n == 0 else (401, {}, {}))
    client(server).ask(ChatQuestion("?"))
    assert "Authorization" not in server.asked[0][1]
    with pytest.raises(InbolError, match="OPENAI_API_KEY, which is not set"):
        client(server).ask(ChatQuestion("?"))
    monkeypatch.setenv("OTHER", "abc")
    with pytest.raises(InbolError, match="status 401"):
        client(server, endpoint_key="OTHER").ask(ChatQuestion("?"))
    assert server.asked[-1][1]["Authorization"] == "Bearer abc"
    monkeypatch.setenv("OTHER", "abc\nX-Evil: 1")
    with pytest.raises(InbolError, match=r"OTHER: .* no API key") as caught:
        client(server, endpoint_key="OTHER")
    assert "Evil" not in str(caught.value)


def test_an_unusable_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "gopher://user:secret@127.0.0.1:1")
    with pytest.raises(InbolError, match=r"ALL_PROXY.* cannot be used") as caught:
        Endpoint(EndpointConfig("http://127.0.0.1:9/v1", "judge-1"))
    assert "secret" not in str(caught.value)


def test_many_questions_in_order_with_bounded_concurrency(serve):
    def reply(body, n):
        number = int(body["messages"][0]["content"])
        time.sleep(0.002 * (number % 5))
        return (400, {"message": "no"}, {}) if number % 10 == 7 else said(f"answer {number}")

    server = serve(reply)
    taken = []
    results = replies(client(server, endpoint_concurrency=3), numbers(40, taken))
    assert next(results) == "answer 0"
    assert len(taken) < 10  # no more than are needed
    found = ["answer 0", *results]
    assert [i for i, r in enumerate(found) if isinstance(r, InbolError)] == [7, 17, 27, 37]
    answered = [i for i in range(40) if i % 10 != 7]
    assert [r for r in found if isinstance(r, str)] == [f"answer {i}" for i in answered]
    assert 2 <= server.most <= 3
    abandoned = replies(client(server, endpoint_concurrency=2), numbers(1000))
    next(abandoned)
    asked = len(server.asked)
    abandoned.close()
    assert len(server.asked) - asked < 10


def test_who_leaves_does_not_wait_for_further_attempts(serve):
    server = serve(lambda body, n: said("yes") if n == 0 else (429, {}, {"Retry-After": "50"}))
    endpoint = Endpoint(EndpointConfig(server.url, "judge-1", endpoint_concurrency=1))
    asked = replies(endpoint, numbers(9))
    assert next(asked) == "yes"
    start = time.monotonic()
    asked.close()
    assert time.monotonic() - start < 10


def test_many_failures_in_a_row_end_it(serve):
    server = serve(lambda body, n: (401, {}, {}))
    message = r"8 questions in a row failed, the last one with: .*status 401"
    with pytest.raises(InbolError, match=message):
        list(replies(client(server), numbers(1000)))
    assert len(server.asked) < 30


def test_what_came_behind_many_failures_is_kept(serve):
    """Seven fail at once; the eighth fails when the ninth has answered."""
    answered = threading.Event()

    def reply(body, n):
        number = int(body["messages"][0]["content"])
        if number == 8:
            answered.set()
            return said("yes")
        if number == 7:
            answered.wait(10)
        return 401, {}, {}

    endpoint, found = client(serve(reply), endpoint_concurrency=9), []
    with pytest.raises(InbolError, match="8 questions in a row failed"):
        found.extend(replies(endpoint, numbers(9)))
    assert [type(reply) for reply in found] == [InbolError] * 7 + [str]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EndpointConfig(), "--endpoint '': a base URL is needed"),
        (EndpointConfig("http://localhost:1/v1"), "--endpoint-model"),
    ],
)
def test_an_endpoint_needs_an_address_and_a_model(options, message):
    with pytest.raises(InbolError, match=message):
        Endpoint(options)
