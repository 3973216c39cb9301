"""Examples, and a run of the funnel over them, for the tests of generators, filters and funnel."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.filters import FILTERS, Candidate, FilterContext
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.extrinsic.generators import Generator, GeneratorContext, Proposal, get_generators
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


def run_funnel(
    examples,
    *generators,
    n=100,
    filters=("ill_formed", "present", "duplicate"),
    root=Path(),
    seed=0,
    **context,
):
    """What the funnel keeps, counts and rejects. A generator is a `Generator` or a name."""
    made = [g if isinstance(g, Generator) else get_generators([g])[0] for g in generators]
    source = GeneratorContext(examples, ImageContents(examples), root, **context)
    for generator in made:
        if generator.check:
            generator.check(source)
    config = ExtrinsicConfig(Path(), Path(), seed=seed)
    rows, rejected = [], []
    funnel = Funnel(
        FilterContext(source, config), made, filters, keep=rows.append, reject=rejected.append
    )
    assert funnel.run(n) == len(rows)
    return FunnelRun(rows, funnel.verdicts, funnel.set_aside, rejected)


def rejects(name, examples, **options):
    """A filter as a function that says why it rejects a candidate."""
    source = GeneratorContext(examples, ImageContents(examples))
    context = FilterContext(source, ExtrinsicConfig(Path(), Path(), **options))
    return lambda candidate: FILTERS[name].reject(candidate, context)


def candidate(example, question, generator="unseeable", **fields):
    return Candidate(example, Proposal(question, generator, **fields))
