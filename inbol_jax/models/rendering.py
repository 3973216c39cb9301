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
_THOUGHT = re.compile(r"<think>\s*$")
_PADDED = f" {QUESTION}\n"


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

    def with_system(self, text: str) -> "Template":
        """Returns the template with the system text in place of its mark."""
        before, after, whole = (
            part.replace(SYSTEM, text) for part in (self.before, self.after, self.whole)
        )
        return self._replace(before=before, after=after, whole=whole)


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
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import

    first = [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}] if system else []
    answer = {"role": "assistant", "content": [{"type": "text", "text": RESPONSE}]}

    def text(question: str, *response: dict) -> str:
        content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
        chat = [*first, {"role": "user", "content": content}, *response]
        try:
            (rendered,), _ = render_jinja_template(
                [chat],
                chat_template=template,
                add_generation_prompt=not response,
                enable_thinking=False,
                **json.loads(tokens),
            )
        except Exception as error:  # a template can raise anything
            line = f"fails with {type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(ascii(line[:300])[1:-1]) from error
        if system and rendered.count(SYSTEM) != 1:
            raise ValueError(f"writes the text {rendered.count(SYSTEM)} times")
        return rendered

    try:
        # Open prompts with the plain and with the padded mark, and one whole chat.
        prompt, padded, whole = text(QUESTION), text(_PADDED), text(QUESTION, answer)
    except ValueError as error:
        if not system:
            raise
        # Is it the system text that the template does not take, or anything?
        render(template, tokens, images)  # which may fail as well, and says why
        raise ValueError(f"takes no --system: it {error}") from error
    # "... assistant\n<think>\n" -> "... assistant\n<think>\n\n</think>\n\n"
    prompt, padded = (_THOUGHT.sub("<think>\n\n</think>\n\n", text) for text in (prompt, padded))
    for name, mark, written in (
        ("question", QUESTION, prompt),
        ("question", QUESTION, whole),
        ("response", RESPONSE, whole),
    ):
        if written.count(mark) != 1:
            raise ValueError(f"writes the {name} {written.count(mark)} times, or changes it")
    # The padded question must come back as it is, or stripped to the plain one.
    before, _, after = prompt.partition(QUESTION)
    if padded not in (before + _PADDED + after, prompt):
        raise ValueError("changes the question")
    # Some templates render a turn with a response differently from an open one; generation starts
    # from the open one, so the response then follows that directly.
    between = ""
    if whole.startswith(prompt):
        between = whole[len(prompt) :].partition(RESPONSE)[0]
    return Template(before, after, between, whole, padded == prompt)
