"""Policies of refusing: baselines, which need no training, and calibrated models; their curves.

A policy refuses where a score of a prediction is above a threshold, and otherwise gives the answer
that the model gives if it may not refuse. Thresholds are chosen on the validation questions, where
T is highest, and applied to all others. Each policy's decisions are predictions like any others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.bootstrap import bootstrap
from inbol_jax.evaluation.config import RuleName
from inbol_jax.evaluation.metrics import (
    Curve,
    Curves,
    Metrics,
    Prices,
    best_baseline,
    differences,
    summarise,
)
from inbol_jax.evaluation.prediction import (
    DOMAINS,
    PROMPTED,
    VALIDATION,
    Prediction,
    by_likelihood,
    calibrated,
)
from inbol_jax.evaluation.prices import Columns, Rule, at_prices, stakes
from inbol_jax.evaluation.selective import (
    Calibration,
    aurc,
    auroc,
    best_threshold,
    calibration,
    coverage_at_risk,
    risk_coverage,
    value_curve,
)
from inbol_jax.responses.outcome import user_value
from inbol_jax.taught_refusals import REFUSALS

# Of a prediction, how much speaks for a refusal. The last four do not look at refusal tokens.
Score = Callable[[Prediction], float]
SCORES: Mapping[str, Score] = {
    "logodds": lambda p: p.forced.logodds,
    "likelihood": lambda p: -p.forced.logprob,
    "consistency": lambda p: -p.consistency,
    "p_true": lambda p: -p.p_true,
    "probe": lambda p: p.probe,
}
POINTS = 101  # of a curve that are kept, at most
MAX_AMBIGUOUS = 0.05  # share of the answers
RISKS = (0.01, 0.05, 0.1, 0.2)  # whose coverage is reported
COSTS = (1, 10, 100)  # of a wrong answer, whose effective reliability Phi is reported


def margin(p: Prediction) -> float:
    """The score that a refusal bias is added to."""
    return p.forced.margin


# What refuses in a calibrated model -> the score that it is a threshold on.
RULES: Mapping[RuleName, Score] = {"bias": margin, "likelihood": SCORES["likelihood"]}


class Comparison(NamedTuple):
    """What stands beside the models in an evaluation.

    Attributes:
      predictions: of all policies, on the questions that are not of validation.
      thresholds: {policy: threshold}, of those that were chosen on validation.
      curves: of every model's refusal margin under the model's name, and of all other scores under
        the names of their policies; none without validation questions.
      prices: of all models with their best rule and of the base's scores together ("base"), of a
        probe, of always refusing and of the oracle; as curves.
      calibrations: {policy: what it is worth to choose its threshold}, of the models' own scores.
    """

    predictions: list[Prediction]
    thresholds: dict[str, float]
    curves: Curves
    prices: Prices
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


def columns(predictions: Sequence[Prediction], score: Score) -> Columns:
    """`score`, `answered`, `refused` and `correct` as in `selective`, of n predictions, by their
    forced answers if they hold any, and `type`: i64[n], 1, 2 or 3; 0 for Mixed. Values are those of
    T."""
    rows = []
    for p in predictions:
        outcome = (p.forced or p).outcome
        rows.append(
            (
                # What refuses in words of its own is refused under every threshold.
                np.inf if outcome == "refused" else score(p),
                user_value(outcome, type3=p.type == 3),
                user_value("refused", type3=p.type == 3),
                outcome == "correct" and p.type != 3,
                p.type or 0,
            )
        )
    # [n, 5], also if there is no prediction; a column each
    score, answered, refused, correct, type = np.array(rows, np.float64).reshape(-1, 5).T
    names = {"score": score, "answered": answered, "refused": refused}
    return names | {"correct": correct.astype(bool), "type": type.astype(int)}


def compare(predictions: Iterable[Prediction], seed: int) -> Comparison:
    """All policies and curves: those with thresholds if there are validation questions, whose
    predictions then hold all scores, and otherwise what needs none.
    """
    answers: dict[tuple[str, str], list[Prediction]] = {}
    for p in predictions:
        answers.setdefault((p.model, p.domain), []).append(p)
    models = [m for m in dict.fromkeys(model for model, _ in answers) if m != PROMPTED]
    # {policy: (the model that it decides about, its score)}, of those that need a threshold
    base, scores, own = models[0], {}, {}
    if any(domain == VALIDATION for _, domain in answers):
        probed = all(p.probe is not None for p in answers[base, VALIDATION])
        names = [name for name in SCORES if name != "probe" or probed]
        scores = {f"base_threshold_{name}": (base, SCORES[name]) for name in names}
        own = {calibrated(model): (model, RULES["bias"]) for model in models}
        own |= {by_likelihood(model): (model, RULES["likelihood"]) for model in models[1:]}
        scores |= own
    # {(policy, domain): its columns}
    table = {
        (name, domain): columns(answers.get((model, domain), ()), score)
        for name, (model, score) in scores.items()
        for domain in (VALIDATION, *DOMAINS)
    }
    thresholds = {name: best_threshold(*stakes(table[name, VALIDATION])) for name in scores}
    # Both ends have a score of 0 or 1, so that 0.5 is their threshold.
    knows = (base, lambda p: float(p.type == 3 or p.confidence < 0.5))  # what no model is told
    policies = {"always_refuse": (base, lambda p: 1.0)} | scores | {"oracle": knows}
    decisions = [
        decided(p, name, refuse=score(p) > thresholds.get(name, 0.5))
        for name, (model, score) in policies.items()
        for domain in DOMAINS
        for p in answers.get((model, domain), ())
    ]
    curves: Curves = {}
    for domain in (domain for domain in DOMAINS if (base, domain) in answers):
        # The rival of the trained models is the best of the base's scores in this domain.
        tables = [table[name, domain] for name, (model, _) in scores.items() if model == base]
        areas = [aurc(x["score"], x["correct"]) for x in tables]
        known = [(area, i) for i, area in enumerate(areas) if area is not None]
        best = tables[min(known)[1]] if known else None
        for name, (model, score) in scores.items():
            test, validation = table[name, domain], table[name, VALIDATION]
            rival = None if model == base else best
            found = curve(test, validation, thresholds[name], rival, seed)
            curves.setdefault(model if score is margin else name, {})[domain] = found
    prices = value_at_prices(answers, base, scores, table, seed) if scores else {}
    calibrations = {
        name: calibration(
            *stakes(table[name, VALIDATION]),
            refuses=table[calibrated(model), VALIDATION]["score"] > 0,
        )
        for name, (model, _) in own.items()
    }
    return Comparison(decisions, thresholds, curves, prices, calibrations)


def value_at_prices(
    answers: Mapping[tuple[str, str], Sequence[Prediction]],
    base: str,
    scores: Mapping[str, tuple[str, Score]],
    table: Mapping[tuple[str, str], Columns],
    seed: int,
) -> Prices:
    """What everything is worth at other prices of a wrong answer; the arguments are of `compare`.

    The scores of a model are its rules. A probe stands for itself beside the base's other scores.
    """
    prices: Prices = {}
    for domain in (domain for domain in DOMAINS if (base, domain) in answers):
        asked = {name: answers[base, name] for name in (VALIDATION, domain)}
        refuses = (columns(some, lambda p: np.inf) for some in asked.values())
        rules = {"always_refuse": [Rule(*refuses)]}
        for name, (model, score) in scores.items():
            group = name if score is SCORES["probe"] else model
            rules.setdefault(group, []).append(Rule(table[name, VALIDATION], table[name, domain]))
        trained = {model: of for model, of in rules.items() if (model, domain) in answers}
        if (PROMPTED, domain) in answers:  # it has no threshold: what it answers has one score
            said = (columns(answers[PROMPTED, d], lambda p: 0.0) for d in (VALIDATION, domain))
            rules[PROMPTED] = [Rule(*said)]
        free = {base: trained.pop(base)}
        free |= {name: of for name, of in rules.items() if name not in trained}
        confidence = np.array([0.0 if p.type == 3 else p.confidence for p in asked[domain]])
        for name, of_price in at_prices(free, trained, confidence, seed).items():
            prices.setdefault(name, {})[domain] = of_price
    return prices


def curve(
    test: Columns,
    validation: Columns,
    threshold: float,
    rival: Columns | None,
    seed: int,
) -> Curve:
    """How well a score tells what to refuse in one domain.

    Args:
      test, validation: `columns` of the score there, and where thresholds are chosen.
      threshold: the one that is best for T on validation.
      rival: `columns` of another score of the same questions, whose area is compared.
    """
    score, correct, n = test["score"], test["correct"], len(test["score"])
    # Mixed questions and Type 2 are neither what should be answered nor what cannot be.
    known_or_type3 = np.isin(test["type"], (1, 3))
    told = (test["type"] != 3) & np.isfinite(score)  # not refused in words of its own

    def area_change(i: np.ndarray) -> float | None:
        # Both areas under one index of questions: the difference is paired.
        areas = [aurc(x["score"][i], x["correct"][i]) for x in (test, rival)]
        return None if None in areas else areas[0] - areas[1]

    def phi(cost: float) -> float:
        """Phi_c of Whitehead et al. with hard correctness, and with their choice of threshold:
        correct +1, refused 0, wrong -c."""
        worth = np.where(validation["correct"], 1.0, -float(cost))
        chosen = best_threshold(validation["score"], worth, np.zeros_like(worth))
        return float(np.where(score <= chosen, np.where(correct, 1.0, -cost), 0.0).mean())

    # f64[k] each; of k points at most POINTS are written, the first and the last one always.
    _, refused, t = value_curve(*stakes(test))
    kept = np.unique(np.linspace(0, len(t) - 1, POINTS).round().astype(int))
    _, risks = risk_coverage(score, correct)  # of all points but the first, which answers nothing
    return Curve(
        threshold=threshold,
        auroc_type3=auroc(score[known_or_type3], test["type"][known_or_type3] == 3),
        auroc_wrong=auroc(score[told], ~correct[told]),
        aurc=bootstrap(lambda i: aurc(score[i], correct[i]), n, seed=seed),
        aurc_change=rival and bootstrap(area_change, n, seed=seed),
        coverage_at_risk={f"{risk:g}": coverage_at_risk(score, correct, risk) for risk in RISKS},
        phi={str(cost): phi(cost) for cost in COSTS},
        best_t=float(t.max()),
        refused=[round(float(x), 6) for x in refused[kept]],
        t=[round(float(x), 6) for x in t[kept]],
        risk=[round(float(risks[i - 1]), 6) if i else None for i in kept],
    )


def measure(
    predicted: Sequence[Prediction],
    tested: Sequence[Prediction],
    seed: int,
    seconds: Mapping[str, float],
) -> Metrics:
    """The metrics of the tested predictions, with those baselines that the others, which are of
    validation, allow.

    Of each trained model, as it is and if possible with either threshold, T is compared with that
    of the best baseline of the domain.
    """
    compared = compare(predicted, seed)
    everything = [*tested, *compared.predictions]
    models = [p for p in tested if p.model != PROMPTED]
    summary, changes = summarise(everything, seed=seed), differences(models, seed=seed)
    base, *others = dict.fromkeys(p.model for p in models)
    trained = [
        name
        for model in others
        for name in (model, calibrated(model), by_likelihood(model))
        if name in summary
    ]
    # The base may be the best baseline itself: no pair is compared twice.
    known = {(d.a, d.b, d.domain) for d in changes}
    for domain in summary[base]:
        best = best_baseline(summary, base, domain)
        some = [p for p in everything if p.domain == domain and p.model in (best, *trained)]
        pairs = [(best, name) for name in trained if (best, name, domain) not in known]
        changes += differences(some, pairs=pairs, seed=seed)
    _, thresholds, curves, prices, calibrations = compared
    return Metrics(summary, changes, dict(seconds), curves, thresholds, prices, calibrations)
