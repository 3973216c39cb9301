"""Confidence from what is in the store: pure functions of a line, so another estimator never samples again."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval
from inbol_jax.responses.matching import answer_key


class Estimate(NamedTuple):
    """A confidence in [0, 1], and the interval within which it is as good as another one.

    Attributes:
      value: the confidence.
      low, high: 95% Wilson interval of a share of samples; `value` twice where the estimate is no share.
    """

    value: float
    low: float
    high: float


def _share(successes: int, samples: int) -> Estimate:
    return Estimate(successes / samples, *wilson_interval(successes, samples))


def sampled_accuracy(row: Mapping[str, Any]) -> Estimate:
    """c(x) = correct samples / samples: how often the model matches the gold answers. The default, and the method's own."""
    return _share(row["n_correct"], row["n_samples"])


def self_consistency(row: Mapping[str, Any]) -> Estimate:
    """Share of the samples that agree on the most frequent answer, normalised as VQA does. Needs no gold answer.

    A refusal is no answer: a model that always refuses is consistent, and has no confidence. A share of n samples is at least 1 / n for
    anything that is answered at all, so its thresholds are others than those of `sampled_accuracy`.
    Source: Wang et al. 2022 (arXiv 2203.11171), whose vote it is.
    """
    votes = Counter(
        answer_key(text)
        for text, outcome in zip(row["samples"], row["outcomes"], strict=True)
        if outcome != "refused"
    )
    return _share(max(votes.values(), default=0), row["n_samples"])


def sequence_likelihood(row: Mapping[str, Any]) -> Estimate:
    """Likelihood of the likeliest sampled answer, exp(log-probability / tokens): the geometric mean over its tokens, its end included.

    The mean over tokens keeps long answers comparable with short ones. A refusal is no answer; with none at all the confidence is 0.
    Source: the length-normalised likelihood of Malinin & Gales 2021 (arXiv 2002.07650).
    """
    answers = zip(row["logprobs"], row["token_counts"], row["outcomes"], strict=True)
    value = max(
        (
            math.exp(min(logprob, 0.0) / tokens)
            for logprob, tokens, outcome in answers
            if outcome != "refused"
        ),
        default=0.0,
    )
    return Estimate(value, value, value)


def proposed_answer(row: Mapping[str, Any]) -> str | None:
    """The most frequent answer, normalised as VQA does, in the likeliest of its spellings; of answers as frequent the likeliest. None where
    every sample is a refusal."""
    spellings: dict[str, list[tuple[float, str]]] = {}
    for text, logprob, outcome in zip(
        row["samples"], row["logprobs"], row["outcomes"], strict=True
    ):
        if outcome != "refused":
            spellings.setdefault(answer_key(text), []).append((logprob, text))
    return max(((len(found), *max(found)) for found in spellings.values()), default=(None,))[-1]


def p_true(row: Mapping[str, Any]) -> Estimate | None:
    """How probable the model holds it, asked afterwards, that its proposed answer is true. Where all samples refuse the confidence is 0.

    Source: P(True) of Kadavath et al. 2022 (arXiv 2207.05221); `inbol confidence --p-true` asks (`inbol_jax.confidence.p_true`).
    """
    if "p_true" not in row:
        return None
    value = row["p_true"] or 0.0
    return Estimate(value, value, value)


Estimator = Callable[
    [Mapping[str, Any]], Estimate | None
]  # None where the line lacks what it needs
ESTIMATORS: dict[str, Estimator] = {
    "accuracy": sampled_accuracy,
    "consistency": self_consistency,
    "likelihood": sequence_likelihood,
    "p-true": p_true,
}


def get_estimator(name: str) -> Estimator:
    """The estimator of a name.

    Raises:
      InbolError: where it is not one of `ESTIMATORS`.
    """
    if name not in ESTIMATORS:
        raise InbolError(f"--estimator {name!r}: choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]
