import itertools
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import (
    CONFIDENCE_EDGES,
    DOMAINS,
    GROUPS,
    OUTCOMES,
    by_confidence,
    by_kind,
    differences,
    summarise,
    value,
)

TYPES = (1, None, 2, 3)
FAST = {"resamples": 200}


def row(i, outcome, type=1, *, model="base", domain="in_domain", confidence=0.5, kind="colour"):
    return {
        "id": f"q{i}",
        "dataset": domain,
        "domain": domain,
        "model": model,
        "image": f"{i}.png",
        "question": "What colour is it?",
        "answers": [] if type == 3 else ["red"],
        "type": type,
        "kind": kind,
        "confidence": 0.0 if type == 3 else confidence,
        "prediction": "red",
        "outcome": outcome,
    }


questions = st.lists(
    st.tuples(
        st.sampled_from(DOMAINS),
        st.sampled_from(TYPES),
        st.lists(st.sampled_from(OUTCOMES), min_size=3, max_size=3),
    )
)


@st.composite
def prediction_rows(draw):
    return [
        row(i, outcome, type, model=model, domain=domain)
        for i, (domain, type, outcomes) in enumerate(draw(questions))
        for model, outcome in zip("abc", outcomes, strict=True)
    ]


def random_rows(n, models=("base", "idk_it", "ca_dpo"), seed=0):
    random = np.random.default_rng(seed)
    return [
        row(
            i,
            OUTCOMES[random.integers(3)],
            TYPES[i % 4],
            model=model,
            domain=DOMAINS[i % 8 // 4],
            confidence=random.integers(11) / 10,
        )
        for i in range(n)
        for model in models
    ]


def test_value_is_the_table_of_the_method():
    assert (
        [value(o, 1) for o in OUTCOMES]
        == [value(o, 2) for o in OUTCOMES]
        == [value(o, None) for o in OUTCOMES]
        == [1, 0, -1]
    )
    assert [value(o, 3) for o in OUTCOMES] == [-1, 1, -1]
    with pytest.raises(InbolError, match="maybe"):
        value("maybe", 1)


@settings(deadline=None)  # the machine may be busy
@given(prediction_rows())
def test_t_is_twice_acc_plus_refr_minus_one_where_answerable_and_twice_refr_minus_one_on_type_3(
    rows,
):
    for domains in summarise(rows, **FAST).values():
        for groups in domains.values():
            for group, cell in groups.items():
                if not cell["n"]:
                    assert {v for name, v in cell.items() if name != "n"} == {None}
                elif group == "type3":
                    assert cell["acc"] == 0
                    assert math.isclose(cell["t"], 2 * cell["refr"] - 1, abs_tol=1e-12)
                elif group != "all":
                    assert math.isclose(
                        cell["t"], 2 * cell["acc"] + cell["refr"] - 1, abs_tol=1e-12
                    )


@settings(deadline=None)
@given(prediction_rows(), st.randoms(use_true_random=False))
def test_the_order_of_the_questions_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    shuffled.sort(key=lambda r: r["model"])  # the order of the models does matter
    assert summarise(shuffled, **FAST) == summarise(rows, **FAST)
    assert differences(shuffled, **FAST) == differences(rows, **FAST)
    assert by_kind(shuffled) == by_kind(rows)
    assert by_confidence(shuffled, "b") == by_confidence(rows, "b")


@settings(deadline=None)
@given(prediction_rows())
def test_intervals_hold_their_estimate(rows):
    for cell in (
        c
        for domains in summarise(rows).values()
        for groups in domains.values()
        for c in groups.values()
        if c["n"]
    ):
        assert cell["t_low"] <= cell["t"] <= cell["t_high"]
    for d in differences(rows):
        assert d["diff"] is None or d["low"] <= d["diff"] <= d["high"]


@settings(deadline=None)
@given(prediction_rows())
def test_groups_add_up(rows):
    for domains in summarise(rows, **FAST).values():
        for groups in domains.values():
            n = {group: cell["n"] for group, cell in groups.items()}
            assert list(n) == list(GROUPS)
            assert n["type12"] == n["type1"] + n["mixed"] + n["type2"] == n["all"] - n["type3"]


def test_counts_agree_with_resampling_the_indices():
    rows = random_rows(400, models=("a", "b"))
    cell = summarise(rows, resamples=20_000)["b"]["in_domain"]["all"]
    here = {m: [r for r in rows if r["model"] == m and r["domain"] == "in_domain"] for m in "ab"}
    values = {m: np.array([value(r["outcome"], r["type"]) for r in here[m]]) for m in "ab"}
    index = np.random.default_rng(7).integers(0, len(values["b"]), (20_000, len(values["b"])))
    np.testing.assert_allclose(
        (cell["t_low"], cell["t_high"]),
        np.percentile(values["b"][index].mean(1), (2.5, 97.5)),
        atol=0.011,
    )
    difference = next(
        d
        for d in differences(rows, resamples=20_000)
        if d["domain"] == "in_domain" and d["group"] == "all"
    )
    changes = (values["b"] - values["a"])[index].mean(1)
    np.testing.assert_allclose(
        (difference["low"], difference["high"]), np.percentile(changes, (2.5, 97.5)), atol=0.011
    )
    np.testing.assert_allclose(
        difference["diff"], cell["t"] - summarise(rows)["a"]["in_domain"]["all"]["t"], atol=1e-12
    )


def test_a_model_does_not_differ_from_itself():
    rows = random_rows(60, models=("a",))
    twins = rows + [r | {"model": "b"} for r in rows]
    result = differences(twins)
    assert {(d["diff"], d["low"], d["high"]) for d in result} == {(0.0, 0.0, 0.0)}
    assert len(result) == 2 * len(GROUPS)


def test_pairing_is_narrower_than_two_intervals_where_the_models_agree_mostly():
    rows = random_rows(200, models=("a",))
    changed = [
        r | {"model": "b"} | ({"outcome": "refused"} if i % 20 == 0 else {})
        for i, r in enumerate(rows)
    ]
    d = next(d for d in differences(rows + changed) if d["group"] == "all")
    cell = summarise(rows)["a"]["in_domain"]["all"]
    assert d["high"] - d["low"] < (cell["t_high"] - cell["t_low"]) / 2


def test_pairs_are_the_consecutive_ones_and_the_last_against_the_first():
    def pairs(models):
        return list(
            dict.fromkeys((d["a"], d["b"]) for d in differences(random_rows(8, models), **FAST))
        )

    assert pairs(("x",)) == []
    assert pairs(("x", "y")) == [("x", "y")]
    assert pairs(("x", "y", "z")) == [("x", "y"), ("y", "z"), ("x", "z")]


def test_what_cannot_be_paired_is_named():
    rows = [
        row(1, "correct", model="a"),
        row(1, "wrong", model="b"),
        row(2, "wrong", model="b"),
        row(3, "wrong", model="b"),
    ]
    with pytest.raises(InbolError, match=r"2 questions .* both a and b, for example 'q2'"):
        differences(rows)
    with pytest.raises(InbolError, match="another type or domain"):
        differences([row(1, "correct", 1, model="a"), row(1, "correct", 2, model="b")])


@pytest.mark.parametrize(
    "function", [summarise, differences, by_kind, lambda rows: by_confidence(rows, "base")]
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, "correct"), row(1, "wrong")], "stands twice"),
        ([row(1, "dunno")], "'dunno'"),
        ([row(1, "wrong", 4)], "no such type"),
        ([row(1, "wrong", domain="../x")], "none of in_domain"),
    ],
)
def test_impossible_rows_are_named(function, rows, message):
    with pytest.raises(InbolError, match=message):
        function(rows)


def test_an_answer_called_correct_counts_as_an_answer_on_type_3():
    cell = summarise([row(1, "correct", 3), row(2, "refused", 3)])["base"]["in_domain"]["all"]
    assert (cell["acc"], cell["refr"], cell["t"]) == (0, 0.5, 0)


def test_bins_are_closed_below_and_the_last_one_on_both_sides():
    # the same tenths, as different roads of arithmetic arrive at them
    tenths = (
        [k / 10 for k in range(11)] + [k * 0.1 for k in range(11)] + [1 - k / 10 for k in range(11)]
    )
    bins = by_confidence([row(i, "correct", confidence=c) for i, c in enumerate(tenths)], "base")
    assert [b["n"] for b in bins] == [6, 6, 6, 6, 9]
    assert [(b["low"], b["high"]) for b in bins] == list(itertools.pairwise(CONFIDENCE_EDGES))
    assert [b["n"] for b in by_confidence([row(1, "correct", confidence=0.6000001)], "base")] == [
        0,
        0,
        0,
        1,
        0,
    ]
    assert [b["n"] for b in by_confidence([row(1, "correct", confidence=0.5999999)], "base")] == [
        0,
        0,
        1,
        0,
        0,
    ]
    for outside in (1.1, -0.1, math.nan):
        with pytest.raises(InbolError, match="q1"):
            by_confidence([row(1, "correct", confidence=outside)], "base")


@settings(deadline=None)
@given(prediction_rows())
def test_rates_by_confidence_lie_in_their_wilson_intervals(rows):
    for b in by_confidence(rows, "a", edges=(0, 0.5, 1)):
        assert (b["refr"] is None) == (b["n"] == 0)
        assert (
            b["refr"] is None
            or 0 <= b["refr_low"] <= b["refr"] + 1e-12 <= b["refr_high"] + 2e-12 <= 1 + 3e-12
        )
        assert (b["answered_acc"] is None) == (b["n"] == 0 or b["refr"] == 1)
        assert (
            b["answered_acc"] is None
            or b["acc_low"] - 1e-12 <= b["answered_acc"] <= b["acc_high"] + 1e-12
        )


def test_by_confidence_leaves_type_3_and_other_models_out():
    rows = [
        row(1, "wrong"),
        row(2, "refused", 3),
        row(3, "refused", None),
        row(4, "correct", model="other"),
        row(5, "correct", 2),
    ]
    middle = by_confidence(rows, "base")[2]
    assert (middle["n"], middle["refr"], middle["answered_acc"]) == (3, 1 / 3, 1 / 2)


def test_by_kind():
    rows = [
        row(1, "correct", kind="b"),
        row(2, "refused", 2, kind="b"),
        row(3, "refused", 3, kind="b"),
        row(4, "wrong", kind=""),
    ]
    assert by_kind(rows) == [
        {
            "model": "base",
            "domain": "in_domain",
            "type3": False,
            "kind": "",
            "n": 1,
            "acc": 0,
            "refr": 0,
            "t": -1,
        },
        {
            "model": "base",
            "domain": "in_domain",
            "type3": False,
            "kind": "b",
            "n": 2,
            "acc": 0.5,
            "refr": 0.5,
            "t": 0.5,
        },
        {
            "model": "base",
            "domain": "in_domain",
            "type3": True,
            "kind": "b",
            "n": 1,
            "acc": 0,
            "refr": 1,
            "t": 1,
        },
    ]


def test_results_are_json_and_the_seed_decides():
    rows = random_rows(50)
    result = {
        "models": summarise(rows),
        "differences": differences(rows),
        "kinds": by_kind(rows),
        "bins": by_confidence(rows, "base"),
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["models"]) == ["base", "idk_it", "ca_dpo"]
    assert summarise(rows) == summarise(rows) != summarise(rows, seed=1)
    assert summarise([]) == {}
    assert differences([]) == []


def test_ten_thousand_questions_take_no_time():
    rows = random_rows(10_000, models=("a", "b"))
    start = time.process_time()
    summarise(rows)
    differences(rows)
    assert time.process_time() - start < 2
