"""Whether samples can serve: a share that was cut, and a mean confidence near 0 or 1, are said."""

import heapq
import textwrap
from collections import Counter
from collections.abc import Iterator

from inbol_jax.artifacts import hash64
from inbol_jax.progress import say
from inbol_jax.records import SampledQuestion

MAX_CUT = 0.05  # share of the answers above which a warning is given
NEAR = 0.02  # distance of the mean confidence from 0 or 1 up to which a warning is given
EARLY = 50  # questions with gold answers after which a run is judged before its end
EXAMPLES = 10  # questions that are shown beside their gold answers
WIDTH = 120  # characters of a text that are shown


class Doubts:
    """Counts the samples of a run, and says what speaks against them.

    Attributes:
      n_questions, n_judged: how many questions there are, and how many have gold answers.
      n_samples, n_cut: how many samples there are, and how many of them were cut.
      warned: whether a warning was said.
    """

    def __init__(self, *, warned: bool = False) -> None:
        self.warned = warned
        self.n_questions = self.n_judged = self.n_samples = self.n_cut = 0
        self._confidence = 0.0  # summed over the judged questions
        self._examples: list[SampledQuestion] = []

    def add(self, question: SampledQuestion) -> None:
        """Counts a question."""
        self.n_questions += 1
        self.n_samples += question.n_samples
        self.n_cut += sum(sample.cut for sample in question.samples)
        if question.example.answerable is False or not question.example.answers:
            return
        # Questions of one kind follow each other: those with the smallest hashes are of any kind.
        questions = [*self._examples, question]
        self._examples = heapq.nsmallest(EXAMPLES, questions, key=lambda q: hash64(q.example.id))
        self.n_judged += 1
        self._confidence += question.confidence

    def summary(self) -> str:
        """The mean confidence, and the share of samples that were cut; empty without samples."""
        mean = f", mean confidence {self._confidence / self.n_judged:.3f}" if self.n_judged else ""
        cut = f", {self.n_cut / self.n_samples:.1%} of the samples cut" if self.n_samples else ""
        return mean + cut

    def warn(self, label: str, max_new_tokens: int) -> None:
        """Says the lines of `warnings`."""
        for line in self.warnings(label, max_new_tokens):
            self.warned = True
            say(line)

    def warnings(self, label: str, max_new_tokens: int) -> Iterator[str]:
        """Yields the lines of the warnings; none if there is nothing to say."""
        yield from cut_warning(label, self.n_cut, self.n_samples, max_new_tokens)
        mean = self._confidence / self.n_judged if self.n_judged else 0.5
        if NEAR < mean < 1 - NEAR:
            return
        about = f"Warning: {label}: the mean confidence of {self.n_judged} questions is {mean:.3f}"
        if mean < 0.5:
            yield (
                f"{about}, so hardly anything will be taught to be answered. If answers below are "
                "right, the metric does not see it (--metric of an import) or the model has to "
                "be told how to answer (--prompt); if they break off, raise --max-new-tokens"
            )
        else:
            yield (
                f"{about}, so hardly anything will be taught to be refused. If answers below are "
                "wrong, the metric is too lenient (--metric of an import); otherwise ask harder "
                "questions"
            )
        yield from map(_beside_gold, self._examples)


def cut_warning(label: str, n_cut: int, n: int, max_new_tokens: int) -> Iterator[str]:
    """Yields a line if more than `MAX_CUT` of n answers were cut."""
    if n_cut > MAX_CUT * n:
        yield (
            f"Warning: {label}: {n_cut / n:.0%} of the answers were cut at --max-new-tokens "
            f"{max_new_tokens}, before they ended by themselves; give more, or ask for short ones"
        )


def _beside_gold(question: SampledQuestion) -> str:
    """The most frequent of a question's answers beside the most frequent gold answer."""
    ((said, count),) = Counter(sample.text for sample in question.samples).most_common(1)
    ((gold, _),) = Counter(question.example.answers).most_common(1)
    asked, said, gold = (
        textwrap.shorten(text, WIDTH, placeholder="...")
        for text in (question.example.question, said, gold)
    )
    return f'  "{asked}": {count} of {question.n_samples} say "{said}"; gold is "{gold}"'
