"""From examples to Type 3 questions: generators propose, filters reject, and all is counted."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from inbol_jax.extrinsic.files import KEPT, FunnelCounts, RejectedQuestion
from inbol_jax.extrinsic.filters import BatchFilter, Candidate, Filter
from inbol_jax.extrinsic.generators import CannotPropose, Generator, GeneratorContext
from inbol_jax.records import VQAExample

CHUNK = 256  # examples that a model looks at together
# The cause if a generator ends without a proposal.
NOTHING = "nothing to ask about"


class Funnel:
    """Generators that take turns over examples in random order, and the filters behind them.

    The questions are the same whatever their number, and none stays in memory but what the filters
    remember.

    Args:
      seed: of the order and of the generators' choices.
      keep: called with each question that passes all filters.
      reject: called with each question that a filter rejects.
      advance: called with the number of examples that have had their turn.
    """

    def __init__(
        self,
        context: GeneratorContext,
        generators: Sequence[Generator],
        filters: Sequence[Filter],
        seed: int,
        *,
        keep: Callable[[VQAExample], object],
        reject: Callable[[RejectedQuestion], object] = lambda question: None,
        advance: Callable[[int], object] = lambda examples: None,
    ):
        self._context = context
        self._generators = generators
        self._batch = [f for f in filters if isinstance(f, BatchFilter)]
        self._single = [f for f in filters if not isinstance(f, BatchFilter)]
        self._filter_names = [f.name for f in filters]
        self._rng = np.random.default_rng(seed)
        self._keep, self._reject, self._advance = keep, reject, advance

    def run(self, n: int) -> FunnelCounts:
        """Makes up to n questions, at most one per example. Returns the counts."""
        counts = FunnelCounts()
        order = self._rng.permutation(len(self._context.pool))
        size = min(CHUNK, 2 * n)
        waiting: list[Candidate] = []  # for the batch filters
        kept = 0
        for start in range(0, len(order), size):
            chunk = [self._context.pool[i] for i in order[start : start + size]]
            contexts = self._prepare(chunk, start)
            for turn, example in enumerate(chunk, start):
                generator = self._generators[turn % len(self._generators)]
                self._advance(1)
                candidate = self._propose(generator, example, contexts[generator.name], counts)
                if candidate is not None:
                    waiting.append(candidate)
                # No more than could all be kept: what nobody waits for is neither made nor counted.
                if len(waiting) == min(CHUNK, n - kept):
                    kept += self._finish(waiting, counts)
                    waiting = []
                    if kept == n:
                        return counts
        self._finish(waiting, counts)
        return counts

    def _prepare(self, chunk: Sequence[VQAExample], start: int) -> Mapping[str, GeneratorContext]:
        """Each generator's context, with what it has prepared for its own turns of the chunk."""
        contexts = {}
        for i, generator in enumerate(self._generators):
            context = self._context
            if generator.prepare:
                own = chunk[(i - start) % len(self._generators) :: len(self._generators)]
                context = dataclasses.replace(context, prepared=generator.prepare(own, context))
            contexts[generator.name] = context
        return contexts

    def _propose(
        self,
        generator: Generator,
        example: VQAExample,
        context: GeneratorContext,
        counts: FunnelCounts,
    ) -> Candidate | None:
        """The first proposal that passes the single filters."""
        cause: str | None = NOTHING
        try:
            for proposal in generator.propose(example, context, self._rng):
                cause = None
                candidate = Candidate(example, proposal)
                if self._passes(candidate, counts):
                    return candidate
        except CannotPropose as error:
            cause = str(error)
        if cause is not None:
            counts.set_aside[generator.name, cause] += 1
        return None

    def _passes(self, candidate: Candidate, counts: FunnelCounts) -> bool:
        for filter in self._single:
            if (reason := filter.reject(candidate)) is not None:
                self._drop(candidate, filter.name, reason, counts)
                return False
        for filter in self._single:
            filter.remember(candidate)
        return True

    def _finish(self, candidates: Sequence[Candidate], counts: FunnelCounts) -> int:
        """Asks the batch filters, and keeps the candidates that pass them all. Returns how many."""
        for filter in self._batch:
            passed = []
            reasons = filter.reject_many(candidates)
            for candidate, reason in zip(candidates, reasons, strict=True):
                if reason is None:
                    passed.append(candidate)
                else:
                    self._drop(candidate, filter.name, reason, counts)
            candidates = passed
        for candidate in candidates:
            counts.verdicts[candidate.proposal.generator, KEPT] += 1
            self._keep(self._question(candidate))
        return len(candidates)

    def _drop(self, candidate: Candidate, filter: str, reason: str, counts: FunnelCounts) -> None:
        proposal = candidate.proposal
        counts.verdicts[proposal.generator, filter] += 1
        passed = self._filter_names[: self._filter_names.index(filter)]
        about = (candidate.id, candidate.image, proposal.question, proposal.generator)
        self._reject(RejectedQuestion(*about, passed, filter, reason))

    def _question(self, candidate: Candidate) -> VQAExample:
        proposal = candidate.proposal
        made_by = {"kind": proposal.generator, "generator": proposal.generator}
        return VQAExample(
            candidate.id,
            candidate.image,
            proposal.question,
            answerable=False,
            extra=made_by | {"filters": list(self._filter_names)} | dict(proposal.extra),
            source=candidate.example.source,
            split=candidate.example.split,
        )
