"""From examples to Type 3 questions: generators propose, filters dispose, and each is counted."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from inbol_jax.extrinsic.filters import BatchFilter, Candidate, Filter
from inbol_jax.extrinsic.generators import Context, Generator
from inbol_jax.records import VQAExample

CHUNK = 256  # examples that a model looks at together
NOTHING = (
    "nothing to ask about"  # why an example is set aside of which its generator makes no question
)

Counts = Counter[tuple[str, str]]  # (generator, "kept" or the filter that rejected it)


class Dropped(NamedTuple):
    """A question that a filter rejected, as the trail has it: after which filters, by which, and why."""

    candidate: Candidate
    passed: list[str]
    filter: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        c = self.candidate
        row = {
            "id": c.id,
            "image": c.image,
            "question": c.proposal.question,
            "generator": c.proposal.generator,
        }
        return row | {"passed": self.passed, "filter": self.filter, "reason": self.reason}


def propose(
    context: Context,
    generators: Sequence[Generator],
    filters: Sequence[Filter | BatchFilter],
    n: int,
    seed: int,
    counts: Counts,
    dropped: Callable[[Dropped], object] = lambda _: None,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Up to n rows of Type 3 questions, alternating between the generators over images in random order.

    Rows are the same whatever n is, but for how many there are; nothing of them is kept in memory but what the filters remember.

    Args:
      counts: is added to.
      dropped: is called with each question that a filter rejects.
      advance: is called with the number of examples that have had their turn.
    """
    single = [f for f in filters if not hasattr(f, "reject_many")]
    batched = [f for f in filters if hasattr(f, "reject_many")]
    names = [f.name for f in filters]
    passing = _passing(context, generators, single, n, seed, counts, dropped, advance)
    made = 0
    # No more candidates at a time than could all be kept: what nobody waits for is neither made nor counted.
    while made < n and (chunk := list(itertools.islice(passing, min(CHUNK, n - made)))):
        for filter in batched:
            reasons = filter.reject_many(chunk)
            passed = names[: names.index(filter.name)]
            for candidate, reason in zip(chunk, reasons, strict=True):
                if reason is not None:
                    counts[candidate.proposal.generator, filter.name] += 1
                    dropped(Dropped(candidate, passed, filter.name, reason))
            chunk = [c for c, reason in zip(chunk, reasons, strict=True) if reason is None]
        for candidate in chunk:
            counts[candidate.proposal.generator, "kept"] += 1
            made += 1
            yield _row(candidate, names)


def _passing(
    context: Context,
    generators: Sequence[Generator],
    filters: Sequence[Filter],
    n: int,
    seed: int,
    counts: Counts,
    dropped: Callable[[Dropped], object],
    advance: Callable[[int], object],
) -> Iterator[Candidate]:
    """Candidates that pass the filters that need no model, at most one for each example."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(context.pool))
    size = min(CHUNK, 2 * n)
    for start in range(0, len(order), size):
        turns = range(start, min(start + size, len(order)))
        context.prepared.clear()
        for i, generator in enumerate(generators):
            if generator.prepare:
                generator.prepare(
                    [context.pool[order[t]] for t in turns if t % len(generators) == i], context
                )
        for turn in turns:
            example, generator = context.pool[order[turn]], generators[turn % len(generators)]
            advance(1)
            proposed = False
            for proposal in generator.propose(example, context, rng):
                proposed = True
                candidate = Candidate(example, proposal)
                if _passes(candidate, filters, counts, dropped):
                    yield candidate
                    break
            if not (
                proposed or generator.prepare
            ):  # those that prepare say themselves what was missing
                context.set_aside[generator.name, NOTHING] += 1


def _passes(
    candidate: Candidate,
    filters: Sequence[Filter],
    counts: Counts,
    dropped: Callable[[Dropped], object],
) -> bool:
    for i, filter in enumerate(filters):
        if (reason := filter.reject(candidate)) is not None:
            counts[candidate.proposal.generator, filter.name] += 1
            dropped(Dropped(candidate, [f.name for f in filters[:i]], filter.name, reason))
            return False
    for filter in filters:
        if hasattr(filter, "remember"):
            filter.remember(candidate)
    return True


def _row(candidate: Candidate, filters: Sequence[str]) -> dict[str, Any]:
    p = candidate.proposal
    extra = {"kind": p.generator, "generator": p.generator, "filters": list(filters)}
    origin = {"source": candidate.example.source, "split": candidate.example.split}
    return VQAExample(
        candidate.id, candidate.image, p.question, (), False, extra | dict(p.extra), **origin
    ).to_json()
