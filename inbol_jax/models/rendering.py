"""A chat template around marks, rendered in a process of its own.

A template is a program of whoever made the checkpoint. transformers' sandbox keeps it from the
machine, but not from looping for ever or from filling the memory. So it runs where both have a
limit, once, with marks in place of question and response.
"""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

SECONDS, MEMORY, CHARACTERS = 2, 4 << 30, 100_000
"""What a template may take: CPU time, bytes, and length of its text."""
QUESTION, RESPONSE = "Is mark 4071 The question?", "Mark 9352 is The response."
SYSTEM = "Mark 2816 is The system text."
_THOUGHT = re.compile(r"<think>\s*$")
_PADDED = f" {QUESTION}\n"
_OURS = Path(__file__).parents[1] / "world/assets/tiny-llava"


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
      ValueError: if the template fails, takes more than its limits, or does not write the question,
        the response or the system text once and as it is; says which.
    """
    content = [{"type": "image"}] * images
    first = [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}] if system else []
    # Open prompts with the plain and with the padded mark, and one whole chat with its response.
    asked = [
        [*first, {"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        for question in (QUESTION, _PADDED)
    ]
    answer = {"role": "assistant", "content": [{"type": "text", "text": RESPONSE}]}
    chats = [*asked, [*asked[0], answer]]
    request = {"template": template, "tokens": json.loads(tokens), "chats": chats}
    # Our own needs no process, whose start takes a second or more.
    ours = (_OURS / "chat_template.jinja").read_text(encoding="utf-8")
    reply = _texts(**request) if template == ours else _in_child(json.dumps(request))
    fault = reply.get("error")
    if system and not fault and any(text.count(SYSTEM) != 1 for text in reply["texts"]):
        fault = f"writes the text {reply['texts'][0].count(SYSTEM)} times"
    # Is it the system text that the template does not take, or anything?
    if fault and system:
        render(template, tokens, images)  # which may fail as well, and says why
        raise ValueError(f"takes no --system: it {fault}")
    if fault:
        raise ValueError(fault)
    *prompts, whole = reply["texts"]
    # "... assistant\n<think>\n" -> "... assistant\n<think>\n\n</think>\n\n"
    prompt, padded = (_THOUGHT.sub("<think>\n\n</think>\n\n", text) for text in prompts)
    for name, mark, text in (
        ("question", QUESTION, prompt), ("question", QUESTION, whole), ("response", RESPONSE, whole)
    ):  # fmt: skip
        if text.count(mark) != 1:
            raise ValueError(f"writes the {name} {text.count(mark)} times, or changes it")
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


def _in_child(request: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60 + 10 * SECONDS,
            # threads of a library would count as memory
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"takes more than {SECONDS} s") from error
    if done.returncode < 0:
        raise ValueError(f"takes more than {SECONDS} s or {MEMORY >> 30} GiB")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _texts(template: str, tokens: dict[str, Any], chats: list[list[Any]]) -> dict[str, Any]:
    """Returns {"texts": one per chat} or {"error": one line}."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts = []
    try:
        for chat in chats:
            is_open = chat[-1]["role"] == "user"
            (text,), _ = render_jinja_template(
                [chat],
                chat_template=template,
                add_generation_prompt=is_open,
                enable_thinking=False,
                **tokens,
            )
            if len(text) > CHARACTERS:
                return {"error": f"writes more than {CHARACTERS:,} characters"}
            texts.append(text)
    except Exception as error:  # a template can raise anything
        line = f"fails with {type(error).__name__}: {error}".splitlines()[0]
        return {"error": ascii(line[:300])[1:-1]}
    return {"texts": texts}


def _answer_within_limits() -> None:
    """The process: from a request on its input to a reply on its output."""
    import resource

    import transformers.utils.chat_template_utils  # noqa: F401  (before the limits)

    request = json.load(sys.stdin)
    # Importing transformers has used CPU time already; the limit counts from the process's start.
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(_texts(**request)))


if __name__ == "__main__":
    _answer_within_limits()
