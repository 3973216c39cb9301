"""The confidence c(x) of a stored question: the share of its samples that are correct, or what
another estimator says. Every estimator is a function of a `SampledQuestion`.

A confidence lies in [0, 1]. It has a Wilson interval if it is a share of samples; otherwise both
ends are the confidence itself.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable

from inbol_jax.errors import InbolError
from inbol_jax.intervals import Estimate, share
from inbol_jax.records import SampledQuestion
from inbol_jax.responses.vqa_accuracy import answer_key


def sampled_accuracy(question: SampledQuestion) -> Estimate:
    """The method's own estimator, c(x) = correct samples / samples."""
    return share(question.n_correct, question.n_samples)


def self_consistency(question: SampledQuestion) -> Estimate:
    """The share of the samples that give the most frequent answer, normalised as VQA does.

    It needs no gold answer. A refusal is no answer. If there is an answer the share is at least
    1 / n, so the thresholds of `sampled_accuracy` do not fit it. Source: the vote of Wang et al.
    2022 (arXiv 2203.11171).
    """
    votes = Counter(answer_key(sample.text) for sample in question.answering_samples)
    return share(max(votes.values(), default=0), question.n_samples)


def sequence_likelihood(question: SampledQuestion) -> Estimate:
    """The likelihood of the likeliest answer per token, exp(log-probability / tokens).

    The end token counts. A refusal is no answer; if there are only refusals, the confidence is 0.
    Source: the length-normalised likelihood of Malinin & Gales 2021 (arXiv 2002.07650).

    Raises:
      InbolError: if the answers have no log-probabilities.
    """
    answers = question.answering_samples
    per_token = [s.logprob / s.tokens for s in answers if s.logprob is not None]
    if not per_token and any(sample.text for sample in answers):
        raise InbolError(
            f"--estimator likelihood: the answers to question {question.example.id!r} have no "
            "log-probabilities, as their endpoint gave none; choose accuracy or consistency"
        )
    value = math.exp(max(per_token)) if per_token else 0.0
    return Estimate(value, value, value)


def proposed_answer(question: SampledQuestion) -> str | None:
    """The most frequent normalised answer in its likeliest spelling; None if every sample refuses.

    If two answers are equally frequent, the likelier one is taken.
    """
    spellings: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for sample in question.answering_samples:
        spellings[answer_key(sample.text)].append((sample.logprob, sample.text))
    ranked = [(len(of_answer), *max(of_answer)) for of_answer in spellings.values()]
    return max(ranked)[-1] if ranked else None


Estimator = Callable[[SampledQuestion], Estimate]
ESTIMATORS: dict[str, Estimator] = {
    "accuracy": sampled_accuracy,
    "consistency": self_consistency,
    "likelihood": sequence_likelihood,
}


def get_estimator(name: str) -> Estimator:
    """The estimator of a name; raises InbolError if it is not one of `ESTIMATORS`."""
    if name not in ESTIMATORS:
        raise InbolError(f"--estimator {name!r}: choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]
