"""Examples, and a run of the funnel over them, for the tests of generators, filters and funnel."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from inbol_jax.extrinsic.filters import FILTERS, Candidate, get_filters
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
    rejected: list[dict]


FUNNEL_FILTERS = ("ill_formed", "present", "duplicate")


def run_funnel(examples, *names, n=100, filters=FUNNEL_FILTERS, root=Path(), seed=0, model=None):
    """What the funnel keeps, counts and rejects, by generators of these names."""
    context, rejected = Context(examples, root, model), []
    generators = [get_generators([name])[0] for name in names]
    for generator in generators:
        if generator.check:
            generator.check(context)
    chosen = get_filters(filters, lists_objects=True)
    funnel = Funnel(context, generators, chosen, seed=seed, reject=rejected.append)
    return FunnelRun([*funnel.questions(n)], funnel.verdicts, funnel.set_aside, rejected)


def rejects(name, examples):
    """A filter as a function that says why it rejects a candidate."""
    context = Context(examples)
    return lambda candidate: FILTERS[name].reject(candidate, context)


def candidate(example, question, generator="unseeable", **fields):
    return Candidate(example, Proposal(question, generator, **fields))
