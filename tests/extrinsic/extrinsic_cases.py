"""Examples, and a run of the funnel over them, for the tests of generators, filters and funnel."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inbol_jax.answers import Generation
from inbol_jax.data.images import load_image
from inbol_jax.extrinsic.filters import FILTERS, Candidate
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.extrinsic.generators import Context, Proposal, get_generators
from inbol_jax.records import VQAExample

THINGS = ("dog", "kite", "bus", "cake", "clock", "horse", "sofa", "laptop")
COLORS = ("brown", "red")


def example(i, question=None, answers=("red",), image=None, **extra):
    question = question or f"What color is the {THINGS[i % 8]}?"
    return VQAExample(f"q{i}", (image or f"{i}.png",), question, tuple(answers), True, extra)


class FunnelRun(NamedTuple):
    rows: list[dict]
    verdicts: Counter
    set_aside: Counter


def run_funnel(examples, *names, n=100, root=Path(), seed=0, model=None):
    """What the funnel keeps and counts, by generators of these names."""
    context = Context(examples, root, model)
    generators = get_generators(names)
    for generator in generators:
        if generator.check:
            generator.check(context)
    funnel = Funnel(context, generators, seed=seed)
    return FunnelRun([*funnel.questions(n)], funnel.verdicts, funnel.set_aside)


def rejects(name, examples):
    """A filter as a function that says whether it rejects a candidate."""
    context = Context(examples)
    return lambda candidate: FILTERS[name](candidate, context)


def candidate(example, question, generator="unseeable", **fields):
    return Candidate(example, Proposal(question, generator, **fields))


class Eye:
    """A "model" that says "red" if a pixel is red, and else "no", and counts what it is asked."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def __call__(self, questions, label):
        self.asked.append(len(questions))
        return [self.answer(self.root / question.image) for question in questions]

    def answer(self, file):
        pixels = np.asarray(load_image(file)).astype(int)
        red = ((pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 60)).mean()
        return Generation("red" if red else "no", -1.0 + float(red), 1)
