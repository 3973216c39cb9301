"""A client of any OpenAI-compatible chat-completions endpoint (OpenAI, vLLM, llama.cpp, ...).

The API key comes from an environment variable alone. It appears in no option, fingerprint, `repr`
or message. It is sent to the named host only: redirects are not followed.
"""

import base64
import dataclasses
import io
import itertools
import json
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import tenacity

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.responses.config import EndpointConfig

MAX_REPLY = 4 << 20  # bytes; a chat completion has a few thousand
MAX_SIDE = 1024  # pixels; a larger image is scaled down before it is sent
MAX_WAIT = 60.0  # seconds between two attempts, even if the endpoint asks for more
FAILURES_IN_A_ROW = 8  # from so many on, the endpoint is at fault and not the questions


@dataclasses.dataclass(frozen=True, slots=True)
class ChatQuestion:
    """What an endpoint's model is asked: the user's turn, with an image's file and a system prompt.

    No system turn is sent if `system` is empty.
    """

    text: str
    image: Path | None = None
    system: str = ""


class Endpoint:
    """Asks one model. It may be used from several threads.

    Args:
      config: which model to ask, and how patiently.
      temperature, max_tokens: sampling options of the answers.
      sleep: waits a number of seconds between two attempts; by default it ends if the caller stops.

    Raises:
      InbolError: for what is wrong with the options, before anything is sent.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        temperature: float = 0.0,
        max_tokens: int = 256,
        sleep: Callable[[float], object] | None = None,
    ):
        if not config.endpoint:
            raise InbolError(
                "--endpoint '': a base URL is needed, such as http://localhost:8000/v1"
            )
        if not config.endpoint_model:
            raise InbolError("--endpoint-model: the name of the endpoint's model is needed")
        self.config = config
        self._url = config.endpoint.rstrip("/") + "/chat/completions"
        self._key = _read_key(config.endpoint_key)
        self._options = {"temperature": temperature, "max_tokens": max_tokens}
        self._sleep = sleep
        # A compressed reply could unpack to more than MAX_REPLY in one piece.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            # `ask_many` bounds the requests in flight; httpx must not.
            self._client = httpx.Client(
                headers=headers, timeout=config.endpoint_timeout, limits=httpx.Limits()
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise InbolError(
                "the proxy that the environment names (HTTPS_PROXY, ALL_PROXY) cannot be used; "
                "unset it, or install httpx[socks] if it is a SOCKS proxy"
            ) from error

    def settings(self) -> dict[str, Any]:
        """Returns what the answers depend on, for headers and fingerprints, without the key."""
        return {
            "endpoint": self.config.endpoint,
            "model": self.config.endpoint_model,
            "max_side": MAX_SIDE,
            **self._options,
        }

    def ask(self, question: ChatQuestion, stop: threading.Event | None = None) -> str:
        """Returns the model's answer without surrounding white space.

        Once `stop` is set there is no further attempt and no waiting for one.

        Raises:
          InbolError: if the image cannot be read, the endpoint rejects the request, or it still
            fails after the retries.
        """
        stop = stop or threading.Event()
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_after_attempt(self.config.endpoint_retries + 1)
            | tenacity.stop_when_event_set(stop),
            wait=_seconds_to_wait,
            sleep=self._sleep or stop.wait,
        )
        try:
            return self._text(attempts(self._post, self._body(question)))
        except tenacity.RetryError as error:
            last = error.last_attempt
            raise InbolError(
                f"{self._url}: {last.exception()} ({last.attempt_number} attempts); "
                "is the endpoint up, and not overloaded?"
            ) from last.exception()

    def ask_many(self, questions: Iterable[ChatQuestion]) -> Iterator[str | InbolError]:
        """Yields one result per question, in their order.

        Up to `endpoint_concurrency` requests are in flight, and questions are taken only as they
        are needed. A question that failed yields its error, for the caller to count and set aside.

        Raises:
          InbolError: if `FAILURES_IN_A_ROW` successive questions fail, with the last one's cause.
        """
        stop, failures = threading.Event(), 0

        def ask(question: ChatQuestion) -> str | InbolError:
            try:
                return self.ask(question, stop)
            except InbolError as error:
                return error

        pool = ThreadPoolExecutor(self.config.endpoint_concurrency)
        futures = (pool.submit(ask, question) for question in questions)
        try:
            pending = deque(itertools.islice(futures, 2 * self.config.endpoint_concurrency + 1))
            while pending:
                reply = pending.popleft().result()
                failures = failures + 1 if isinstance(reply, InbolError) else 0
                if failures == FAILURES_IN_A_ROW:
                    raise InbolError(
                        f"{failures} questions in a row failed, the last one with: {reply}"
                    )
                yield reply
                pending.extend(itertools.islice(futures, 1))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _body(self, question: ChatQuestion) -> bytes:
        content: Any = question.text
        if question.image is not None:
            url = {"url": _data_uri(question.image)}
            content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": url}]
        messages = [{"role": "system", "content": question.system}] if question.system else []
        messages.append({"role": "user", "content": content})
        body = {"model": self.config.endpoint_model, "messages": messages, **self._options}
        return json.dumps(body).encode()

    def _post(self, body: bytes) -> bytes:
        try:
            with self._client.stream("POST", self._url, content=body) as reply:
                if not reply.is_success:
                    raise self._error(reply)
                content = _read(reply)
        except httpx.RequestError as error:
            raise _TransientError(str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise InbolError(f"--endpoint {self.config.endpoint!r}: {error}") from error
        if len(content) > MAX_REPLY:
            raise InbolError(
                f"{self._url}: the answer is longer than {MAX_REPLY >> 20} MiB; "
                "is this a chat-completions endpoint?"
            )
        return content

    def _error(self, reply: httpx.Response) -> Exception:
        status = reply.status_code
        cause = f"status {status}{self._redacted(_message(reply))}"
        if status in (408, 429) or status >= 500:
            return _TransientError(cause, _retry_after(reply))
        hint = ""
        if status in (401, 403):
            hint = f"; the key is read from the environment variable {self.config.endpoint_key}"
            if not self._key:
                hint += ", which is not set"
        elif status == 404:
            hint = "; check --endpoint (most end in /v1) and --endpoint-model"
        return InbolError(f"{self._url}: {cause}{hint}")

    def _text(self, reply: bytes) -> str:
        try:
            choice = json.loads(reply)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            quoted = self._redacted(reply.decode(errors="replace"))
            raise InbolError(
                f"{self._url}: not the answer of a chat-completions endpoint ({quoted})"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise InbolError(
                f"{self._url}: the model said nothing "
                f"(finish_reason {choice.get('finish_reason')!r})"
            )
        return text.strip()

    def _redacted(self, text: str) -> str:
        """Returns 300 characters on one line, without the key, which some endpoints quote."""
        text = " ".join(text.split())
        # It is cut after the key has gone, so that no part of the key is left at its end.
        return (text.replace(self._key, "***") if self._key else text)[:300]


def _data_uri(image: Path) -> str:
    """An image file as a JPEG data URI: upright, without metadata, at most `MAX_SIDE` a side."""
    picture = load_image(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


class _TransientError(Exception):
    """A failure that may pass; `seconds` is how long the endpoint asks to wait, if it says so."""

    def __init__(self, cause: str, seconds: float | None = None):
        super().__init__(cause)
        self.seconds = seconds


def _seconds_to_wait(state: tenacity.RetryCallState) -> float:
    seconds = state.outcome.exception().seconds
    if seconds is None:
        seconds = 0.5 * 2 ** (state.attempt_number - 1) * random.uniform(1, 1.5)
    return min(seconds, MAX_WAIT)


def _read_key(variable: str) -> str:
    """Returns the API key; empty if the environment variable is not set."""
    key = os.environ.get(variable, "").strip()
    # An HTTP library would quote such a key in its error.
    if not (key.isascii() and key.isprintable()):
        raise InbolError(
            f"{variable}: what the environment variable holds is no API key; "
            "it has characters that an HTTP header must not have"
        )
    return key


def _read(reply: httpx.Response) -> bytes:
    """Reads a body, and stops soon after `MAX_REPLY` bytes."""
    content = bytearray()
    for chunk in reply.iter_bytes():
        content += chunk
        if len(content) > MAX_REPLY:
            break
    return bytes(content)


def _message(reply: httpx.Response) -> str:
    """Returns ": " and the error's message, in the layout of OpenAI's errors or as plain text."""
    try:
        text = _read(reply).decode(errors="replace")
    except httpx.RequestError:
        return ""
    try:
        error = json.loads(text)
        error = error.get("error", error.get("message", error))
        text = str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except (ValueError, AttributeError):
        pass
    return f": {text}" if text.strip() else ""


def _retry_after(reply: httpx.Response) -> float | None:
    """Returns the seconds of a Retry-After header; None without one, or if it is a date."""
    try:
        return max(0.0, float(reply.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
