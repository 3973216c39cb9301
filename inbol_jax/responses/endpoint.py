"""A client of any OpenAI-compatible chat-completions endpoint (OpenAI, vLLM, llama.cpp, ...): text and perhaps an image in, text out.

The API key comes from an environment variable alone. It is in no option, no fingerprint, no `repr` and no message, and it is sent to no
other host than the one named: redirects are not followed.
"""

import base64
import dataclasses
import http.client
import io
import json
import os
import random
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError

MAX_REPLY = 4 << 20  # bytes; a chat completion is a few thousand
MAX_WAIT = 60.0  # seconds between two attempts, whatever the endpoint asks for
FAILURES_IN_A_ROW = 8  # of `ask_many`: then the endpoint is at fault, not the requests


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """Which model to ask, and how. A field of a command's options; the names carry their prefix because the command line shows them flat.

    Attributes:
      endpoint: base URL of an OpenAI-compatible API, such as http://localhost:8000/v1; empty for none.
      endpoint_model: name of the model there.
      endpoint_key: name of the environment variable that holds the API key; where it is not set none is sent.
      endpoint_timeout: seconds to wait for an answer.
      endpoint_retries: further attempts after 408, 429, 5xx, a timeout or a lost connection, with growing waits between.
      endpoint_concurrency: requests in flight.
    """

    endpoint: str = ""
    endpoint_model: str = ""
    endpoint_key: str = "OPENAI_API_KEY"
    endpoint_timeout: float = 60.0
    endpoint_retries: int = 5
    endpoint_concurrency: int = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
      text: of the user's turn.
      image: file of an image that goes with it.
      system: system prompt; empty for none.
    """

    text: str
    image: Path | None = None
    system: str = ""


class Endpoint:
    """Asks one model. Safe to use from several threads.

    Args:
      config: where, and how patiently.
      temperature, max_tokens: of the answers; None leaves the field out of the request, which some models insist on.
      max_side: pixels; a larger image is scaled down before it is sent.
      sleep: waits that many seconds between attempts; the tests give one that does not.

    Raises:
      InbolError: for what is wrong with the options, before anything is sent.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        temperature: float | None = 0.0,
        max_tokens: int | None = 256,
        max_side: int = 1024,
        sleep: Callable[[float], object] | None = None,
    ):
        try:
            parts = urlsplit(config.endpoint)
            usable = (
                parts.scheme in ("http", "https")
                and parts.hostname
                and (parts.port or True)
                and " " not in config.endpoint
            )
        except ValueError:  # a port that is none, a bracket without its like
            usable = False
        if not usable:
            raise InbolError(
                f"--endpoint {config.endpoint!r}: a base URL is needed, such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InbolError(
                "--endpoint: no user, password or query in the URL; the key goes into the variable that --endpoint-key names"
            )
        if not config.endpoint_model:
            raise InbolError("--endpoint-model: the name of the endpoint's model is needed")
        for name, value, least in (
            ("retries", config.endpoint_retries, 0),
            ("concurrency", config.endpoint_concurrency, 1),
        ):
            if value < least:
                raise InbolError(f"--endpoint-{name} {value}: at least {least} is needed")
        if not config.endpoint_timeout > 0:
            raise InbolError(
                f"--endpoint-timeout {config.endpoint_timeout}: more than 0 seconds are needed"
            )
        self.config = config
        self._url = config.endpoint.rstrip("/") + "/chat/completions"
        self._key = os.environ.get(config.endpoint_key, "").strip()
        if not (
            self._key.isascii() and self._key.isprintable()
        ):  # http.client would quote it in its error
            raise InbolError(
                f"{config.endpoint_key}: what the environment variable holds is no API key: it has characters that no header may"
            )
        self._options = {
            k: v
            for k, v in (("temperature", temperature), ("max_tokens", max_tokens))
            if v is not None
        }
        self._max_side = max_side
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    def settings(self) -> dict[str, Any]:
        """What the answers depend on, for headers and fingerprints; the key is not among it."""
        return {
            "endpoint": self.config.endpoint,
            "model": self.config.endpoint_model,
            "max_side": self._max_side,
            **self._options,
        }

    def ask(self, question: Question) -> str:
        """The model's answer, without surrounding white space.

        Raises:
          InbolError: when the image cannot be read, the endpoint refuses, or it still fails after the retries.
        """
        return self._ask(question, threading.Event())

    def _ask(self, question: Question, stop: threading.Event) -> str:
        """The same; where `stop` is set there is no further attempt, and no waiting for it."""
        body = self._body(question)
        for attempt in range(self.config.endpoint_retries + 1):
            try:
                return self._text(self._post(body))
            except _Again as again:
                if attempt == self.config.endpoint_retries or stop.is_set():
                    raise InbolError(
                        f"{self._url}: {again} ({attempt + 1} attempts); is the endpoint up, and not overloaded?"
                    ) from again
                wait = (
                    again.seconds
                    if again.seconds is not None
                    else 0.5 * 2**attempt * random.uniform(1, 1.5)
                )
                (self._sleep or stop.wait)(min(wait, MAX_WAIT))
        raise AssertionError("the loop returns or raises")

    def ask_many(self, questions: Iterable[Question]) -> Iterator[str | InbolError]:
        """One result for each question, in their order, `endpoint_concurrency` at a time; questions are taken as they are needed.

        What failed for one question is yielded in its place, for the caller to count and to set aside.

        Raises:
          InbolError: when `FAILURES_IN_A_ROW` questions fail one after another, with the cause of the last.
        """

        def result(question: Question) -> str | InbolError:
            try:
                return self._ask(question, stop)
            except InbolError as error:
                return error

        failures, stop = 0, threading.Event()
        waiting: deque[Future[str | InbolError]] = deque()
        pool = ThreadPoolExecutor(self.config.endpoint_concurrency)
        try:
            for question in questions:
                waiting.append(pool.submit(result, question))
                if len(waiting) > 2 * self.config.endpoint_concurrency:
                    failures = _count(failures, reply := waiting.popleft().result())
                    yield reply
            while waiting:
                failures = _count(failures, reply := waiting.popleft().result())
                yield reply
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _body(self, question: Question) -> bytes:
        content: Any = question.text
        if question.image is not None:
            url = {"url": data_uri(question.image, self._max_side)}
            content = [
                {"type": "text", "text": question.text},
                {"type": "image_url", "image_url": url},
            ]
        messages = [{"role": "system", "content": question.system}] if question.system else []
        messages.append({"role": "user", "content": content})
        return json.dumps(
            {"model": self.config.endpoint_model, "messages": messages, **self._options}
        ).encode()

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "inbol_jax"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, body, headers)
        try:
            with self._opener.open(request, timeout=self.config.endpoint_timeout) as reply:
                found: bytes = reply.read(MAX_REPLY + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = self._redacted(_message(error))
                if error.code in (408, 429) or error.code >= 500:
                    raise _Again(
                        f"status {error.code}{said}", _retry_after(error.headers)
                    ) from error
            hint = ""
            if error.code in (401, 403):
                hint = (
                    f"; the key is read from the environment variable {self.config.endpoint_key}"
                    + ("" if self._key else ", which is not set")
                )
            elif error.code == 404:
                hint = "; check --endpoint (most end in /v1) and --endpoint-model"
            raise InbolError(f"{self._url}: status {error.code}{said}{hint}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = getattr(error, "reason", None) or error
            raise _Again(str(reason) or type(reason).__name__) from error
        if len(found) > MAX_REPLY:
            raise InbolError(
                f"{self._url}: the answer is longer than {MAX_REPLY >> 20} MiB; is this a chat-completions endpoint?"
            )
        return found

    def _text(self, reply: bytes) -> str:
        try:
            choice = json.loads(reply)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            said = self._redacted(reply.decode(errors="replace"))
            raise InbolError(
                f"{self._url}: not the answer of a chat-completions endpoint ({said})"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise InbolError(
                f"{self._url}: the model said nothing (finish_reason {choice.get('finish_reason')!r})"
            )
        return text.strip()

    def _redacted(self, text: str) -> str:
        """One line, without the key (some endpoints quote it in their errors), cut short after that and not before."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:300]


def data_uri(image: Path, max_side: int) -> str:
    """An image file as a JPEG data URI, at most `max_side` pixels a side, upright and without its metadata.

    Raises:
      InbolError: as `load_image` does.
    """
    picture = load_image(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


class _Again(Exception):
    """A failure that may pass. `seconds`: how long the endpoint asks to wait, where it says so."""

    def __init__(self, cause: str, seconds: float | None = None):
        super().__init__(cause)
        self.seconds = seconds


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key along: urllib copies the headers, and turns the POST into a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _count(failures: int, reply: str | InbolError) -> int:
    if isinstance(reply, str):
        return 0
    if failures + 1 == FAILURES_IN_A_ROW:
        raise InbolError(
            f"{FAILURES_IN_A_ROW} questions in a row failed, the last one with: {reply}"
        )
    return failures + 1


def _message(error: urllib.error.HTTPError) -> str:
    """ ": " and what the endpoint says, in the layout of OpenAI's errors or as plain text."""
    try:
        said = error.read(MAX_REPLY).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        found = json.loads(said)
        found = found.get("error", found.get("message", found))
        said = str(found["message"] if isinstance(found, dict) and "message" in found else found)
    except (ValueError, AttributeError):
        pass
    return f": {said}" if said.strip() else ""


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds of a Retry-After header; None where there is none, or a date."""
    try:
        return max(0.0, float((headers or {})["Retry-After"]))
    except (KeyError, TypeError, ValueError):
        return None
