"""The layout of OpenAI's chat completions: a question as messages, and the answers of a reply."""

import base64
import dataclasses
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inbol_jax.data.images import load_image

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class ChatQuestion:
    """What an endpoint's model is asked: the user's turn, with the files of images before its text,
    and a system prompt.

    No system turn is sent if `system` is empty.
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
    finish_reason: Any


def make_messages(question: ChatQuestion) -> Messages:
    """The chat of a question, as a request holds it. Its images are PNG with all their pixels,
    upright and without metadata.

    Raises:
      ImageError: if an image cannot be read.
    """
    content: Any = question.text
    if question.images:
        urls = [{"url": _data_uri(image)} for image in question.images]
        content = [{"type": "image_url", "image_url": url} for url in urls]
        content.append({"type": "text", "text": question.text})
    system = [{"role": "system", "content": question.system}] if question.system else []
    return [*system, {"role": "user", "content": content}]


def _data_uri(image: Path) -> str:
    buffer = io.BytesIO()
    load_image(image).save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_choices(reply: Any) -> list[Choice]:
    """The answers of a reply, at least one. Raises ValueError if it is no reply of this layout."""
    try:
        choices = list(map(_read_choice, reply["choices"]))
        _ = choices[0]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("not a chat completion") from error
    return choices


def _read_choice(choice: Any) -> Choice:
    message, reason = choice["message"], choice.get("finish_reason")
    text = message["content"]
    if text is None:  # the model declines in a field of its own, thinks, or says nothing
        text = message.get("refusal") or ""
    _, ended, said = text.rpartition(END_OF_THOUGHT)
    if not ended and text.lstrip().startswith(THOUGHT):
        said = ""  # it was cut while it was thinking
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return Choice(said.strip(), *_sum_logprobs(tokens or ()), reason)


def _sum_logprobs(tokens: Sequence[Any]) -> tuple[float | None, int | None]:
    """Log-probability and number of the tokens behind the thoughts; None without such tokens."""
    texts = [token["token"] for token in tokens]
    thoughts, ended, _ = "".join(texts).rpartition(END_OF_THOUGHT)
    start, places = len(thoughts + ended), itertools.accumulate(map(len, texts), initial=0)
    values = [float(t["logprob"]) for t, at in zip(tokens, places, strict=False) if at >= start]
    if not values:
        return None, None
    if not math.isfinite(total := sum(values)):
        raise ValueError("a log-probability is not finite")
    return total, len(values)
