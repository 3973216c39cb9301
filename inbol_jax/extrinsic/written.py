"""Questions that a vision-language model writes: the model itself, or any that an OpenAI-compatible endpoint has."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import Asked, Context, Proposal, register_generator
from inbol_jax.extrinsic.templates import WRITER_PROMPT
from inbol_jax.records import VQAExample

NAME = "model_written"
QUESTIONS = 3  # a prompt asks for so many; the first that passes the filters is kept
MAX_TOKENS = 128
_BULLET = re.compile(r"^(?:[-*•–]+|\(?\d{1,2}[.):])\s+")


def parse_questions(text: str) -> list[str]:
    """The lines of what a model wrote, each once, without bullets, numbers and quotation marks; the filters see to the rest."""
    lines = (_BULLET.sub("", line.strip()).strip("\"'“”* ") for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def _check(context: Context) -> None:
    if context.writer is None:
        raise InbolError(f"--generators {NAME}: needs --model, or --endpoint with --endpoint-model")


def _prepare(examples: Sequence[VQAExample], context: Context) -> None:
    assert context.writer is not None
    asked = [
        Asked(
            WRITER_PROMPT.format(n=QUESTIONS, question=e.question), context.root / e.image, e.image
        )
        for e in examples
    ]
    replies = context.writer(
        asked, n=1, temperature=1.0, max_new_tokens=MAX_TOKENS, label="writing questions"
    )
    for example, reply in zip(examples, replies, strict=True):
        if reply:
            context.prepared[NAME, example.id] = parse_questions(reply[0].text)
        else:
            context.set_aside[NAME, "could not be asked"] += 1


@register_generator(NAME, prepare=_prepare, check=_check)
def model_written(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """What the model wrote when it was shown the image and a question that can be answered."""
    for question in context.prepared.get((NAME, example.id), ()):
        yield Proposal(question, NAME)
