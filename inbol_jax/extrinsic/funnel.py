"""From examples to Type 3 questions: generators propose, filters reject, and all is counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from inbol_jax.extrinsic.files import KEPT
from inbol_jax.extrinsic.filters import Candidate, Filter
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
      generators: in the order of their turns; one that is there twice has two of them.
      filters: by name, in the order in which they are applied.
      seed: of the order of the examples, and of what the generators draw.
      reject: called with the row of each question that a filter rejects.
      advance: called after each example.

    Attributes:
      verdicts: number of questions by generator and by `KEPT` or the filter that rejected them.
      set_aside: number of examples by generator and cause of which no question was made.
    """

    def __init__(
        self,
        context: Context,
        generators: Sequence[Generator],
        filters: Mapping[str, Filter],
        *,
        seed: int,
        reject: Callable[[Mapping[str, Any]], object],
        advance: Callable[[], object] = lambda: None,
    ):
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.set_aside: Counter[tuple[str, str]] = Counter()
        self._context, self._generators, self._filters = context, generators, filters
        self._seed, self._reject, self._advance = seed, reject, advance

    def questions(self, n: int) -> Iterator[dict[str, Any]]:
        """Yields the rows of up to n questions, at most one per example."""
        return islice(self._questions(min(CHUNK, 2 * n)), n)

    def _questions(self, size: int) -> Iterator[dict[str, Any]]:
        """Models look at `size` examples at a time; what they say of each waits in the context."""
        context, turns = self._context, len(self._generators)
        # All draw from one source: what a generator draws decides what the next one gets.
        rng = np.random.default_rng(self._seed)
        order = rng.permutation(len(context.pool))
        for start in range(0, len(order), size):
            # The examples with the generator whose turn it is.
            chunk = [
                (context.pool[i], self._generators[turn % turns])
                for turn, i in enumerate(order[start : start + size], start)
            ]
            # Each generator prepares its own examples of the chunk, in one call to the model.
            context.prepared = {}
            for generator in {g.name: g for _, g in chunk if g.prepare}.values():
                own = [example for example, g in chunk if g is generator]
                context.prepared |= generator.prepare(own, context)
            for example, generator in chunk:
                self._advance()
                if candidate := self._first_that_passes(example, generator, rng):
                    self.verdicts[generator.name, KEPT] += 1
                    yield self._row(candidate)

    def _first_that_passes(
        self, example: VQAExample, generator: Generator, rng: np.random.Generator
    ) -> Candidate | None:
        cause = NOTHING
        try:
            for proposal in generator.propose(example, self._context, rng):
                # What filters reject is counted under them, and not as set aside.
                cause, candidate = "", Candidate(example, proposal)
                if self._passes(candidate):
                    return candidate
        except CannotPropose as error:
            cause = str(error)
        if cause:
            self.set_aside[generator.name, cause] += 1
        return None

    def _passes(self, candidate: Candidate) -> bool:
        """Whether no filter rejects the candidate; a rejection is counted and handed on."""
        for passed, (name, filter) in enumerate(self._filters.items()):
            if reason := filter.reject(candidate, self._context):
                proposal = candidate.proposal
                self.verdicts[proposal.generator, name] += 1
                self._reject(
                    {
                        "id": candidate.id,
                        "images": [candidate.image],
                        "question": proposal.question,
                        "generator": proposal.generator,
                        "passed": [*self._filters][:passed],
                        "filter": name,
                        "reason": reason,
                    }
                )
                return False
        return True

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        """The line of a question that is kept."""
        proposal = candidate.proposal
        made_by = {"kind": proposal.generator, "generator": proposal.generator}
        return VQAExample(
            candidate.id,
            (candidate.image,),
            proposal.question,
            answerable=False,
            extra={**made_by, "filters": [*self._filters], **proposal.extra},
            options=proposal.options,
            metric="choice" if proposal.options else METRICS[0],
            source=candidate.example.source,
            split=candidate.example.split,
        ).to_json()
