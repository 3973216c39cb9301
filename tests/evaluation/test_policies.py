"""Policies and curves against brute force, on predictions that are made up."""

import itertools
import json

import numpy as np
import pytest
from made_predictions import MODELS, good_and_bad, measured, prediction, with_validation
from msgspec.structs import replace

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.policies import (
    SCORES,
    best_baseline,
    check_refusal_tokens,
    columns,
    compare,
    decided,
    margin,
    measure,
)
from inbol_jax.evaluation.prediction import BASELINES, VALIDATION, Forced, by_likelihood, calibrated
from inbol_jax.evaluation.prices import PRICES, stakes
from inbol_jax.evaluation.selective import aurc, auroc, value_curve


@pytest.fixture(scope="module")
def predictions():
    return with_validation(good_and_bad(96))


@pytest.fixture(scope="module")
def compared(predictions):
    return compare(predictions, seed=0)


@pytest.fixture(scope="module")
def metrics(predictions):
    return measured(predictions)[1]


def of(predictions, model, *domains):
    return [p for p in predictions if p.model == model and p.domain in domains]


def t(predictions):
    return np.mean([p.user_value for p in predictions])


def test_every_policy_decides_about_every_question_but_those_of_validation(predictions, compared):
    names = [*BASELINES[:-1], *map(calibrated, MODELS), *map(by_likelihood, MODELS[1:]), "oracle"]
    assert list(dict.fromkeys(p.model for p in compared.predictions)) == names
    asked = {(p.dataset, p.id) for p in predictions if p.domain != VALIDATION}
    for name in names:
        questions = [(p.dataset, p.id) for p in compared.predictions if p.model == name]
        assert len(questions) == len(asked)
        assert {*questions} == asked
    assert compared.thresholds.keys() == {*names} - {"always_refuse", "oracle"}


def test_thresholds_are_the_best_on_validation_and_decide_elsewhere(predictions, compared):
    scores = {f"base_threshold_{name}": ("base", score) for name, score in SCORES.items()}
    scores |= {calibrated(model): (model, margin) for model in MODELS}
    scores |= {by_likelihood(model): (model, SCORES["likelihood"]) for model in MODELS[1:]}
    for name, (model, score) in scores.items():
        threshold, validation = compared.thresholds[name], of(predictions, model, VALIDATION)

        def decisions(some, threshold, name=name, score=score):
            return [decided(p, name, refuse=score(p) > threshold) for p in some]

        values = [score(p) for p in validation]
        tried = [t(decisions(validation, x)) for x in (*values, min(values) - 1)]
        assert t(decisions(validation, threshold)) == pytest.approx(max(tried))
        tested = of(predictions, model, "in_domain", "out_of_domain")
        found = of(compared.predictions, name, "in_domain", "out_of_domain")
        assert found == decisions(tested, threshold)


def test_always_refusing_and_the_oracle(predictions, compared):
    refused = [p for p in compared.predictions if p.model == "always_refuse"]
    assert {p.outcome for p in refused} == {"refused"}
    assert t(refused) == pytest.approx(np.mean([p.type == 3 for p in refused]))
    base = {(p.dataset, p.id): p for p in of(predictions, "base", "in_domain", "out_of_domain")}
    for p in (p for p in compared.predictions if p.model == "oracle"):
        forced = base[p.dataset, p.id].forced
        refuses = p.type == 3 or p.confidence < 0.5
        assert p.outcome == ("refused" if refuses else forced.outcome)


def test_a_decision_keeps_everything_else_of_the_question():
    p = prediction(1, "wrong", 3, forced=Forced("blue", "wrong", -1.0, 0.1, 0.0))
    answer, refusal = (decided(p, "x", refuse=refuse) for refuse in (False, True))
    assert (answer.prediction, answer.user_value) == ("blue", -1)
    assert (refusal.prediction, refusal.user_value) == ("I don't know.", 1)
    for other in (answer, refusal):
        back = {"model": p.model, "prediction": p.prediction, "outcome": p.outcome}
        assert replace(other, **back) == p


def test_curves_are_those_of_the_pure_functions(predictions, compared):
    own = {by_likelihood(model): model for model in MODELS[1:]}
    assert list(compared.curves) == [*BASELINES[1:-1], *MODELS, *own]
    for name, domains in compared.curves.items():
        score = SCORES.get(name.removeprefix("base_threshold_"), margin)
        score = SCORES["likelihood"] if name in own else score
        model = own.get(name, name if name in MODELS else "base")
        for domain, curve in domains.items():
            some = of(predictions, model, domain)
            x = np.array([np.inf if p.forced.outcome == "refused" else score(p) for p in some])
            right = np.array([p.forced.outcome == "correct" and p.type != 3 for p in some])
            type = np.array([p.type or 0 for p in some])
            assert curve.aurc.value == aurc(x, right)
            assert curve.aurc.low <= curve.aurc.value <= curve.aurc.high
            ends = np.isin(type, (1, 3))
            assert curve.auroc_type3 == auroc(x[ends], type[ends] == 3)
            told = np.array([p.type != 3 and p.forced.outcome != "refused" for p in some])
            assert curve.auroc_wrong == auroc(x[told], ~right[told])
            assert (curve.aurc_change is None) == (model == "base")
            refused, refused_t = curve.refused[0], curve.t[0]
            assert (refused, refused_t) == (1.0, pytest.approx((type == 3).mean()))
            assert len(curve.t) == len(curve.refused) <= 101
            assert curve.best_t == value_curve(*stakes(columns(some, score)))[2].max()


def test_phi_takes_a_threshold_of_its_own_cost_from_validation():
    """The surest answer is wrong: at cost 100 nothing is worth answering, at cost 1 much."""
    rows = []
    for i in range(20):
        outcome = "wrong" if i in (0, 19) else "correct"
        for domain in ("in_domain", VALIDATION):
            forced = Forced("red", outcome, -1.0, 0.0, float(i))
            fields = {"forced": forced, "domain": domain, "consistency": 0.5, "p_true": 0.5}
            rows.append(prediction(i, outcome, 1, **fields))
    curve = compare(rows, seed=0).curves["base"]["in_domain"]
    assert curve.phi == {"1": (18 - 1) / 20, "10": (18 - 10) / 20, "100": 0.0}
    assert curve.coverage_at_risk == {"0.01": 0, "0.05": 0, "0.1": 1.0, "0.2": 1.0}


def test_scores_of_a_model_that_refuses_by_itself_are_never_answered(predictions):
    x = columns(of(predictions, "base", "in_domain"), margin)
    refuses = [p.forced.outcome == "refused" for p in of(predictions, "base", "in_domain")]
    assert any(refuses)
    np.testing.assert_array_equal(x["score"] == np.inf, refuses)
    assert not x["correct"][refuses].any()


def test_metrics_hold_models_baselines_and_the_differences_from_the_best(predictions, metrics):
    assert metrics.asked == list(MODELS)
    assert set(metrics.models) == {
        *MODELS,
        *BASELINES,
        *map(calibrated, MODELS),
        *map(by_likelihood, MODELS[1:]),
    }
    assert metrics.domains == ["in_domain", "out_of_domain"]
    for domain in metrics.domains:
        best = best_baseline(metrics.models, "base", domain)
        candidates = {"base", "base_calibrated", *BASELINES} - {"oracle"}
        values = {name: metrics.models[name][domain]["all"].t for name in candidates}
        assert values[best] == max(values.values())
        for name in (f(model) for f in (str, calibrated, by_likelihood) for model in MODELS[1:]):
            (d,) = (
                d
                for d in metrics.differences
                if (d.a, d.b, d.domain, d.group) == (best, name, domain, "all")
            )
            change = metrics.models[name][domain]["all"].t - values[best]
            assert d.diff == pytest.approx(change)
            assert d.low <= d.diff <= d.high
    keys = [(d.a, d.b, d.domain, d.group) for d in metrics.differences]
    assert len(keys) == len(set(keys))
    written = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    validated = {"curves", "thresholds", "prices"}
    assert {"models", "differences", "seconds", *validated} == written.keys()


def test_without_validation_stands_what_needs_none(predictions, metrics):
    """The same as with validation; the oracle gives the base's own answer, if none is forced."""
    tested = [p for p in predictions if p.domain != VALIDATION]
    plain = measure(tested, tested, 0, {})
    assert plain.asked == list(MODELS)
    assert list(plain.models) == [*MODELS, "always_refuse", "oracle"]
    assert all(plain.models[name] == metrics.models[name] for name in plain.models)
    assert plain.to_json().keys() == {"models", "differences", "seconds"}
    for domain in plain.domains:
        best = best_baseline(plain.models, "base", domain)
        assert best in ("base", "always_refuse")
        pairs = {(d.a, d.b) for d in plain.differences if d.domain == domain}
        assert {(best, name) for name in MODELS[1:]} <= pairs
    bare = [replace(p, forced=None) for p in tested]
    oracle = [p for p in compare(bare, 0).predictions if p.model == "oracle"]
    said = {(p.dataset, p.id): p.outcome for p in bare if p.model == "base"}
    for p in oracle:
        refuses = p.type == 3 or p.confidence < 0.5
        assert p.outcome == ("refused" if refuses else said[p.dataset, p.id])


def test_a_base_alone_has_baselines_and_no_differences(predictions):
    _, metrics = measured([p for p in predictions if p.model == "base"])
    assert metrics.asked == ["base"]
    assert metrics.differences == []


def test_answers_that_begin_as_refusals_do_are_refused(predictions):
    """A bias on their first token would take them for refusals ("The image shows red.")."""
    base = [p for p in predictions if p.model == "base"]
    answers = [p for p in base if p.outcome != "refused"]
    few = len(base) // 20
    moved = {id(p) for p in answers[:few]}
    some = [replace(p, prediction="The cat.") if id(p) in moved else p for p in base]
    check_refusal_tokens(some, "base")
    moved = {id(p) for p in answers[: few + 1]}
    some = [replace(p, prediction="The cat.") if id(p) in moved else p for p in base]
    with pytest.raises(InbolError, match=rf"^base: {few + 1} of .* 'The cat.'; choose refusals"):
        check_refusal_tokens(some, "base")


def value(p, price):
    """What a prediction is worth if a wrong answer costs a price."""
    return p.user_value if p.user_value >= 0 else -price


def test_at_each_price_a_model_has_the_rule_that_is_best_on_validation(predictions, metrics):
    """By brute force: every threshold of both rules is tried on validation."""
    for model, domain in (("idk_it", "in_domain"), ("ca_dpo", "out_of_domain")):
        for price in (0.25, 1, 4):
            tried = []
            for score in (margin, SCORES["likelihood"]):
                validation = of(predictions, model, VALIDATION)
                levels = sorted({score(p) for p in validation})
                middles = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
                for threshold in (levels[0] - 1, *middles, levels[-1] + 1):
                    worth = [
                        np.mean(
                            [
                                value(decided(p, "x", refuse=score(p) > threshold), price)
                                for p in some
                            ]
                        )
                        for some in (validation, of(predictions, model, domain))
                    ]
                    tried.append(worth)
            best = max(on_validation for on_validation, _ in tried)
            found = metrics.prices[model][domain][f"{price:g}"].value
            there = [on_test for on_validation, on_test in tried if on_validation > best - 1e-9]
            assert any(found == pytest.approx(on_test) for on_test in there)


def test_what_needs_no_threshold_has_its_value_at_each_price(predictions, metrics):
    for domain in ("in_domain", "out_of_domain"):
        some = of(predictions, "base", domain)
        for price in PRICES:
            refused = np.mean([decided(p, "x", refuse=True).user_value for p in some])
            at = {name: prices[domain][f"{price:g}"] for name, prices in metrics.prices.items()}
            assert at["always_refuse"].value == pytest.approx(refused)
            assert at["always_refuse"].change.low is None
            known = [p.type != 3 and p.confidence >= price / (1 + price) for p in some]
            told = [
                value(decided(p, "x", refuse=not k), price)
                for p, k in zip(some, known, strict=True)
            ]
            assert at["oracle"].value == pytest.approx(np.mean(told))
    assert metrics.prices.keys() == {*MODELS, "always_refuse", "base_threshold_probe", "oracle"}


def test_the_oracle_at_a_price_of_1_is_that_of_t(metrics):
    for domain in metrics.domains:
        t = metrics.models["oracle"][domain]["all"].t
        assert metrics.prices["oracle"][domain]["1"].value == pytest.approx(t)


def test_changes_at_a_price_are_from_the_best_that_needs_no_training(metrics):
    free = ("base", "always_refuse", "base_threshold_probe")
    for domain, price in itertools.product(metrics.domains, PRICES):
        here = {name: prices[domain][f"{price:g}"] for name, prices in metrics.prices.items()}
        best = max(here[name].value for name in free)
        for model in ("idk_it", "ca_dpo"):
            change = here[model].change
            assert change.value == pytest.approx(here[model].value - best)
            assert change.low <= change.value <= change.high
            assert here[model].verdict == (change.low > 0) - (change.high < 0)


def test_a_few_questions_are_not_told_apart_at_any_price(predictions):
    few = [p for p in predictions if p.domain == VALIDATION]
    few += [p for p in predictions if p.domain == "in_domain" and int(p.id[1:]) < 12]
    prices = measured(few)[1].prices["ca_dpo"]["in_domain"]
    assert {cell.verdict for cell in prices.values()} == {0}
    assert {cell.change.low for cell in prices.values()} == {None}
