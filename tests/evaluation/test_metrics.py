import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import TYPES, prediction
from msgspec.structs import replace
from scipy import stats

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.bootstrap import bootstrap_mean
from inbol_jax.evaluation.metrics import (
    CONFIDENCE_EDGES,
    GROUPS,
    Metrics,
    Scores,
    by_confidence,
    by_question_kind,
    differences,
    summarise,
)
from inbol_jax.evaluation.prediction import DOMAINS, OUTCOMES

FAST = {"resamples": 100}


@st.composite
def predictions_of_three_models(draw):
    outcomes = st.lists(st.sampled_from(OUTCOMES), min_size=3, max_size=3)
    questions = st.tuples(st.sampled_from(DOMAINS), st.sampled_from(TYPES), outcomes)
    made = []
    for i, (domain, type, outcomes) in enumerate(draw(st.lists(questions))):
        for model, outcome in zip("abc", outcomes, strict=True):
            made.append(prediction(i, outcome, type, model=model, domain=domain))
    return made


def random_predictions(n, models=("base", "idk_it", "ca_dpo"), seed=0):
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        type, domain = TYPES[i % 4], DOMAINS[i % 8 // 4]
        for model in models:
            outcome, tenths = OUTCOMES[random.integers(3)], random.integers(11)
            about = {"model": model, "domain": domain}
            about["confidence"] = 0.0 if type == 3 else tenths / 10
            made.append(prediction(i, outcome, type, **about))
    return made


def renamed(predictions, model):
    return [replace(p, model=model) for p in predictions]


def cells(summary):
    """(group, scores) of all models and domains."""
    for domains in summary.values():
        for groups in domains.values():
            yield from groups.items()


@settings(max_examples=50)
@given(predictions_of_three_models())
def test_t_is_twice_acc_plus_refr_minus_one_if_answerable_and_twice_refr_minus_one_on_type_3(
    predictions,
):
    for group, cell in cells(summarise(predictions, **FAST)):
        if not cell.n:
            assert cell == Scores(0)
        elif group == "type3":
            assert cell.acc == 0
            assert math.isclose(cell.t, 2 * cell.refr - 1, abs_tol=1e-12)
        elif group != "all":
            assert math.isclose(cell.t, 2 * cell.acc + cell.refr - 1, abs_tol=1e-12)


@settings(max_examples=25)
@given(predictions_of_three_models(), st.randoms(use_true_random=False))
def test_the_order_of_the_questions_does_not_matter(predictions, random):
    shuffled = list(predictions)
    random.shuffle(shuffled)
    shuffled.sort(key=lambda p: p.model)  # the order of the models does matter
    assert summarise(shuffled, **FAST) == summarise(predictions, **FAST)
    assert differences(shuffled, **FAST) == differences(predictions, **FAST)
    assert by_question_kind(shuffled) == by_question_kind(predictions)
    assert by_confidence(shuffled, "b") == by_confidence(predictions, "b")


@settings(max_examples=25)
@given(predictions_of_three_models())
def test_intervals_hold_their_estimate_and_groups_add_up(predictions):
    summary = summarise(predictions, **FAST)
    for _, cell in cells(summary):
        assert cell.n == 0 or cell.t_low <= cell.t <= cell.t_high
    for d in differences(predictions, **FAST):
        assert d.diff is None or d.low <= d.diff <= d.high
    for domains in summary.values():
        for groups in domains.values():
            n = {group: cell.n for group, cell in groups.items()}
            assert list(n) == list(GROUPS)
            assert n["type12"] == n["type1"] + n["mixed"] + n["type2"] == n["all"] - n["type3"]


@pytest.mark.parametrize("counts", [(20, 30, 50), (300, 0, 700)])
def test_the_bootstrap_gives_scipys_interval_within_monte_carlo_error(counts):
    values = np.repeat((-1, 0, 1), counts)
    ours = bootstrap_mean(Counter(values.tolist()), resamples=4_000, seed=0)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4_000, method="percentile", rng=np.random.default_rng(1)
    )
    # The standard error of a 2.5% quantile of a normal sample is 2.67 sd / sqrt(resamples). Two of
    # them are compared, at five standard errors; and means are multiples of 1 / n.
    error = 2.67 * theirs.standard_error / math.sqrt(4_000)
    tolerance = 5 * math.sqrt(2) * error + 1 / len(values)
    assert ours.value == values.mean()
    np.testing.assert_allclose((ours.low, ours.high), theirs.confidence_interval, atol=tolerance)


def test_a_model_does_not_differ_from_itself():
    predictions = random_predictions(60, models=("a",))
    result = differences(predictions + renamed(predictions, "b"))
    assert {(d.diff, d.low, d.high) for d in result} == {(0.0, 0.0, 0.0)}
    assert len(result) == 2 * len(GROUPS)


@pytest.mark.parametrize(
    ("n", "alike", "verdict"),
    [(1, 1, 0), (19, 10, 0), (20, 20, 0), (20, 10, 1), (200, 200, 0), (200, 199, 1)],
)
def test_few_questions_and_changes_that_are_all_alike_are_no_verdict(n, alike, verdict):
    """Here `alike` of n questions were wrong and are correct; the others stay as they were."""
    before = [prediction(i, "wrong", model="a") for i in range(n)]
    outcomes = ["correct"] * alike + ["wrong"] * (n - alike)
    after = [prediction(i, outcome, model="b") for i, outcome in enumerate(outcomes)]
    (better,) = (d for d in differences(before + after) if d.group == "all")
    (worse,) = (d for d in differences(after + before) if d.group == "all")
    assert better.low > 0 > worse.high
    assert (better.n, better.verdict, worse.verdict) == (n, verdict, -verdict)


def test_pairing_is_narrower_than_two_intervals_if_the_models_mostly_agree():
    predictions = random_predictions(200, models=("a",))
    changed = renamed(predictions, "b")
    for i in range(0, 200, 20):
        changed[i] = replace(changed[i], outcome="refused")
    d = next(d for d in differences(predictions + changed) if d.group == "all")
    cell = summarise(predictions)["a"]["in_domain"]["all"]
    assert d.high - d.low < (cell.t_high - cell.t_low) / 2


@pytest.mark.parametrize(
    ("models", "pairs"), [("x", []), ("xy", ["xy"]), ("xyz", ["xy", "yz", "xz"])]
)
def test_pairs_are_the_consecutive_ones_and_the_last_against_the_first(models, pairs):
    result = differences(random_predictions(8, models), **FAST)
    assert list(dict.fromkeys(d.a + d.b for d in result)) == pairs


@pytest.mark.parametrize("other", [{"type": None}, {"type": 3}, {"domain": "out_of_domain"}])
def test_what_cannot_be_paired_is_named(other):
    """Also a question that one model was asked as of another type or domain."""
    predictions = [prediction(i, "correct", model="a", dataset="d") for i in (1, 2)]
    predictions += [prediction(1, "wrong", model="b", dataset="d")]
    changed = prediction(2, "wrong", model="b", dataset="d", **other)
    for more in ([], [changed]):
        with pytest.raises(InbolError, match=r"1 questions .* both a and b.* for example 'q2'"):
            differences([*predictions, *more])


def test_a_question_that_a_model_answered_twice_is_named():
    with pytest.raises(InbolError, match=r"'q1' .*stands twice"):
        summarise([prediction(1, "correct"), prediction(1, "wrong")])


def test_an_answer_called_correct_counts_as_an_answer_on_type_3():
    summary = summarise([prediction(1, "correct", 3), prediction(2, "refused", 3)])
    cell = summary["base"]["in_domain"]["all"]
    assert (cell.acc, cell.refr, cell.t) == (0, 0.5, 0)


def test_bins_are_closed_below_and_the_last_one_on_both_sides():
    def counts(*confidences):
        made = [prediction(i, "correct", confidence=c) for i, c in enumerate(confidences)]
        return [b.n for b in by_confidence(made, "base")]

    # the same tenths, as different roads of arithmetic arrive at them
    roads = [(k / 10, k * 0.1, 1 - (10 - k) / 10) for k in range(11)]
    assert counts(*itertools.chain(*roads)) == [6, 6, 6, 6, 9]
    assert counts(0.6000001) == [0, 0, 0, 1, 0]
    assert counts(0.5999999) == [0, 0, 1, 0, 0]
    bins = by_confidence([], "base")
    assert [(b.low, b.high) for b in bins] == list(itertools.pairwise(CONFIDENCE_EDGES))


@given(predictions_of_three_models())
def test_rates_by_confidence_are_of_answerable_questions_and_lie_in_their_intervals(predictions):
    bins = by_confidence(predictions, "a")
    assert sum(b.n for b in bins) == sum(p.model == "a" and p.type != 3 for p in predictions)
    for b in bins:
        assert (b.refr.value is None) == (b.n == 0)
        assert (b.answered_acc.value is None) == (b.n == 0 or b.refr.value == 1)
        for rate in (b.refr, b.answered_acc):
            if rate.value is not None:
                assert 0 <= rate.low <= rate.value + 1e-12
                assert rate.value - 1e-12 <= rate.high <= 1


def test_by_question_kind():
    predictions = [
        prediction(1, "correct", kind="b"),
        prediction(2, "refused", 2, kind="b"),
        prediction(3, "refused", 3, kind="b"),
        prediction(4, "wrong", kind=""),
    ]
    rates = []
    for kind, models in by_question_kind(predictions).items():
        for model, scores in models.items():
            rates.append((*kind, model, scores.n, scores.acc, scores.refr, scores.t))
    assert rates == [
        ("in_domain", False, "", "base", 1, 0, 0, -1),
        ("in_domain", False, "b", "base", 2, 0.5, 0.5, 0.5),
        ("in_domain", True, "b", "base", 1, 0, 1, 1),
    ]


def test_metrics_are_json_and_the_seed_decides():
    predictions = random_predictions(50)
    summary = summarise(predictions)
    metrics = Metrics(summary, differences(predictions), {"evaluation": 1.5})
    result = metrics.to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == ["models", "differences", "seconds"]
    assert list(result["models"]["base"]["in_domain"]) == list(GROUPS)
    names = ["n", "acc", "refr", "t", "t_low", "t_high", "denied"]
    assert list(result["models"]["base"]["in_domain"]["type1"]) == names
    names = ["a", "b", "domain", "group", "n", "diff", "low", "high"]
    assert list(result["differences"][0]) == names
    for bin in by_confidence(predictions, "base"):
        json.dumps(bin, allow_nan=False)
    assert list(result["models"]) == ["base", "idk_it", "ca_dpo"]
    assert summary == summarise(predictions) != summarise(predictions, seed=1)
    assert summarise([]) == {}
    assert differences([]) == []


def test_denials_are_counted_apart_among_the_refusals_of_type_3():
    made = [prediction(0, "refused", 3, prediction="There is no red thing.", question="Red what?")]
    made += [prediction(1, "refused", 3, prediction="I don't know.")]
    made += [prediction(2, "wrong", 3, prediction="red"), prediction(3, "correct")]
    groups = summarise(made)["base"]["in_domain"]
    assert (groups["type3"].refr, groups["type3"].denied) == (2 / 3, 1 / 3)
    assert (groups["all"].denied, groups["type1"].denied) == (1 / 4, 0)
