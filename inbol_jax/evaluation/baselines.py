"""What needs no training, to compare trained models with; calibrated models; curves.

A policy refuses where a score of a prediction is above a threshold, and otherwise gives the answer
that the model gives if it may not refuse. Thresholds are chosen on the validation questions, where
T is highest, and applied to all others. Each policy's decisions are predictions like any others.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import Curve, Curves, Difference, Summary, differences
from inbol_jax.evaluation.prediction import BASELINES, DOMAINS, VALIDATION, Prediction, calibrated
from inbol_jax.evaluation.selective import (
    COSTS,
    RISKS,
    Calibration,
    Stakes,
    aurc,
    auroc,
    best_threshold,
    bootstrap,
    calibration,
    coverage_at_risk,
    effective_reliability,
    value_curve,
)
from inbol_jax.taught_refusals import REFUSALS

# Of a prediction, how much speaks for a refusal. The last three do not look at refusal tokens.
Score = Callable[[Prediction], float]
SCORES: Mapping[str, Score] = {
    "logodds": lambda p: p.forced.logodds,
    "likelihood": lambda p: -p.forced.logprob,
    "consistency": lambda p: -p.consistency,
    "p_true": lambda p: -p.p_true,
}
# (model, domain) -> its predictions
Answers = Mapping[tuple[str, str], Sequence[Prediction]]
POINTS = 101  # of a curve that are kept, at most
MAX_AMBIGUOUS = 0.05  # share of the answers


def margin(p: Prediction) -> float:
    """The score that a refusal bias is added to."""
    return p.forced.margin


class Policy(NamedTuple):
    """Refuses where `score` is above `threshold`."""

    name: str
    model: str
    """The model whose predictions it decides about."""
    score: Score
    threshold: float

    def decide(self, p: Prediction) -> Prediction:
        """The prediction as this policy makes it."""
        return decided(p, self.name, refuse=self.score(p) > self.threshold)


class Comparison(NamedTuple):
    """What stands beside the models in an evaluation.

    Attributes:
      predictions: of all policies, on the questions that are not of validation.
      thresholds: {policy: threshold}, of those that were chosen on validation.
      curves: of every model's refusal margin under the model's name, and of the base's other
        scores under those of the baselines; none without validation questions.
      calibrations: {model: what its refusal bias is worth}.
    """

    predictions: list[Prediction]
    thresholds: dict[str, float]
    curves: Curves
    calibrations: dict[str, Calibration]


def decided(p: Prediction, name: str, *, refuse: bool) -> Prediction:
    """The prediction as a refusal, or as the answer that is given without one, if it is known."""
    answer = p.forced or p
    said = (REFUSALS[0], "refused") if refuse else (answer.prediction, answer.outcome)
    return msgspec.structs.replace(p, model=name, prediction=said[0], outcome=said[1])


def check_refusal_tokens(predictions: Sequence[Prediction], model: str) -> None:
    """Raises InbolError if many answers of the model begin as its refusals do: a bias on the
    refusals' first tokens would then move answers as well, and no threshold on them would mean
    what it says."""
    # What it says if no refusal token may come first is something else.
    ambiguous = [
        p for p in predictions if p.outcome != "refused" and p.prediction != p.forced.prediction
    ]
    if len(ambiguous) > MAX_AMBIGUOUS * len(predictions):
        raise InbolError(
            f"{model}: {len(ambiguous)} of {len(predictions)} answers begin with a refusal token "
            f"and refuse nothing, such as {ambiguous[0].prediction[:60]!r}; choose refusals that "
            "begin otherwise, such as --templates one"
        )


class Scored(NamedTuple):
    """A score of one model's predictions, beside what it is to tell; n questions."""

    stakes: Stakes
    """In T. Its score is +inf if the model refuses in words of its own, at any threshold."""
    correct: np.ndarray
    """bool[n], whether the forced answer is correct; never on Type 3."""
    type: np.ndarray
    """i64[n], 1, 2 or 3; 0 for Mixed."""


def scored(predictions: Sequence[Prediction], score: Score) -> Scored:
    """The columns of predictions that hold forced answers."""
    rows = [
        (
            np.inf if p.forced.outcome == "refused" else score(p),
            decided(p, p.model, refuse=False).user_value,
            decided(p, p.model, refuse=True).user_value,
            p.forced.outcome == "correct" and p.type != 3,
            p.type or 0,
        )
        for p in predictions
    ]
    *stakes, correct, type = np.array(rows, np.float64).reshape(-1, 5).T
    return Scored(Stakes(*stakes), correct.astype(bool), type.astype(int))


def compare(predictions: Iterable[Prediction], seed: int) -> Comparison:
    """All policies and curves: if there are validation questions those with thresholds, and
    otherwise what needs none.

    Raises:
      InbolError: if there are validation questions, and a prediction lacks what a score needs or
        many answers of a model begin as its refusals do.
    """
    answers: dict[tuple[str, str], list[Prediction]] = {}
    for p in predictions:
        answers.setdefault((p.model, p.domain), []).append(p)
    base = next(iter(answers))[0]
    validated = any(domain == VALIDATION for _, domain in answers)
    chosen = _policies(answers) if validated else []
    ends = [Policy("always_refuse", base, lambda p: 1.0, 0.5), Policy("oracle", base, _knows, 0.5)]
    decisions = [
        policy.decide(p)
        for policy in (ends[0], *chosen, ends[1])
        for domain in DOMAINS
        for p in answers.get((policy.model, domain), ())
    ]
    return Comparison(
        decisions,
        {policy.name: policy.threshold for policy in chosen},
        _curves(answers, chosen, seed) if chosen else {},
        {
            policy.model: calibration(scored(answers[policy.model, VALIDATION], margin).stakes)
            for policy in chosen
            if policy.score is margin
        },
    )


def _policies(answers: Answers) -> list[Policy]:
    """The base's scores and every model's margin, with thresholds chosen on validation."""
    models = list(dict.fromkeys(model for model, _ in answers))
    for model in models:
        of_model = [p for (name, _), some in answers.items() if name == model for p in some]
        for p in of_model:
            if p.forced is None or p.consistency is None or p.p_true is None:
                raise InbolError(
                    f"prediction {p.id!r} of {p.model}: made without --validation; give `inbol "
                    "evaluate` again with it"
                )
        check_refusal_tokens(of_model, model)
    scores = {f"base_threshold_{name}": (models[0], score) for name, score in SCORES.items()}
    scores |= {calibrated(model): (model, margin) for model in models}
    return [
        Policy(name, model, score, _chosen(answers, model, score))
        for name, (model, score) in scores.items()
    ]


def _chosen(answers: Answers, model: str, score: Score) -> float:
    return best_threshold(scored(answers.get((model, VALIDATION), ()), score).stakes)


def _knows(p: Prediction) -> float:
    """1 where one who knows the base's confidence would refuse, else 0."""
    return float(p.type == 3 or p.confidence < 0.5)


def _curves(answers: Answers, policies: Sequence[Policy], seed: int) -> Curves:
    """The curve of every policy in every domain but validation."""
    base = policies[0].model
    validation = {p.name: scored(answers[p.model, VALIDATION], p.score) for p in policies}
    curves: Curves = {}
    for domain in (domain for domain in DOMAINS if (base, domain) in answers):
        here = {p.name: scored(answers[p.model, domain], p.score) for p in policies}
        of_base = {p.name: here[p.name] for p in policies if p.model == base}
        areas = {name: area for name, x in of_base.items() if (area := _area(x)) is not None}
        best = here[min(areas, key=areas.__getitem__)] if areas else None
        for policy in policies:
            rival = None if policy.model == base else best
            name = policy.model if policy.score is margin else policy.name
            on_test, on_validation = here[policy.name], validation[policy.name]
            curve = _curve(on_test, on_validation, policy.threshold, rival, seed)
            curves.setdefault(name, {})[domain] = curve
    return curves


def _curve(
    test: Scored, validation: Scored, threshold: float, rival: Scored | None, seed: int
) -> Curve:
    score, correct, n = test.stakes.score, test.correct, len(test.correct)
    known_or_type3 = np.isin(test.type, (1, 3))
    answered = (test.type != 3) & np.isfinite(score)  # not refused in words of its own
    whole = value_curve(test.stakes)
    kept = np.unique(np.linspace(0, len(whole.value) - 1, POINTS).round().astype(int))
    return Curve(
        threshold=threshold,
        auroc_type3=auroc(score[known_or_type3], test.type[known_or_type3] == 3),
        auroc_wrong=auroc(score[answered], ~correct[answered]),
        aurc=bootstrap(lambda i: aurc(score[i], correct[i]), n, seed=seed),
        aurc_change=rival and bootstrap(functools.partial(_change, test, rival), n, seed=seed),
        coverage_at_risk={f"{risk:g}": coverage_at_risk(score, correct, risk) for risk in RISKS},
        phi={str(cost): _phi(test, validation, cost) for cost in COSTS},
        best_t=float(whole.value.max()),
        refused=[round(float(x), 6) for x in whole.refused[kept]],
        t=[round(float(x), 6) for x in whole.value[kept]],
    )


def _area(x: Scored) -> float | None:
    return aurc(x.stakes.score, x.correct)


def _change(test: Scored, rival: Scored, i: np.ndarray) -> float | None:
    areas = [aurc(x.stakes.score[i], x.correct[i]) for x in (test, rival)]
    return None if None in areas else areas[0] - areas[1]


def _phi(test: Scored, validation: Scored, cost: float) -> float:
    """Phi_c at the threshold that is best for that cost on validation, as Whitehead et al. do."""
    worth = np.where(validation.correct, 1.0, -float(cost))
    stakes = Stakes(validation.stakes.score, worth, np.zeros_like(worth))
    answered = test.stakes.score <= best_threshold(stakes)
    return effective_reliability(test.correct, answered, cost)


def best_baseline(summary: Summary, base: str, domain: str) -> str:
    """What needs no training and has the highest T on all questions of a domain.

    It is picked on the very questions that it is compared on, which favours it. The oracle is no
    baseline: it knows what no model is told.
    """
    names = (base, calibrated(base), *(name for name in BASELINES if name != "oracle"))
    return max(
        (name for name in names if name in summary),
        key=lambda name: summary[name][domain]["all"].t,
    )


def against_baselines(
    summary: Summary, predictions: Sequence[Prediction], models: Sequence[str], seed: int
) -> list[Difference]:
    """T of each trained model, as it is and if possible calibrated, minus T of the best baseline.

    Args:
      predictions: of models and policies, without validation.
      models: those that were asked, the base first.
    """
    result = []
    trained = [name for model in models[1:] for name in (model, calibrated(model))]
    trained = [name for name in trained if name in summary]
    for domain in summary[models[0]]:
        best = best_baseline(summary, models[0], domain)
        some = [p for p in predictions if p.domain == domain and p.model in (best, *trained)]
        result += differences(some, pairs=[(best, name) for name in trained], seed=seed)
    return result
