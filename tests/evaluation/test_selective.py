import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.bootstrap import bootstrap
from inbol_jax.evaluation.policies import RISKS
from inbol_jax.evaluation.selective import (
    aurc,
    auroc,
    best_threshold,
    calibration,
    coverage_at_risk,
    risk_coverage,
    safe_threshold,
    value_at,
    value_curve,
)

INF = float("inf")
# Few levels, so that there are ties; +inf is a question that the model refuses by itself.
LEVELS = st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0, INF])
QUESTIONS = st.lists(st.tuples(LEVELS, st.booleans(), st.booleans()), min_size=1, max_size=12)


def columns(questions):
    score, correct, type3 = map(np.array, zip(*questions, strict=True))
    return score.astype(float), correct & ~type3, type3


def stakes_of(questions):
    score, correct, type3 = columns(questions)
    return score, np.where(correct, 1.0, -1.0), np.where(type3, 1.0, 0.0)


def invariant(function, score, *rest):
    """The function's value, which neither the order nor the scale of the scores changes."""
    value = function(score, *rest)
    order = np.random.default_rng(0).permutation(len(score))
    shuffled = function(score[order], *(column[order] for column in rest))
    stretched = function(np.where(score == INF, INF, np.exp(score / 3)), *rest)
    assert value == shuffled == stretched or value == pytest.approx(shuffled) == stretched
    return value


def worth(score, answered, refused):
    """Of a bias on the margin, which is the score: above 0 the model refuses."""
    return calibration(score, answered, refused, refuses=score > 0)


def test_a_bias_is_told_from_none_if_it_helps_where_it_was_not_chosen():
    """Scores that say where to refuse, and are too low by 2; the same with little data; and noise,
    for which the best threshold of the very questions promises more than it keeps."""
    random = np.random.default_rng(0)

    def drawn(n, hint):
        hard = random.random(n) < 0.5
        score = hint * (hard - 1) - 2 * (not hint) + random.normal(size=n)
        return score, np.where(hard, -1.0, 1.0), np.zeros(n)

    many, few, noise = (worth(*drawn(*x)) for x in ((600, 4), (15, 4), (600, 0)))
    assert many.tells
    assert 1 < many.bias.low <= many.bias.value <= many.bias.high < 3
    assert 0.1 < many.gain.low < many.gain.value < many.gain.high < 0.4
    assert not few.tells
    assert not noise.tells
    draws = [drawn(60, 0) for _ in range(30)]
    promised = [value_at(*s, best_threshold(*s)) - value_at(*s, 0.0) for s in draws]
    kept = [worth(*drawn(60, 0)).gain.value for _ in range(30)]
    assert np.mean(promised) > 0.03 > np.mean(kept)


@settings(deadline=None, max_examples=20)
@given(QUESTIONS)
def test_what_a_bias_is_worth_does_not_depend_on_the_order(questions):
    stakes = stakes_of(questions)
    order = np.random.default_rng(1).permutation(len(questions))
    found, shuffled = (worth(*s) for s in (stakes, (x[order] for x in stakes)))
    assert found == shuffled
    assert found.bias.value == 0.0 - best_threshold(*stakes)
    assert -2 <= found.gain.value <= 2  # to refuse Type 3 is worth 2 more than to answer it
    assert not found.tells  # of 12 questions


def test_a_threshold_gains_over_what_the_model_refuses_by_itself():
    """The score orders the questions rightly; the model refuses by tossing a coin."""
    random = np.random.default_rng(0)
    score, coin = random.normal(size=400), random.random(400) < 0.5
    answered, refused = np.where(score > 0, -1.0, 1.0), np.zeros(400)
    gain = calibration(score, answered, refused, refuses=coin).gain
    perfect, by_coin = (score <= 0).mean(), np.where(coin, refused, answered).mean()
    assert gain.value == pytest.approx(perfect - by_coin, abs=0.03)
    assert calibration(score, answered, refused, refuses=score > 0).gain.value <= 0


@settings(deadline=None, max_examples=30)
@given(QUESTIONS)
def test_auroc_is_the_share_of_ordered_pairs(questions):
    score, positive, _ = columns(questions)
    found = invariant(auroc, score, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    pairs = list(itertools.product(score[positive], score[~positive]))
    assert found == pytest.approx(np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]))
    assert auroc(score, ~positive) == pytest.approx(1 - found)


@settings(deadline=None)
@given(QUESTIONS)
def test_the_value_curve_has_every_threshold_and_no_better_one_is_missed(questions):
    stakes = stakes_of(questions)
    thresholds, shares, values = value_curve(*stakes)
    for threshold, refused, value in zip(thresholds, shares, values, strict=True):
        assert value == pytest.approx(value_at(*stakes, threshold))
        assert refused == pytest.approx((stakes[0] > threshold).mean())
    best = best_threshold(*stakes)
    tried = [value_at(*stakes, x) for x in np.linspace(-4, 5, 181)]
    assert value_at(*stakes, best) == pytest.approx(max(tried)) == values.max()
    equally_good = thresholds[values > values.max() - 1e-9]
    assert best == equally_good.max()


def test_the_best_threshold_lies_between_questions_and_moves_to_another_set():
    score, right, nothing = np.array([0.0, 1, 2, 5]), np.array([1.0, 1, -1, -1]), np.zeros(4)
    threshold = best_threshold(score, right, nothing)
    assert threshold == 1.5
    assert value_at(np.array([1.4, 1.6]), np.ones(2), np.zeros(2), threshold) == 0.5
    assert best_threshold(score, -np.ones(4), nothing) == -1.0  # 1 below the lowest: all refused
    assert best_threshold(score, np.ones(4), nothing) == 6.0  # none is
    assert best_threshold(score, nothing, nothing) == 6.0  # nothing to lose: answer
    with pytest.raises(InbolError, match="there is none"):
        best_threshold(*np.zeros((3, 0)))


def test_a_model_that_refuses_everything_by_itself_has_one_point():
    stakes = np.full(3, INF), np.array([1.0, -1, -1]), np.array([0.0, 0, 1])
    assert [list(column) for column in value_curve(*stakes)] == [[0], [1], [pytest.approx(1 / 3)]]
    assert value_at(*stakes, best_threshold(*stakes)) == pytest.approx(1 / 3)
    assert aurc(stakes[0], np.zeros(3, bool)) is None
    assert coverage_at_risk(stakes[0], np.zeros(3, bool), 0.2) == 0


@settings(deadline=None)
@given(QUESTIONS)
def test_risk_and_coverage_are_those_of_answering_up_to_each_score(questions):
    score, correct, _ = columns(questions)
    levels = sorted(set(score[score < INF]))
    curve = risk_coverage(score, correct)
    assert len(curve[0]) == len(levels)
    for level, coverage, risk in zip(levels, *curve, strict=True):
        answered = score <= level
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx((answered & ~correct).sum() / answered.sum())
    for most in (*RISKS, 0.5):
        good = [c for c, r in zip(*curve, strict=True) if r <= most + 1e-12]
        assert coverage_at_risk(score, correct, most) == max(good, default=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_all_orders_of_equal_scores(questions):
    score, correct = (np.array(column) for column in zip(*questions, strict=True))
    found = invariant(aurc, score, correct)
    areas = []
    for order in itertools.permutations(range(len(score))):
        if all(score[a] <= score[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum([not correct[i] for i in order if score[i] < INF])
            areas.append(np.mean(wrong / np.arange(1, len(wrong) + 1)) if len(wrong) else None)
    assert found == (None if areas[0] is None else pytest.approx(np.mean(areas)))


def test_aurc_in_closed_form():
    """A perfect order, its reverse, and no order at all."""
    n, wrong = 100, 20
    correct = np.arange(n) >= wrong
    perfect = sum((k - (n - wrong)) / k for k in range(n - wrong + 1, n + 1)) / n
    assert aurc(-np.arange(n, dtype=float), correct) == pytest.approx(perfect)
    reverse = sum(min(k, wrong) / k for k in range(1, n + 1)) / n
    assert aurc(np.arange(n, dtype=float), correct) == pytest.approx(reverse)
    assert aurc(np.zeros(n), correct) == pytest.approx(0.2)
    assert coverage_at_risk(-np.arange(n, dtype=float), correct, 0.2) == 1
    assert coverage_at_risk(-np.arange(n, dtype=float), correct, 0.0) == 0.8
    assert coverage_at_risk(np.arange(n, dtype=float), correct, 0.1) == 0


def test_the_interval_covers_a_known_mean_as_often_as_it_says():
    random, hits = np.random.default_rng(0), 0
    for seed in range(200):
        x = random.random(60) < 0.5
        estimate = bootstrap(lambda i, x=x: x[i].mean(), 60, resamples=200, seed=seed)
        assert estimate.low <= estimate.value <= estimate.high
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.9 <= hits / 200 <= 0.99


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = np.random.default_rng(1)
    difficulty = random.normal(size=300)
    correct = random.normal(size=300) > difficulty
    a, b = difficulty + 0.1 * random.normal(size=(2, 300))
    paired = bootstrap(lambda i: aurc(a[i], correct[i]) - aurc(b[i], correct[i]), 300)
    alone = bootstrap(lambda i: aurc(a[i], correct[i]), 300)
    assert paired.high - paired.low < (alone.high - alone.low) / 2
    assert paired.value == pytest.approx(aurc(a, correct) - aurc(b, correct))
    assert bootstrap(lambda i: aurc(a[i], correct[i]), 300) == alone  # the same seed
    assert bootstrap(lambda i: None, 300) == (None, None, None)
    assert bootstrap(lambda i: 1.0, 0) == (None, None, None)


def drawn_with_risk(risk_at, n, random):
    """Scores from 0 to 1, and whether each answer is correct."""
    score = random.random(n)
    return score, random.random(n) >= risk_at(score)


RISK_CURVES = {
    "rises": lambda score: 0.05 + 0.6 * score**1.5,
    "falls first": lambda score: np.where(score < 0.3, 0.12, 0.02 + 0.5 * (score - 0.3)),
    "in steps": lambda score: np.round(0.02 + 0.6 * score, 1),
}


@pytest.mark.parametrize("name", RISK_CURVES)
@pytest.mark.parametrize(("n", "risk"), [(200, 0.2), (1500, 0.1)])
def test_the_promised_risk_is_exceeded_no_more_often_than_it_may_be(name, n, risk):
    """1,000 validation sets, and the true risk of what each of them allows."""
    random, risk_at, delta = np.random.default_rng(0), RISK_CURVES[name], 0.1
    fine = (np.arange(10_000) + 0.5) / 10_000
    true_risk = np.cumsum(risk_at(fine)) / np.arange(1, 10_001)  # of the answers up to each score
    found = [safe_threshold(*drawn_with_risk(risk_at, n, random), risk, delta) for _ in range(1000)]
    answered = np.array([0 if t is None else int(t * 10_000) for t in found])
    violated = (true_risk[np.maximum(answered - 1, 0)] > risk) & (answered > 0)
    assert violated.mean() <= delta
    if name == "rises" and n == 1500:
        possible = np.flatnonzero(true_risk <= risk)[-1]
        assert answered.mean() > 0.3 * possible, "promises are kept by answering little"


@given(QUESTIONS, st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([0.05, 0.3]))
def test_what_a_risk_allows_grows_with_it_and_does_not_depend_on_the_order(questions, risk, delta):
    score, correct, _ = columns(questions * 5)
    found = safe_threshold(score, correct, risk, delta)
    assert found == safe_threshold(score[::-1], correct[::-1], risk, delta)
    if found is not None:
        assert found in score
        assert np.mean(~correct[score <= found]) <= risk
        assert safe_threshold(score, correct, risk + 0.1, delta) >= found
        assert safe_threshold(score, correct, risk, delta + 0.1) >= found


def test_a_few_questions_promise_no_small_risk():
    score, correct = np.arange(40.0), np.ones(40, bool)
    assert safe_threshold(score, correct, 0.05, 0.1) is None  # 0.95^40 = 0.13
    assert safe_threshold(score, correct, 0.2, 0.1) == 39.0
    assert safe_threshold(np.full(40, INF), correct, 0.5, 0.5) is None
    mostly_refused = np.concatenate([score, np.full(2000, INF)])
    assert safe_threshold(mostly_refused, np.ones(2040, bool), 0.2, 0.1) == 39.0
