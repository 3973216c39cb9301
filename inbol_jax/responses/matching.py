"""Scores of a response against gold answers, by the names of the metrics."""

from collections.abc import Callable, Sequence

from inbol_jax.questions import METRICS, check_metric
from inbol_jax.responses.choices import choice_score
from inbol_jax.responses.inclusion import inclusion_score
from inbol_jax.responses.numbers import read_number
from inbol_jax.responses.vqa_accuracy import exact_score, vqa_soft_score
from inbol_jax.responses.yes_no import yes_no_score

CORRECT_AT = 0.5  # A response is correct from this score on.
TOLERANCE = 0.05  # of numbers, relative to the gold one


def numeric_score(prediction: str, answers: Sequence[str]) -> float:
    """1 if the response's number is within 5% of a gold number, so that only zero matches zero.

    A gold answer that is no number must be matched exactly. Source: ChartQA's relaxed accuracy
    (Masry et al. 2022, arXiv 2203.10244).
    """
    number = read_number(prediction)
    texts = []
    for answer in answers:
        gold = read_number(answer)
        if gold is None:
            texts.append(answer)
        elif number is not None and abs(number - gold) <= TOLERANCE * abs(gold):
            return 1.0
    return exact_score(prediction, texts)


SCORERS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "inclusion": inclusion_score,
    "vqa": vqa_soft_score,
    "exact": exact_score,
    "yes_no": yes_no_score,
    "choice": choice_score,
    "numeric": numeric_score,
}


def score(
    prediction: str,
    answers: Sequence[str],
    metric: str = METRICS[0],
    options: Sequence[str] = (),
    question: str = "",
) -> float:
    """The score in [0, 1] of a response under a named metric, such as "vqa".

    Args:
      options: what the question offers, for the metric `choice`.
      question: its text, for the metric `inclusion`.
    Raises:
      InbolError: if there is no such metric.
    """
    check_metric(metric)
    if options and metric == "choice":
        return choice_score(prediction, answers, options)
    if metric == "inclusion":
        return inclusion_score(prediction, answers, question)
    return SCORERS[metric](prediction, answers)
