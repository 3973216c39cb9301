"""From examples to Type 3 questions: generators propose, filters reject, and all is counted."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from inbol_jax.extrinsic.files import KEPT
from inbol_jax.extrinsic.filters import FILTERS, Candidate
from inbol_jax.extrinsic.generators import CannotPropose, Context, Generator
from inbol_jax.questions import METRICS
from inbol_jax.records import VQAExample

CHUNK = 256  # examples that a model looks at together
NOTHING = "nothing to ask about"  # the cause if a generator ends without a proposal


class Funnel:
    """Generators that take turns over examples in random order, and the filters behind them.

    The questions are the same whatever their number, and none stays in memory but what the filters
    remember.

    Args:
      generators: in the order of their turns.
      seed: of the order of the examples, and of what the generators draw.
      advance: called after each example.

    Attributes:
      verdicts: number of questions by generator and by `KEPT` or the filter that rejected them.
      set_aside: number of examples by generator and cause of which no question was made.
    """

    def __init__(
        self,
        context: Context,
        generators: Sequence[Generator],
        *,
        seed: int,
        advance: Callable[[], object] = lambda: None,
    ):
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.set_aside: Counter[tuple[str, str]] = Counter()
        self._context, self._generators = context, generators
        self._seed, self._advance = seed, advance

    def questions(self, n: int) -> Iterator[dict[str, Any]]:
        """Yields the rows of up to n questions, at most one per example."""
        return islice(self._questions(min(CHUNK, 2 * n)), n)

    def _questions(self, size: int) -> Iterator[dict[str, Any]]:
        """Models look at `size` examples at a time; what they say of each waits in the context."""
        # All draw from one source: what a generator draws decides what the next one gets.
        rng = np.random.default_rng(self._seed)
        order = rng.permutation(len(self._context.pool))
        for start in range(0, len(order), size):
            chunk = [self._context.pool[i] for i in order[start : start + size]]
            kept: dict[int, Candidate] = {}
            waiting: Iterable[int] = range(len(chunk))
            # An example whose own question is to be asked is handed on from one generator to the
            # next, so that the questions have the words of the dataset's own in equal shares.
            for attempt in range(len(self._generators)):
                chains = {i: self._chain(start + i) for i in waiting if i not in kept}
                turns = {i: g[attempt] for i, g in chains.items() if attempt < len(g)}
                self._context.prepared = {}
                # Each generator prepares its examples in one call to the model.
                for generator in {g.name: g for g in turns.values() if g.prepare}.values():
                    own = [chunk[i] for i, g in turns.items() if g is generator]
                    self._context.prepared |= generator.prepare(own, self._context)
                for i, generator in turns.items():
                    if attempt == 0:
                        self._advance()
                    if candidate := self._first_that_passes(chunk[i], generator, rng):
                        kept[i] = candidate
                waiting = turns
            for i in sorted(kept):
                self.verdicts[kept[i].proposal.generator, KEPT] += 1
                yield self._row(kept[i])

    def _chain(self, i: int) -> list[Generator]:
        """The generators that the i-th example is handed on to, the one whose turn it is first."""
        n = len(self._generators)
        first, *others = (self._generators[(i + k) % n] for k in range(n))
        return [first, *(g for g in others if first.own_question and g.own_question)]

    def _first_that_passes(
        self, example: VQAExample, generator: Generator, rng: np.random.Generator
    ) -> Candidate | None:
        cause = NOTHING
        if generator.own_question:  # whose turn it was before must not matter
            rng = np.random.default_rng((self._seed, zlib.crc32(example.id.encode())))
        try:
            for proposal in generator.propose(example, self._context, rng):
                # What filters reject is counted under them, and not as set aside.
                cause, candidate = "", Candidate(example, proposal)
                rejecting = (name for name, f in FILTERS.items() if f(candidate, self._context))
                if (name := next(rejecting, None)) is None:
                    return candidate
                self.verdicts[proposal.generator, name] += 1
        except CannotPropose as error:
            cause = str(error)
        if cause:
            self.set_aside[generator.name, cause] += 1
        return None

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        """The line of a question that is kept."""
        proposal = candidate.proposal
        made_by = {"kind": proposal.generator, "generator": proposal.generator}
        return VQAExample(
            candidate.id,
            (candidate.image,),
            proposal.question,
            answerable=False,
            extra={**made_by, **proposal.extra},
            options=proposal.options,
            metric="choice" if proposal.options else METRICS[0],
            source=candidate.example.source,
            split=candidate.example.split,
        ).to_json()
