"""A chat template around marks, rendered by transformers in its sandbox.

A template is a program of whoever made the checkpoint. It is rendered once per number of images,
with marks in place of question and response, so that no text of a user ever reaches it.
"""

import functools
import json
import re
from typing import NamedTuple

QUESTION, RESPONSE = "Is mark 4071 The question?", "Mark 9352 is The response."
SYSTEM = "Mark 2816 is The system text."
# White space around the question, that no template writes by itself: does it come back?
_SPACE = "\u2003"
_PADDED = f" {_SPACE}{QUESTION}{_SPACE}\n"
_THOUGHT = re.compile(r"<think>\s*$")


class Template(NamedTuple):
    """What a chat template writes around a question, and behind it until the response."""

    before: str
    after: str
    between: str
    """What is written between the prompt and a response, such as a space."""
    whole: str
    """The text of a question with its response."""
    strips: bool
    """Whether the white space around a question is left out."""

    def prompt(self, question: str) -> str:
        """Returns the text up to where the response begins."""
        return self.before + (question.strip() if self.strips else question) + self.after


@functools.cache
def render(template: str, tokens: str, images: int, system: bool = False) -> Template:
    """Renders a template for a question with that many images, and with thinking off.

    A template that lets the model think in any case opens a thought at the end of a prompt; it is
    closed there, empty, as other templates do with thinking off.

    Args:
      tokens: JSON object of the tokenizer's special tokens by name.
      system: whether the mark of a system text comes first.
    Raises:
      ValueError: if the template fails, or does not write the question, the response or the system
        text once and as it is; says which.
    """
    first = [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}] if system else []
    content = [*[{"type": "image"}] * images, {"type": "text", "text": _PADDED}]
    chat = [*first, {"role": "user", "content": content}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": RESPONSE}]}
    try:
        # An open prompt, and one with its response.
        prompt, whole = _text(template, tokens, chat), _text(template, tokens, [*chat, answer])
        if system:
            _once("text", SYSTEM, prompt, whole)
    except ValueError as error:
        if not system:
            raise
        # Is it the system text that the template does not take, or anything?
        render(template, tokens, images)  # which may fail as well, and says why
        raise ValueError(f"takes no --system: it {error}") from error
    # "... assistant\n<think>\n" -> "... assistant\n<think>\n\n</think>\n\n"
    prompt = _THOUGHT.sub("<think>\n\n</think>\n\n", prompt)
    _once("question", QUESTION, prompt, whole)
    _once("response", RESPONSE, whole)
    # The question must come back with all of its white space, or with none.
    strips = _SPACE not in prompt
    if not strips and _PADDED not in prompt:
        raise ValueError("changes the question")
    before, _, after = prompt.partition(QUESTION if strips else _PADDED)
    # Some templates render a turn with a response differently from an open one; generation starts
    # from the open one, so the response then follows that directly.
    between = ""
    if whole.startswith(prompt):
        between = whole[len(prompt) :].partition(RESPONSE)[0]
    return Template(before, after, between, whole, strips)


def _text(template: str, tokens: str, chat: list[dict]) -> str:
    """What the template writes: an open prompt, unless the last turn is a response."""
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import

    try:
        (rendered,), _ = render_jinja_template(
            [chat],
            chat_template=template,
            add_generation_prompt=chat[-1]["role"] == "user",
            enable_thinking=False,
            **json.loads(tokens),
        )
    except Exception as error:  # a template can raise anything
        line = f"fails with {type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(ascii(line[:300])[1:-1]) from error
    return rendered


def _once(name: str, mark: str, *texts: str) -> None:
    """Raises ValueError unless each text holds the mark once."""
    for count in (text.count(mark) for text in texts):
        if count != 1:
            raise ValueError(f"writes the {name} {count} times, or changes it")
