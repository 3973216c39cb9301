"""From examples to Type 3 questions: generators propose, filters reject, and all is counted."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from inbol_jax.extrinsic.files import KEPT
from inbol_jax.extrinsic.filters import FILTERS, MODEL_FILTERS, Candidate, FilterContext
from inbol_jax.extrinsic.generators import CannotPropose, Generator
from inbol_jax.questions import METRICS
from inbol_jax.records import VQAExample

CHUNK = 256  # examples that a model looks at together
# The cause if a generator ends without a proposal.
NOTHING = "nothing to ask about"
WriteRow = Callable[[Mapping[str, Any]], object]


class Funnel:
    """Generators that take turns over examples in random order, and the filters behind them.

    The questions are the same whatever their number, and none stays in memory but what the filters
    remember.

    Args:
      generators: in the order of their turns; one that is there twice has two of them.
      filters: names out of `FILTERS` and `MODEL_FILTERS`, in any order.
      keep: called with the row of each question that passes all filters.
      reject: called with the row of each question that a filter rejects.
      advance: called after each example.

    Attributes:
      filters: the names, in the order in which the filters are applied.
      verdicts: number of questions by generator and by `KEPT` or the filter that rejected them.
      set_aside: number of examples by generator and cause of which no question was made.
    """

    def __init__(
        self,
        context: FilterContext,
        generators: Sequence[Generator],
        filters: Sequence[str],
        *,
        keep: WriteRow,
        reject: WriteRow,
        advance: Callable[[], object] = lambda: None,
    ):
        self.filters = [name for name in (*FILTERS, *MODEL_FILTERS) if name in filters]
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.set_aside: Counter[tuple[str, str]] = Counter()
        self._context, self._generators = context, generators
        self._keep, self._reject, self._advance = keep, reject, advance

    def run(self, n: int) -> int:
        """Makes up to n questions, at most one per example. Returns their number."""
        kept = 0
        candidates = self._candidates(min(CHUNK, 2 * n))
        # No more than could all be kept: what nobody waits for is neither made nor counted.
        while batch := list(islice(candidates, min(CHUNK, n - kept))):
            for name in self.filters:
                if name in MODEL_FILTERS:
                    reasons = MODEL_FILTERS[name](batch, self._context)
                    pairs = list(zip(batch, reasons, strict=True))
                    batch = [c for c, reason in pairs if not self._drop(c, name, reason)]
            for candidate in batch:
                self._keep(self._row(candidate))
                self.verdicts[candidate.proposal.generator, KEPT] += 1
            kept += len(batch)
        return kept

    def _candidates(self, size: int) -> Iterator[Candidate]:
        """The proposals that pass the filters without a model, of `size` examples at a time."""
        source, turns = self._context.source, len(self._generators)
        rng = np.random.default_rng(self._context.config.seed)
        order = rng.permutation(len(source.pool))
        for start in range(0, len(order), size):
            # The examples with the generator whose turn it is.
            chunk = [
                (source.pool[i], self._generators[turn % turns])
                for turn, i in enumerate(order[start : start + size], start)
            ]
            prepared: dict[str, Any] = {}  # by the example's id
            for generator in {g.name: g for _, g in chunk if g.prepare}.values():
                own = [example for example, g in chunk if g is generator]
                prepared |= generator.prepare(own, source)
            context = dataclasses.replace(source, prepared=prepared)
            for example, generator in chunk:
                self._advance()
                cause = NOTHING
                try:
                    for proposal in generator.propose(example, context, rng):
                        cause, candidate = "", Candidate(example, proposal)
                        if self._passes(candidate):
                            yield candidate
                            break
                except CannotPropose as error:
                    cause = str(error)
                if cause:
                    self.set_aside[generator.name, cause] += 1

    def _passes(self, candidate: Candidate) -> bool:
        for name in self.filters:
            if name in FILTERS:
                reason = FILTERS[name].reject(candidate, self._context)
                if self._drop(candidate, name, reason):
                    return False
        return True

    def _drop(self, candidate: Candidate, filter: str, reason: str | None) -> bool:
        """Counts and writes a rejection. Returns whether there is a reason for one."""
        if reason is None:
            return False
        proposal = candidate.proposal
        self.verdicts[proposal.generator, filter] += 1
        self._reject(
            {
                "id": candidate.id,
                "images": [candidate.image],
                "question": proposal.question,
                "generator": proposal.generator,
                "passed": self.filters[: self.filters.index(filter)],
                "filter": filter,
                "reason": reason,
            }
        )
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
            extra={**made_by, "filters": self.filters, **proposal.extra},
            options=proposal.options,
            metric="choice" if proposal.options else METRICS[0],
            source=candidate.example.source,
            split=candidate.example.split,
        ).to_json()
