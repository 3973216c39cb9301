"""The layout of OpenAI's chat completions: a question as messages, and the answers of a reply."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from inbol_jax.data.images import data_uri, load_image

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class ChatQuestion:
    """What an endpoint's model is asked: the user's turn, with the files of images before its text,
    and a system prompt, without which no system turn is sent.
    """

    text: str
    images: tuple[Path, ...] = ()
    system: str = ""


class Choice(NamedTuple):
    """One answer of a reply.

    Attributes:
      text: without surrounding white space, and without what the model thought before it.
      logprob: the summed log-probability of its tokens in nats, those of the thoughts left out;
        None if the endpoint gives none.
      tokens: how many tokens these are; None likewise.
      finish_reason: why it ended, in the endpoint's words: "stop", "length", ...
    """

    text: str
    logprob: float | None
    tokens: int | None
    finish_reason: str | None


def make_messages(question: ChatQuestion) -> Messages:
    """The chat of a question, as a request holds it. Its images are PNG with all their pixels,
    upright and without metadata.

    Raises:
      ImageError: if an image cannot be read.
    """
    content: Any = question.text
    if question.images:
        urls = [{"url": data_uri(load_image(image), compress_level=1)} for image in question.images]
        content = [{"type": "image_url", "image_url": url} for url in urls]
        content.append({"type": "text", "text": question.text})
    system = [{"role": "system", "content": question.system}] if question.system else []
    return [*system, {"role": "user", "content": content}]


# The fields of a reply that are read.
class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]


def read_choices(reply: str) -> list[Choice]:
    """The answers in the JSON of a reply, at least one.

    Raises:
      ValueError: if it is no chat completion.
    """
    try:
        choices = msgspec.json.decode(reply, type=_Reply).choices
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    return list(map(_read_choice, choices))


def _read_choice(choice: _Choice) -> Choice:
    text = choice.message.content
    if text is None:  # the model declines in a field of its own, thinks, or says nothing
        text = choice.message.refusal or ""
    _, ended, said = text.rpartition(END_OF_THOUGHT)
    if not ended and text.lstrip().startswith(THOUGHT):
        said = ""  # it was cut while it was thinking
    tokens = (choice.logprobs and choice.logprobs.content) or ()
    return Choice(said.strip(), *_sum_logprobs(tokens), choice.finish_reason)


def _sum_logprobs(tokens: Sequence[_Token]) -> tuple[float | None, int | None]:
    """Log-probability and number of the tokens behind the thoughts; None without such tokens."""
    texts = [token.token for token in tokens]
    thoughts, ended, _ = "".join(texts).rpartition(END_OF_THOUGHT)
    start, places = len(thoughts + ended), itertools.accumulate(map(len, texts), initial=0)
    values = [t.logprob for t, place in zip(tokens, places, strict=False) if place >= start]
    if not values:
        return None, None
    if not math.isfinite(total := sum(values)) or max(values) > 0.01:  # above 0 by rounding alone
        raise ValueError("a log-probability is not finite, or above 0")
    return min(total, 0.0), len(values)
