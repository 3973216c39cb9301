"""The report's gallery: questions with their images and what every model says to them."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from inbol_jax.evaluation.prediction import TYPES, Prediction


def choose_questions(
    predictions: Sequence[Prediction], size: int, seed: int
) -> list[list[Prediction]]:
    """A random choice of questions, as evenly as possible from every domain and type.

    The order of the questions does not matter, that of the models does.

    Returns: at most `size` questions, each with the predictions of all models, in the order of
      domains and types.
    """
    questions: dict[tuple[str, str], list[Prediction]] = {}
    for p in predictions:
        questions.setdefault((p.dataset, p.id), []).append(p)
    strata: dict[tuple[str, int], list[list[Prediction]]] = {}
    for _, answers in sorted(questions.items()):
        first = answers[0]
        strata.setdefault((first.domain, TYPES.index(first.type)), []).append(answers)
    random = np.random.default_rng(seed)
    shuffled = []
    for key, stratum in sorted(strata.items()):
        shuffled.append([(key, stratum[i]) for i in random.permutation(len(stratum))])
    # One question of each stratum in turn; a stratum that is used up gives None.
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    chosen = itertools.islice(filter(None, turns), size)
    return [answers for _, answers in sorted(chosen, key=lambda turn: turn[0])]


def gold(question: Prediction) -> str:
    """The gold answers of a question, each one once, the most frequent first."""
    return ", ".join(answer for answer, _ in Counter(question.answers).most_common())


def mark(answer: Prediction) -> tuple[str, str, str]:
    """Sign, word and CSS class for what an answer is worth to the user."""
    worth = answer.user_value
    sign, colour = {1: ("✓", "good"), 0: ("○", "neutral"), -1: ("✗", "bad")}[worth]
    return sign, "answered" if answer.type == 3 and worth < 0 else answer.outcome, colour
