"""Generator `other_image`: an example's own question about another image, which does not hold the
thing that the question is about.

With a column `objects` that is a fact. Without it the model of `--model` is asked: it must see the
thing in the example's own image, and be sure that the other one lacks it. Without either, silence
tells it of things that few images are asked about.
"""

import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from inbol_jax.answers import Generation
from inbol_jax.extrinsic.contents import NOT_THINGS
from inbol_jax.extrinsic.generators import (
    ANSWERED_BY_ABSENCE,
    PLURAL,
    TRIES,
    CannotPropose,
    Context,
    Proposal,
    register_generator,
)
from inbol_jax.extrinsic.grammar import subject
from inbol_jax.records import VQAExample
from inbol_jax.responses.yes_no import read_yes_no

CANDIDATES = 4  # images of which a model is asked whether they hold the thing
SURE = math.log(0.9)  # least log-probability of its "no"
# What a word begins with that sounds so: "an hour glass", "a uniform", "a one-way sign".
_VOWEL = re.compile(
    r"[ai]|e(?!u|we)|o(?!nce?\b|ne\b)|u(?!ni|s[aeu]|t[ei]|rin|kul)|hour|hono|heir|x-"
)


def _thing(example: VQAExample, context: Context) -> str | None:
    """What the question presumes to be in its image; None if that is nothing."""
    if not context.in_english or ANSWERED_BY_ABSENCE.match(example.question):
        return None
    thing = subject(example.question)
    return None if thing is None or thing.split()[-1] in NOT_THINGS else thing


def _find_images(examples: Sequence[VQAExample], context: Context) -> dict[str, list[str]]:
    """By id images of which the model is sure that they lack the thing. It answers 5 times per
    question."""
    if context.model is None or context.contents.lists_objects:
        return {}
    things = {e.id: thing for e in examples if (thing := _thing(e, context))}
    asked: list[VQAExample] = []
    for example in (e for e in examples if e.id in things):
        rng = np.random.default_rng(zlib.crc32(example.id.encode()))
        drawn = rng.integers(len(context.pool), size=CANDIDATES)
        question = existence_question(things[example.id])
        asked += [
            VQAExample(f"{example.id} {i}", (image,), question)
            for i, image in enumerate((example.image, *(context.pool[j].image for j in drawn)))
        ]
    answers = iter(zip(asked, context.model(asked, "finding other images"), strict=True))
    found: dict[str, list[str]] = {}
    for id in things:
        (_, seen), *others = itertools.islice(answers, 1 + CANDIDATES)
        lacking = [q.image for q, said in others if _says(said, "no") and said.logprob >= SURE]
        if _says(seen, "yes") and lacking:
            found[id] = lacking
    return found


def _says(said: Generation | None, word: str) -> bool:
    return said is not None and read_yes_no(said.text) == word


def existence_question(thing: str) -> str:
    """Whether an image holds a thing.

    >>> existence_question("hour glass")
    'Is there an hour glass?'
    >>> existence_question("shoes")
    'Are there shoes?'
    """
    if PLURAL.search(thing):
        return f"Are there {thing}?"
    return f"Is there {'an' if _VOWEL.match(thing) else 'a'} {thing}?"


@register_generator("other_image", prepare=_find_images, own_question=True)
def other_image(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about another image, which lacks the thing that it is about."""
    if (thing := _thing(example, context)) is None:
        raise CannotPropose("question presumes nothing that could be missing")
    contents = context.contents
    if context.model is None or contents.lists_objects:
        drawn = (context.pool[i].image for i in rng.integers(len(context.pool), size=TRIES))
        images = [image for image in drawn if contents.surely_absent(image, thing)]
    else:
        images = context.prepared.get(example.id, [])
    for image in images:
        hashes = context.hashes.of((example.image, image))
        own, other = hashes[example.image], hashes[image]
        # The same picture may lie there under two names, and the other one may be missing.
        if not own or other not in ("", own):
            yield Proposal(
                example.question, "other_image", thing, image=image, options=example.options
            )
