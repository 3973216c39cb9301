"""Selective prediction: what a model is worth if it refuses where a score is high, in plain numpy.

One score per question says how much speaks for a refusal: the question is refused if its score is
above a threshold. A score of +inf is refused under every threshold (the model refuses by itself).
All arrays have the shape [n], one entry per question, and all functions are independent of the
order of the questions and of any increasing transformation of the scores.

Sources: the risk-coverage curve of El-Yaniv and Wiener 2010 (JMLR 11) and its area, AURC, of
Geifman et al. 2019 (arXiv 1805.08206); coverage at risk and effective reliability Phi_c of
Whitehead et al. 2022 (arXiv 2204.13631). T on answerable questions is Phi_1 with hard correctness,
and CRAG's truthfulness (Yang et al. 2024, arXiv 2406.04744).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.intervals import Estimate

MIN_QUESTIONS = 20  # of fewer, a bootstrap interval is too narrow to tell two models apart
RISKS = (0.01, 0.05, 0.1, 0.2)  # whose coverage is reported
FOLDS = 10  # of validation questions, for what a threshold is worth where it was not chosen
COSTS = (1, 10, 100)  # of a wrong answer, whose effective reliability is reported


class Stakes(NamedTuple):
    """What is at stake with each question.

    Attributes:
      score: f64[n], how much speaks for a refusal; +inf if the model refuses by itself.
      answered: f64[n], what the answer is worth.
      refused: f64[n], what a refusal is worth.
    """

    score: np.ndarray
    answered: np.ndarray
    refused: np.ndarray

    def value(self, threshold: float) -> float:
        """The mean value if the questions whose score is above the threshold are refused."""
        return float(np.where(self.score > threshold, self.refused, self.answered).mean())


class ValueCurve(NamedTuple):
    """Every distinct way to place a threshold, from refusing most to answering most.

    Attributes:
      threshold: f64[k], rising; halfway between two scores, and 1 beyond the lowest and highest.
      refused: f64[k], the share of the questions that is refused.
      value: f64[k], the mean value.
    """

    threshold: np.ndarray
    refused: np.ndarray
    value: np.ndarray


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """How often a positive question scores above a negative one, a tie counting half.

    Args:
      positive: bool[n].

    Returns:
      the area under the ROC curve, from Mann and Whitney's U; None if a class is empty.
    """
    # Scores (1, 2, 2, 3): counts (1, 2, 1), ranks (1, 2.5, 2.5, 4). Of the n m pairs of a positive
    # and a negative, U = (sum of the positives' ranks) - n (n + 1) / 2 are in order.
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1; equal scores share the mean
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def value_curve(stakes: Stakes) -> ValueCurve:
    """The mean value under every threshold that makes a difference."""
    # As the threshold rises over a level, the questions of that level go from refused to answered:
    # the value changes by their sum of answered - refused.
    #     score 0.2 0.2 0.7, answered 1 -1 1, refused 0: gains 0 1, so the value / n is 0, 0, 1/3
    #     under the thresholds -0.8 (refuse all), 0.45 (answer two), 1.7 (answer all)
    levels, place = np.unique(stakes.score, return_inverse=True)
    n, finite = len(place), levels[np.isfinite(levels)]
    gain = np.bincount(place, stakes.answered - stakes.refused, minlength=len(levels))
    count = np.bincount(place, minlength=len(levels))
    answered = np.concatenate([[0], np.cumsum(count)])[: len(finite) + 1]
    value = stakes.refused.sum() + np.concatenate([[0.0], np.cumsum(gain)])[: len(finite) + 1]
    return ValueCurve(_between(finite), 1 - answered / n, value / n)


def _between(levels: np.ndarray) -> np.ndarray:
    """f64[k + 1]: a threshold below all k levels, between any two, and above all."""
    if not len(levels):
        return np.zeros(1)
    middle = levels[:-1] + np.diff(levels) / 2
    return np.concatenate([[levels[0] - 1], middle, [levels[-1] + 1]])


def best_threshold(stakes: Stakes) -> float:
    """The threshold of the highest mean value; of equally good ones that which answers most.

    Raises:
      InbolError: if there is no question.
    """
    if not len(stakes.score):
        raise InbolError("a threshold is chosen on questions, and there is none")
    curve = value_curve(stakes)
    # Sums of floats: equally good values may differ in their last bits.
    best = np.flatnonzero(curve.value >= curve.value.max() - 1e-12)[-1]
    return float(curve.threshold[best])


class Calibration(NamedTuple):
    """What choosing a refusal bias on n questions is worth.

    Attributes:
      bias: the best one, minus the threshold on the margin, with the 95% bootstrap interval of such
        a choice.
      gain: of T over no bias, on questions on which the bias was not chosen, with its 95% interval.
    """

    n: int
    bias: Estimate
    gain: Estimate

    @property
    def tells(self) -> bool:
        """Whether the questions tell the bias from none."""
        return self.n >= MIN_QUESTIONS and self.gain.low > 0


def calibration(stakes: Stakes) -> Calibration:
    """The best bias on the margin, which is the score, and what can be expected of it.

    For the gain the questions are dealt into `FOLDS` parts in the order of their scores. The bias
    of each part is chosen on the others.
    """
    columns = np.stack(stakes)  # 3 n
    # Sorted by score, then by both values: the folds do not depend on the order of the questions.
    n, columns = columns.shape[1], columns[:, np.lexsort(columns[::-1])]
    # Fold 0 gets the scores 0, 10, 20, ... of the order: every fold covers the whole range.
    fold, change = np.arange(n) % FOLDS, np.zeros(n)
    for part in range(min(FOLDS, n) if n > 1 else 0):
        score, answered, refused = columns
        threshold = best_threshold(Stakes(*columns[:, fold != part]))
        # 1: refused only with the bias; -1: refused only without it; 0: no change.
        moved = (score > threshold).astype(float) - (score > 0)
        change[fold == part] = (moved * (refused - answered))[fold == part]
    # The choice is made anew on each resample: the interval is of choosing, not of one choice.
    bias = bootstrap(lambda i: 0.0 - best_threshold(Stakes(*columns[:, i])), n, resamples=200)
    return Calibration(n, bias, bootstrap(lambda i: float(change[i].mean()), n))


def risk_coverage(score: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve. Questions of equal score are answered together.

    Args:
      correct: bool[n]; an answer to a Type 3 question is wrong.
    Returns:
      f64[k] each, from few answers to many: coverage, the share of all questions that is
      answered, and risk, the share of the answered ones that is answered wrongly.
    """
    levels, place = np.unique(score, return_inverse=True)
    # Levels of +inf are never answered, and come last.
    k = int(np.isfinite(levels).sum())
    answered = np.cumsum(np.bincount(place, minlength=len(levels)))[:k]
    wrong = np.cumsum(np.bincount(place, ~correct, minlength=len(levels)))[:k]
    return answered / len(score), wrong / answered


def aurc(score: np.ndarray, correct: np.ndarray) -> float | None:
    """The area under the risk-coverage curve: the mean risk of the first 1, 2, ..., m answers.

    m counts the questions of finite score. Of equal scores the mean over all orders is taken, so
    that a score of few levels is neither favoured nor punished. None if m is 0.
    """
    levels, place = np.unique(score, return_inverse=True)
    k = int(np.isfinite(levels).sum())
    count = np.bincount(place, minlength=len(levels))[:k]
    wrong = np.bincount(place, ~correct, minlength=len(levels))[:k]
    # Scores 1 1 2, of which the first is wrong: 1/2 and 1/2 wrong in level 1, 0 in level 2. Errors
    # 0.5, 1, 1 over 1, 2, 3 answers: risks 0.5, 0.5, 0.33, whose mean is 0.44.
    # Within a level each further answer adds the level's own share of wrong ones.
    errors = np.cumsum(np.repeat(wrong / np.maximum(count, 1), count))
    return float((errors / np.arange(1, len(errors) + 1)).mean()) if len(errors) else None


def coverage_at_risk(score: np.ndarray, correct: np.ndarray, risk: float) -> float:
    """The largest coverage whose risk is at most `risk` (from 0 to 1); 0 if there is none."""
    # The curve may fall and rise again: the largest coverage of all that are good enough.
    coverages, risks = risk_coverage(score, correct)
    return float(coverages[risks <= risk + 1e-12].max(initial=0.0))


def effective_reliability(correct: np.ndarray, answered: np.ndarray, cost: float) -> float:
    """Phi_c of Whitehead et al. 2022 (arXiv 2204.13631) with hard correctness.

    A correct answer is worth 1, a refusal 0 and a wrong answer -cost.

    Args:
      correct, answered: bool[n] each.
    """
    return float(np.where(answered, np.where(correct, 1.0, -cost), 0.0).mean())


def bootstrap(
    statistic: Callable[[np.ndarray], float | None], n: int, *, resamples: int = 500, seed: int = 0
) -> Estimate:
    """A statistic of n questions with its 95% percentile bootstrap interval.

    The difference of two models is paired if the statistic looks up both under one index. Unlike
    `metrics.bootstrap_mean` it takes any statistic, and the time of that many calls.

    Args:
      statistic: index of questions i64[n] -> a number; None if it is not defined for them.
    """
    value = statistic(np.arange(n)) if n else None
    if value is None:
        return Estimate()
    random = np.random.default_rng(seed)
    # Whole questions are drawn: what a statistic compares under one index stays together.
    drawn = (statistic(random.integers(n, size=n)) for _ in range(resamples))
    low, high = np.percentile([d for d in drawn if d is not None] or [value], (2.5, 97.5))
    return Estimate(value, float(low), float(high))
