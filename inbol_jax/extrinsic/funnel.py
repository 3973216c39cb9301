"""From examples to Type 3 questions: generators propose, filters reject, and all is counted."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inbol_jax.extrinsic.files import KEPT
from inbol_jax.extrinsic.filters import Answered, Candidate, Filter
from inbol_jax.extrinsic.generators import CannotPropose, Generator, GeneratorContext
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
      seed: of the order and of the generators' choices.
      keep: called with the row of each question that passes all filters.
      reject: called with the row of each question that a filter rejects.
      advance: called after each example.

    Attributes:
      verdicts: number of questions by generator and by `KEPT` or the filter that rejected them.
      set_aside: number of examples by generator and cause of which no question was made.
    """

    def __init__(
        self,
        context: GeneratorContext,
        generators: Sequence[Generator],
        filters: Sequence[Filter],
        seed: int,
        *,
        keep: WriteRow,
        reject: WriteRow,
        advance: Callable[[], object] = lambda: None,
    ):
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.set_aside: Counter[tuple[str, str]] = Counter()
        self._context, self._generators = context, generators
        self._by_model = [f for f in filters if isinstance(f, Answered)]
        self._single = [f for f in filters if not isinstance(f, Answered)]
        self._filter_names = [f.name for f in filters]
        self._rng = np.random.default_rng(seed)
        self._keep, self._reject, self._advance = keep, reject, advance

    def run(self, n: int) -> int:
        """Makes up to n questions, at most one per example. Returns their number."""
        order = self._rng.permutation(len(self._context.pool))
        size = min(CHUNK, 2 * n)
        waiting: list[Candidate] = []  # for the filters that ask the model
        kept = 0
        for start in range(0, len(order), size):
            chunk = [self._context.pool[i] for i in order[start : start + size]]
            contexts = self._prepare(chunk, start)
            for turn, example in enumerate(chunk, start):
                generator = self._generators[turn % len(self._generators)]
                self._advance()
                candidate = self._propose(generator, example, contexts[generator.name])
                if candidate is not None:
                    waiting.append(candidate)
                # No more than could all be kept: what nobody waits for is neither made nor counted.
                if len(waiting) == min(CHUNK, n - kept):
                    kept += self._finish(waiting)
                    waiting = []
                    if kept == n:
                        return kept
        return kept + self._finish(waiting)

    def _prepare(self, chunk: Sequence[VQAExample], start: int) -> Mapping[str, GeneratorContext]:
        """Each generator's context, with what it has prepared for its own turns of the chunk."""
        contexts: dict[str, GeneratorContext] = {}
        turns = len(self._generators)
        for generator in self._generators:
            if generator.name in contexts:
                continue
            context = contexts[generator.name] = self._context
            if generator.prepare:
                own = [
                    example
                    for turn, example in enumerate(chunk, start)
                    if self._generators[turn % turns] is generator
                ]
                prepared = generator.prepare(own, context)
                contexts[generator.name] = dataclasses.replace(context, prepared=prepared)
        return contexts

    def _propose(
        self, generator: Generator, example: VQAExample, context: GeneratorContext
    ) -> Candidate | None:
        """The first proposal that passes the single filters."""
        cause = NOTHING
        try:
            for proposal in generator.propose(example, context, self._rng):
                cause = ""
                candidate = Candidate(example, proposal)
                if self._passes(candidate):
                    return candidate
        except CannotPropose as error:
            cause = str(error)
        if cause:
            self.set_aside[generator.name, cause] += 1
        return None

    def _passes(self, candidate: Candidate) -> bool:
        for filter in self._single:
            if (reason := filter.reject(candidate)) is not None:
                self._drop(candidate, filter.name, reason)
                return False
        for filter in self._single:
            filter.remember(candidate)
        return True

    def _finish(self, candidates: Sequence[Candidate]) -> int:
        """Asks the model, and keeps the candidates that pass. Returns how many."""
        for filter in self._by_model:
            passed = []
            for candidate, reason in zip(candidates, filter.reject_many(candidates), strict=True):
                if reason is None:
                    passed.append(candidate)
                else:
                    self._drop(candidate, filter.name, reason)
            candidates = passed
        for candidate in candidates:
            proposal = candidate.proposal
            self.verdicts[proposal.generator, KEPT] += 1
            made_by = {"kind": proposal.generator, "generator": proposal.generator}
            question = VQAExample(
                candidate.id,
                candidate.image,
                proposal.question,
                answerable=False,
                extra={**made_by, "filters": self._filter_names, **proposal.extra},
                source=candidate.example.source,
                split=candidate.example.split,
            )
            self._keep(question.to_json())
        return len(candidates)

    def _drop(self, candidate: Candidate, filter: str, reason: str) -> None:
        proposal = candidate.proposal
        self.verdicts[proposal.generator, filter] += 1
        self._reject(
            {
                "id": candidate.id,
                "image": candidate.image,
                "question": proposal.question,
                "generator": proposal.generator,
                "passed": self._filter_names[: self._filter_names.index(filter)],
                "filter": filter,
                "reason": reason,
            }
        )
