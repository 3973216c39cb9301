"""A client of any OpenAI-compatible chat-completions endpoint (OpenAI, vLLM, llama.cpp, ...).

The API key comes from an environment variable alone. It appears in no option, fingerprint, `repr`
or message, and a reply that quotes it loses it. Redirects are not followed, so that it is sent to
the named host only.
"""

import asyncio
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import wait
from typing import Any, TypeVar

from inbol_jax import interruption
from inbol_jax.data.images import ImageError
from inbol_jax.errors import InbolError
from inbol_jax.responses.chat import ChatQuestion, Choice, Messages, make_messages, read_choices
from inbol_jax.responses.config import EndpointConfig

FAILURES_IN_A_ROW = 8  # from so many on, the endpoint is at fault and not the questions
LAST_WAIT = 10.0  # seconds that requests in flight have to end once a signal has come
MIN_KEY = 8  # characters; shorter ones are placeholders such as EMPTY, which a model may say
_SECONDS_PER_LOOK = 0.2  # how often who waits for a reply looks for a signal

Item = TypeVar("Item")
Result = TypeVar("Result")


class Endpoint:
    """Asks one model. Its coroutines run in the event loop of `map`.

    Args:
      config: which model to ask, and how patiently.
      options: further fields of all requests; temperature is 0 and max_tokens 256 by default.

    Raises:
      InbolError: for what is wrong with the options, before anything is sent.
    """

    def __init__(self, config: EndpointConfig, **options: Any):
        import openai  # half a second, which only those pay who ask an endpoint

        if not config.endpoint_model:
            raise InbolError("--endpoint-model: the name of the endpoint's model is needed")
        self.config = config
        self._key = _read_key(config.endpoint_key)
        self._options = {"temperature": 0.0, "max_tokens": 256} | options
        self._slots = asyncio.Semaphore(config.endpoint_concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=config.endpoint,
            api_key=self._key or "none",  # the library asks for one; it is not sent
            timeout=config.endpoint_timeout,
            max_retries=config.endpoint_retries,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    def settings(self) -> dict[str, Any]:
        """Returns what the answers depend on, for headers and fingerprints, without the key."""
        about = {"endpoint": self.config.endpoint, "model": self.config.endpoint_model}
        return about | self._options

    async def ask(self, question: ChatQuestion) -> str:
        """Returns the text of the model's answer, as in `Choice`.

        Raises:
          InbolError: as `messages` and `choices`, and if the model says nothing.
        """
        choice, *_ = await self.choices(await self.messages(question))
        if not choice.text:
            raise self._error(f"the model said nothing (finish_reason {choice.finish_reason!r})")
        return choice.text

    async def messages(self, question: ChatQuestion) -> Messages:
        """The chat of a question; its images are read here. Raises InbolError if one cannot be."""
        return await asyncio.to_thread(make_messages, question)

    async def choices(self, messages: Messages, **fields: Any) -> list[Choice]:
        """Returns the answers of one reply, at least one.

        Args:
          fields: further fields of this request, such as n or seed.

        Raises:
          InbolError: if the endpoint rejects the request, still fails after the retries, or replies
            with something else.
        """
        import openai

        try:
            reply = await self._client.chat.completions.with_raw_response.create(
                model=self.config.endpoint_model,
                messages=messages,
                extra_body=self._options | fields,
                extra_headers={} if self._key else {"Authorization": openai.Omit()},
            )
        except openai.APITimeoutError as error:
            raise self._error("timed out; is the endpoint up, and not overloaded?") from error
        except openai.APIConnectionError as error:
            raise self._error(f"{error.__cause__ or error}; is the endpoint up?") from error
        except openai.APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            said = body.get("message", error.response.text)
            raise self._error(f"status {error.status_code}: {said}", self._hint(error)) from error
        text = self._without_key(reply.http_response.text)
        try:
            return read_choices(text)
        except ValueError as error:
            raise self._error(f"not the answer of a chat-completions endpoint ({text})") from error

    def map(
        self, ask: Callable[[Item], Coroutine[Any, Any, Result]], items: Iterable[Item]
    ) -> Iterator[list[tuple[Item, Result | InbolError]]]:
        """Yields the items with what `ask` returns for each, one at a time and in their order.

        Up to `endpoint_concurrency` items are asked about at a time, and they are taken only as
        they are needed. An item that failed comes with its error, for the caller to count and set
        aside.

        This is the loop's boundary for signals, and the caller has none of its own. When one has
        come, no item is begun any more, those in flight have `LAST_WAIT` seconds to end, and a last
        list holds what was received behind the item that was waited for.

        Raises:
          InbolError: if `FAILURES_IN_A_ROW` successive items fail, with the last one's cause; items
            whose image cannot be read are not among them.
          Interrupted: after the last list.
        """
        stopped, failures = threading.Event(), 0

        async def result(item: Item) -> Result | InbolError:
            async with self._slots:
                if stopped.is_set():
                    raise asyncio.CancelledError
                try:
                    return await ask(item)
                except InbolError as error:
                    return error

        loop = _event_loop()
        submitted = ((item, asyncio.run_coroutine_threadsafe(result(item), loop)) for item in items)
        # Twice as many as are asked at a time: none of the slots waits for who takes the replies.
        pending = deque(itertools.islice(submitted, 2 * self.config.endpoint_concurrency + 1))
        try:
            with interruption.boundaries():
                while pending:
                    item, future = pending[0]
                    while not (future.done() or interruption.has_come()):
                        wait([future], timeout=_SECONDS_PER_LOOK)
                    if interruption.has_come():
                        stopped.set()
                        wait([future for _, future in pending], timeout=LAST_WAIT)
                        came = [(item, f) for item, f in pending if f.done() and not f.cancelled()]
                        yield [(item, future.result()) for item, future in came]
                        raise interruption.Interrupted
                    reply = future.result()
                    if not isinstance(reply, ImageError):
                        failures = failures + 1 if isinstance(reply, InbolError) else 0
                    if failures == FAILURES_IN_A_ROW:
                        raise InbolError(
                            f"{failures} questions in a row failed, the last one with: {reply}"
                        )
                    yield [(item, reply)]
                    pending.popleft()
                    pending.extend(itertools.islice(submitted, 1))
        finally:
            stopped.set()
            for _, future in pending:
                future.cancel()

    def _hint(self, error: Any) -> str:
        """What to look at after a status that is no success."""
        if error.status_code in (401, 403):
            unset = "" if self._key else ", which is not set"
            variable = self.config.endpoint_key
            return f"; the key is read from the environment variable {variable}{unset}"
        if error.status_code == 404:
            return "; check --endpoint (most end in /v1) and --endpoint-model"
        return ""

    def _error(self, cause: str, hint: str = "") -> InbolError:
        """An error that quotes at most 300 characters of a reply, on one line."""
        cause = " ".join(self._without_key(cause).split())[:300]
        return InbolError(f"{self.config.endpoint}: {cause}{hint}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if len(self._key) >= MIN_KEY else text


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """What sends all requests, in a thread of its own that ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _read_key(variable: str) -> str:
    """Returns the API key; empty if the environment variable is not set."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):  # an HTTP library would quote it in its error
        raise InbolError(f"{variable}: what this environment variable holds is no API key")
    return key
