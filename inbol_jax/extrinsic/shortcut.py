"""Does a question's text alone tell whether the image answers it? If it does, a model can learn to
refuse without looking at the image.

A linear classifier on words (scikit-learn) is cross-validated over images, and its AUC has an
interval by DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating
characteristic curves", which neither scikit-learn nor SciPy has.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from inbol_jax.intervals import wilson_interval

FOLDS = 5
NORMAL_QUANTILE = 1.959964  # of 97.5%, for two-sided intervals of 95%
_WORD = re.compile(r"\w+|[^\w\s]")


def ngrams(text: str) -> list[str]:
    """The distinct words, marks and pairs of neighbours of a text, in lower case; "^" starts it."""
    said = ["^", *_WORD.findall(text.lower())]
    pairs = (f"{first} {second}" for first, second in itertools.pairwise(said))
    return list(dict.fromkeys([*said[1:], *pairs]))


def _features(texts: Sequence[str]) -> tuple[Any, np.ndarray]:
    """A sparse matrix f64[n, f] of a text's n-grams, scaled to length 1 so that a long text counts
    no more than a short one, and the n-gram of each column."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=ngrams, binary=True, use_idf=False)
    return vectorizer.fit_transform(texts), vectorizer.get_feature_names_out()


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    # Both classes weigh the same, however many texts of each there are.
    return LogisticRegression(class_weight="balanced", max_iter=1000)


def cross_validated(
    texts: Sequence[str], labels: np.ndarray, groups: Sequence[str], seed: int
) -> np.ndarray:
    """f64[n]: each text's logit by a classifier that saw no text of its group (its image).

    Args:
      labels: bool[n].

    Raises:
      ValueError: if a class has texts of one group alone, or no text has a word.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    group_of = np.asarray(groups, object)
    folds = min(FOLDS, len(set(group_of[labels])), len(set(group_of[~labels])))
    if folds < 2:
        raise ValueError("too few images of a class")
    return cross_val_predict(
        _classifier(),
        _features(texts)[0],
        labels,
        groups=group_of,
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        method="decision_function",
    )


def telling_ngrams(texts: Sequence[str], labels: np.ndarray, n: int) -> tuple[list[str], list[str]]:
    """The n words or pairs of words that speak most for a label of True, and for False, of those in
    at least 1% of a class."""
    x, names = _features(texts)
    weights = _classifier().fit(x, labels).coef_[0]
    frequent = np.zeros(len(names), bool)
    for own in (x[labels], x[~labels]):
        frequent |= own.getnnz(axis=0) >= max(2, 0.01 * own.shape[0])
    ordered = [names[i] for i in np.argsort(weights) if frequent[i]]
    return ordered[::-1][:n], ordered[:n]


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Auc(Interval):
    """Area under the ROC curve; n holds the numbers of positives and negatives."""

    n: tuple[int, int]


def auc(scores: np.ndarray, labels: np.ndarray) -> Auc:
    """The probability that a positive scores higher than a negative; a tie counts half. The
    interval is DeLong's, on the logit scale.

    Args:
      scores: f64[n].
      labels: bool[n], with both values among them.
    """
    positive, negative = _placements(scores, labels)
    value, n = float(positive.mean()), (len(positive), len(negative))
    variance = _variance(positive, negative)
    if variance == 0 or not 0 < value < 1:  # there is no spread to take an interval from
        low, high = wilson_interval(round(value * min(n)), min(n))
        return Auc(value, min(low, value), max(high, value), n)
    middle = np.log(value / (1 - value))
    half = NORMAL_QUANTILE * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - half, middle + half))
    return Auc(value, low, high, n)


def auc_difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Interval:
    """AUC of the first scores minus that of the second scores of the same questions, with DeLong's
    interval for pairs."""
    positive, negative = (
        a - b for a, b in zip(_placements(first, labels), _placements(second, labels), strict=True)
    )
    value = float(positive.mean())
    half = NORMAL_QUANTILE * float(np.sqrt(_variance(positive, negative)))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def _placements(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, and for each negative the share of
    positives above it; a tie counts half."""
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])

    def below(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        left, right = (np.searchsorted(among, values, side) for side in ("left", "right"))
        return (left + right) / (2 * len(among))

    return below(scores[labels], negatives), 1 - below(scores[~labels], positives)


def _variance(positive: np.ndarray, negative: np.ndarray) -> float:
    parts = [part for part in (positive, negative) if len(part) > 1]
    return sum(float(part.var(ddof=1)) / len(part) for part in parts)
