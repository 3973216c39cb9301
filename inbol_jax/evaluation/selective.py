"""Selective prediction: what a model is worth if it refuses where a score is high, in plain numpy.

One score per question says how much speaks for a refusal: the question is refused if its score is
above a threshold. A score of +inf is refused under every threshold (the model refuses by itself).
All arrays have the shape [n], one entry per question:

    score: f64, how much speaks for a refusal
    answered, refused: f64, what the answer and what a refusal is worth
    correct: bool, whether the answer is correct; an answer to a Type 3 question is wrong

No function depends on the order of the questions or on an increasing transformation of the scores.

Sources: the risk-coverage curve of El-Yaniv and Wiener 2010 (JMLR 11) and its area, AURC, of
Geifman et al. 2019 (arXiv 1805.08206); coverage at risk of Whitehead et al. 2022 (arXiv
2204.13631). T on answerable questions is their Phi_1 with hard correctness, and CRAG's
truthfulness (Yang et al. 2024, arXiv 2406.04744).
"""

import itertools
from typing import NamedTuple

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.bootstrap import bootstrap
from inbol_jax.intervals import Estimate

MIN_QUESTIONS = 20  # of fewer, a bootstrap interval is too narrow to tell two models apart
FOLDS = 10  # of validation questions, for what a threshold is worth where it was not chosen
STARTS = (1 / 8, 1 / 2)  # shares of what can be answered, from which `safe_threshold` walks


def value_at(
    score: np.ndarray, answered: np.ndarray, refused: np.ndarray, threshold: float
) -> float:
    """The mean value if the questions whose score is above the threshold are refused."""
    return float(np.where(score > threshold, refused, answered).mean())


def value_curve(
    score: np.ndarray, answered: np.ndarray, refused: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean value under every threshold that makes a difference.

    Returns:
      f64[k] each, from refusing most to answering most: thresholds, halfway between two scores and
      1 beyond the lowest and the highest; the share of the questions that is refused; the value.
    """
    # As the threshold rises over a level, the questions of that level go from refused to answered:
    # the value changes by their sum of answered - refused.
    #     score 0.2 0.2 0.7, answered 1 -1 1, refused 0: gains 0 1, so the value / n is 0, 0, 1/3
    #     under the thresholds -0.8 (refuse all), 0.45 (answer two), 1.7 (answer all)
    levels, count, gain = _levels(score, answered - refused)
    n_answered = np.concatenate([[0], np.cumsum(count)])
    value = refused.sum() + np.concatenate([[0.0], np.cumsum(gain)])
    threshold = np.zeros(1)  # any, if the model refuses everything by itself
    if len(levels):
        middle = levels[:-1] + np.diff(levels) / 2
        threshold = np.concatenate([[levels[0] - 1], middle, [levels[-1] + 1]])
    return threshold, 1 - n_answered / len(score), value / len(score)


def best_threshold(score: np.ndarray, answered: np.ndarray, refused: np.ndarray) -> float:
    """The threshold of the highest mean value; of equally good ones that which answers most.

    Raises:
      InbolError: if there is no question.
    """
    if not len(score):
        raise InbolError("a threshold is chosen on questions, and there is none")
    threshold, _, value = value_curve(score, answered, refused)
    # Sums of floats: equally good values may differ in their last bits.
    return float(threshold[np.flatnonzero(value >= value.max() - 1e-12)[-1]])


def safe_threshold(
    score: np.ndarray, correct: np.ndarray, risk: float, delta: float
) -> float | None:
    """The threshold that answers most among those whose risk is promised; None if there is none.

    With probability 1 - delta over the choice of the questions, at most a share `risk` of the
    answers up to the threshold is wrong, on questions that are drawn as these were.

    Learn then Test, Angelopoulos et al. 2021 (arXiv 2110.01052), with the exact binomial test of
    Clopper and Pearson: thresholds are tested in walks from fewer answers to more, each of which
    ends at the first one that fails. A walk that reaches the next start hands its share of delta on
    (the fallback procedure of Wiens 2003).
    """
    from scipy.stats import binom

    levels, *numbers = _levels(score, ~correct)
    if not len(levels):
        return None
    count, wrong = map(np.cumsum, numbers)  # up to each level
    # 1 of 30 answers is wrong: if one in ten of all were, as few would be with probability 0.18.
    p = binom.cdf(wrong, count, risk)
    starts = np.searchsorted(count, np.multiply(STARTS, count[-1]))
    last, share = None, 0.0
    for start, end in itertools.pairwise([*starts, len(count)]):
        share += delta / len(STARTS)
        failed = np.flatnonzero(p[start:end] > share)
        steps = failed[0] if len(failed) else end - start
        last = start + steps - 1 if steps else last
        share = 0.0 if len(failed) else share
    return None if last is None else float(levels[last])


class Calibration(NamedTuple):
    """What choosing a threshold on n questions is worth.

    Attributes:
      bias: minus the best threshold, with the 95% bootstrap interval of such a choice.
      gain: of T over the model as it is, on questions on which the threshold was not chosen, with
        its 95% interval.
    """

    n: int
    bias: Estimate
    gain: Estimate

    @property
    def tells(self) -> bool:
        """Whether the questions tell the threshold from none."""
        return self.n >= MIN_QUESTIONS and self.gain.low > 0


def calibration(
    score: np.ndarray, answered: np.ndarray, refused: np.ndarray, *, refuses: np.ndarray
) -> Calibration:
    """The best threshold, and what can be expected of it.

    For the gain the questions are dealt into `FOLDS` parts in the order of their scores. The
    threshold of each part is chosen on the others.

    Args:
      refuses: bool[n], whether the model as it is refuses.
    """
    columns = np.stack((score, answered, refused, refuses))  # [4, n]
    # Sorted by score, then by the others: the folds do not depend on the order of the questions.
    n, columns = len(score), columns[:, np.lexsort(columns[::-1])]
    score, answered, refused, refuses = columns
    # Fold 0 gets the scores 0, 10, 20, ... of the order: every fold covers the whole range.
    fold, change = np.arange(n) % FOLDS, np.zeros(n)
    for part in range(min(FOLDS, n) if n > 1 else 0):
        threshold = best_threshold(*columns[:3, fold != part])
        # 1: refused only with the threshold; -1: refused only without it; 0: no change.
        moved = (score > threshold) - refuses
        change[fold == part] = (moved * (refused - answered))[fold == part]
    # The choice is made anew on each resample: the interval is of choosing, not of one choice.
    bias = bootstrap(lambda i: 0.0 - best_threshold(*columns[:3, i]), n, resamples=200)
    return Calibration(n, bias, bootstrap(lambda i: float(change[i].mean()), n))


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """How often a positive question scores above a negative one, a tie counting half; None if a
    class is empty.

    `sklearn.metrics.roc_auc_score` gives the same but for rounding; it takes no infinite score, and
    a second to import.

    Args:
      positive: bool[n].
    """
    # Scores (1, 2, 2, 3): counts (1, 2, 1), ranks (1, 2.5, 2.5, 4). Of the n m pairs of a positive
    # and a negative, U = (sum of the positives' ranks) - n (n + 1) / 2 are in order.
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1; equal scores share the mean
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else None


def _levels(score: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The finite scores from the lowest on, how many questions have each, and the sums of their
    values: f64[k], i64[k] and f64[k]."""
    levels, place, count = np.unique(score, return_inverse=True, return_counts=True)
    # The level of +inf is never answered, and comes last.
    k = int(np.isfinite(levels).sum())
    return levels[:k], count[:k], np.bincount(place, values, minlength=len(levels))[:k]


def risk_coverage(score: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve. Questions of equal score are answered together.

    Returns:
      f64[k] each, from few answers to many: coverage, the share of all questions that is
      answered, and risk, the share of the answered ones that is answered wrongly.
    """
    answered, wrong = map(np.cumsum, _levels(score, ~correct)[1:])  # up to each level
    return answered / len(score), wrong / answered


def aurc(score: np.ndarray, correct: np.ndarray) -> float | None:
    """The area under the risk-coverage curve: the mean risk of the first 1, 2, ..., m answers.

    m counts the questions of finite score. Of equal scores the mean over all orders is taken, so
    that a score of few levels is neither favoured nor punished. None if m is 0.
    """
    _, count, wrong = _levels(score, ~correct)
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
