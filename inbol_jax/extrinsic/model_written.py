"""Generator `model_written`: a model, ours or an endpoint's, writes the questions."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import (
    CannotPropose,
    GeneratorContext,
    ImageQuestion,
    Proposal,
    register_generator,
)
from inbol_jax.extrinsic.templates import WRITER_PROMPT
from inbol_jax.records import VQAExample

NAME = "model_written"
QUESTIONS = 3  # per prompt; the first that passes the filters is kept
MAX_TOKENS = 128
_BULLET = re.compile(r"^(?:[-*•\u2013]+|\(?\d{1,2}[.):])\s+")


def parse_questions(text: str) -> list[str]:
    """The distinct lines of what a model wrote, without bullets, numbers and quotation marks."""
    lines = (_BULLET.sub("", line.strip()).strip("\"'“”* ") for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def _check(context: GeneratorContext) -> None:
    if context.writer is None:
        raise InbolError(f"--generators {NAME}: needs --model, or --endpoint with --endpoint-model")


def _prepare(examples: Sequence[VQAExample], context: GeneratorContext) -> dict[str, list[str]]:
    """Returns by id the questions that the model wrote, without the examples that it could not be
    asked about."""
    assert context.writer is not None
    prompts = []
    for example in examples:
        prompt = WRITER_PROMPT.format(n=QUESTIONS, question=example.question)
        prompts.append(ImageQuestion(prompt, context.root / example.image, example.image))
    replies = context.writer(
        prompts, n=1, temperature=1.0, max_new_tokens=MAX_TOKENS, label="writing questions"
    )
    pairs = zip(examples, replies, strict=True)
    return {example.id: parse_questions(reply[0].text) for example, reply in pairs if reply}


@register_generator(NAME, prepare=_prepare, check=_check)
def model_written(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """What the model wrote when it was shown the image and a question that can be answered."""
    if example.id not in context.prepared:
        raise CannotPropose("could not be asked")
    if not context.prepared[example.id]:
        raise CannotPropose("model wrote no question")
    for question in context.prepared[example.id]:
        yield Proposal(question, NAME)
