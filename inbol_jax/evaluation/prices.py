"""What refusing is worth at other prices of a wrong answer than 1, in plain numpy.

A correct answer is worth 1, a wrong one minus its price, a refusal what it is worth for T. At each
price every model gets the threshold that is best on validation for that very price.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from inbol_jax.evaluation.bootstrap import bootstrap
from inbol_jax.evaluation.metrics import AtPrice
from inbol_jax.evaluation.selective import MIN_QUESTIONS, best_threshold, value_at
from inbol_jax.intervals import Estimate

PRICES = (0.25, 0.5, 1, 2, 4, 8, 16)
Columns = Mapping[str, np.ndarray]  # as `policies.columns`


class Rule(NamedTuple):
    """A score on which a threshold may be set: its columns on validation, and on questions of test.

    Both hold forced answers, so that a refusal is the threshold's work, but for what is refused in
    words of the model's own (a score of +inf).
    """

    validation: Columns
    test: Columns


def stakes(of: Columns, price: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns on which a threshold is chosen, as `selective` takes them: score, and what the
    answer and what a refusal is worth, f64[n] each."""
    answered = of["answered"]
    return of["score"], np.where(answered < 0, -price, answered), of["refused"]


def worth(rules: Sequence[Rule], price: float) -> np.ndarray:
    """The value of each question of test, f64[n], with the rule and threshold of the highest value
    on validation."""
    found = []
    for rule in rules:
        columns = stakes(rule.validation, price)
        threshold = best_threshold(*columns)
        found.append((value_at(*columns, threshold), rule, threshold))
    _, rule, threshold = max(found, key=lambda best: best[0])
    score, answered, refused = stakes(rule.test, price)
    return np.where(score > threshold, refused, answered)


def at_prices(
    free: Mapping[str, Sequence[Rule]],
    trained: Mapping[str, Sequence[Rule]],
    confidence: np.ndarray,
    seed: int,
) -> dict[str, dict[str, AtPrice]]:
    """The values of one domain at all prices.

    Args:
      free: {name: its rules}, of what needs no training; all of them have the same questions.
      trained: the same of trained models.
      confidence: f64[n], the base's confidence in each question, 0 for Type 3.
    Returns:
      {name: {price: its value}}. The change is from the best of `free` at that price, paired. It is
      the best on these very questions, which favours it. "oracle" answers where the base's
      confidence makes that worth its price.
    """
    found: dict[str, dict[str, AtPrice]] = {}
    for price in PRICES:
        values = {name: worth(rules, price) for name, rules in free.items()}
        rival = max(values.values(), key=np.mean)  # f64[n]
        _, answered, refused = stakes(next(iter(free.values()))[0].test, price)
        # Answering gains c - price (1 - c) over a refusal; 0.5 - 1 * 0.5 may miss 0 by rounding.
        gains = confidence - price * (1 - confidence) > -1e-9
        values["oracle"] = np.where(gains, answered, refused)
        values |= {name: worth(rules, price) for name, rules in trained.items()}
        for name, value in values.items():
            change = _mean(value - rival, seed) if name in trained else Estimate()
            found.setdefault(name, {})[f"{price:g}"] = AtPrice(float(value.mean()), change)
    return found


def _mean(values: np.ndarray, seed: int) -> Estimate:
    """The mean with its interval; none of few questions, or of changes that are all alike."""
    found = bootstrap(lambda i: float(values[i].mean()), len(values), seed=seed)
    tells = len(values) >= MIN_QUESTIONS and found.low != found.high
    return found if tells else Estimate()
