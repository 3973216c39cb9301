"""Does a question's text alone tell whether the image answers it? A linear classifier on words, cross-validated, and its AUC.

Where it does, a model can learn to refuse without looking at the image. Plain numpy.
"""

import dataclasses
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from inbol_jax.intervals import wilson_interval

BUCKETS = 1 << 15  # of hashed words and pairs of words
MAX_FEATURES = 64  # of a text
FOLDS = 5
STEPS, RATE, DECAY = (
    150,
    0.1,
    1e-4,
)  # of Adam over all texts at once, and of the weights' L2 penalty
_WORD = re.compile(r"\w+|[^\w\s]")


def ngrams(text: str) -> list[str]:
    """Words, marks and pairs of neighbours, lower case, the start among them; each once, at most `MAX_FEATURES`."""
    said = ["^", *_WORD.findall(text.lower())]
    return list(dict.fromkeys([*said[1:], *(f"{a} {b}" for a, b in itertools.pairwise(said))]))[
        :MAX_FEATURES
    ]


def features(texts: Sequence[str]) -> np.ndarray:
    """i32[n, f]: the bucket of each n-gram of each text, padded with `BUCKETS`."""
    rows = [
        [zlib.crc32(g.encode("utf-8", "replace")) % BUCKETS for g in ngrams(text)] for text in texts
    ]
    found = np.full((len(rows), max(map(len, rows), default=1)), BUCKETS, np.int32)
    for row, buckets in zip(found, rows, strict=True):
        row[: len(buckets)] = buckets
    return found


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression with an L2 penalty. Both classes weigh the same, however many of each there are.

    Args:
      x: i32[n, f] of `features`. y: bool[n], both values among them.
    Returns: f64[BUCKETS + 1]: a weight for each bucket, then the bias.
    """
    weights = np.zeros(BUCKETS + 2)  # buckets, padding, bias
    scale = 1 / np.sqrt(
        np.maximum(1, (x < BUCKETS).sum(axis=1))
    )  # a long text's evidence must not count more than a short one's
    share = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    flat = x.ravel()
    for step in range(1, STEPS + 1):
        logits = weights[x].sum(axis=1) * scale + weights[-1]
        error = (1 / (1 + np.exp(-np.clip(logits, -30, 30))) - y) * share
        gradient = np.bincount(flat, np.repeat(error * scale, x.shape[1]), minlength=BUCKETS + 2)
        gradient[BUCKETS], gradient[-1] = 0.0, error.sum()
        gradient[:BUCKETS] += DECAY * weights[:BUCKETS]
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weights -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return np.delete(weights, BUCKETS)


def predict(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f64[n], logits of `fit`'s weights."""
    scale = 1 / np.sqrt(np.maximum(1, (x < BUCKETS).sum(axis=1)))
    return np.asarray(np.insert(weights, BUCKETS, 0.0)[x].sum(axis=1) * scale + weights[-1])


def cross_validated(
    texts: Sequence[str], labels: Sequence[bool], groups: Sequence[str], seed: int
) -> np.ndarray:
    """f64[n]: each text's logit by a classifier that saw no text of its group (its image) and of a fifth of the other groups.

    Raises:
      ValueError: where a class has texts of fewer groups than there are folds.
    """
    x, y = features(texts), np.asarray(labels, bool)
    fold = np.array([zlib.crc32(f"{seed} {g}".encode("utf-8", "replace")) % FOLDS for g in groups])
    scores = np.zeros(len(texts))
    for k in range(FOLDS):
        held = fold == k
        if held.any():
            if len(set(y[~held])) < 2:
                raise ValueError("too few texts of a class")
            scores[held] = predict(fit(x[~held], y[~held]), x[held])
    return scores


def telling(texts: Sequence[str], labels: Sequence[bool], n: int) -> tuple[list[str], list[str]]:
    """The n words or pairs of words whose weights speak most for a label of True, and for False, of those in at least 1% of a class."""
    y = np.asarray(labels, bool)
    weights = fit(features(texts), y)
    counts = {
        label: Counter(
            g for text, own in zip(texts, y, strict=True) if own == label for g in ngrams(text)
        )
        for label in (True, False)
    }
    sizes = {True: int(y.sum()), False: int((~y).sum())}
    frequent = {
        g
        for label, found in counts.items()
        for g, k in found.items()
        if k >= max(2, 0.01 * sizes[label])
    }
    ordered = sorted(
        frequent, key=lambda g: (weights[zlib.crc32(g.encode("utf-8", "replace")) % BUCKETS], g)
    )
    return ordered[::-1][:n], ordered[:n]


@dataclasses.dataclass(frozen=True, slots=True)
class Auc:
    """Area under the ROC curve with a 95% interval; the numbers of positives and negatives."""

    value: float
    low: float
    high: float
    n: tuple[int, int]


def auc(scores: np.ndarray, labels: np.ndarray) -> Auc:
    """Probability that a positive scores higher than a negative, ties half; the interval on the logit scale by DeLong's variance.

    Source: DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating characteristic curves".

    Args:
      scores: f64[n]. labels: bool[n], both values among them.
    """
    positive, negative = _placements(scores, labels)
    value, m, n = float(positive.mean()), len(positive), len(negative)
    variance = _variance(positive, negative)
    if variance == 0 or not 0 < value < 1:  # no spread to take an interval from
        low, high = wilson_interval(round(value * min(m, n)), min(m, n))
        return Auc(value, min(low, value), max(high, value), (m, n))
    middle, half = np.log(value / (1 - value)), 1.959964 * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(middle + side * half)))) for side in (-1, 1))
    return Auc(value, low, high, (m, n))


def auc_difference(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """AUC of scores a minus that of scores b of the same questions, with a 95% interval (DeLong, paired)."""
    (pa, na), (pb, nb) = _placements(a, labels), _placements(b, labels)
    value, half = (
        float(pa.mean() - pb.mean()),
        1.959964 * float(np.sqrt(_variance(pa - pb, na - nb))),
    )
    return value, max(-1.0, value - half), min(1.0, value + half)


def _placements(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it; ties half."""
    scores, labels = np.asarray(scores, float), np.asarray(labels, bool)
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])

    def below(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        return (
            np.searchsorted(among, values, "left") + np.searchsorted(among, values, "right")
        ) / (2 * len(among))

    return below(scores[labels], negatives), 1 - below(scores[~labels], positives)


def _variance(positive: np.ndarray, negative: np.ndarray) -> float:
    return sum(
        float(part.var(ddof=1)) / len(part) for part in (positive, negative) if len(part) > 1
    )
