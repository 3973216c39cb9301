import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference, Response, wilson_interval

UNIT = st.floats(0, 1)
RESPONSES = st.lists(st.builds(Response, st.text(), st.integers(0, 10), st.none() | st.floats(-99, 0)), max_size=3).map(tuple)
RECORDS = st.builds(
    BoundaryRecord,
    id=st.text(min_size=1),
    image=st.text(),
    question=st.text(),
    answers=st.lists(st.text()).map(tuple),
    type=st.sampled_from([1, 2, 3, None]),
    boundary=st.sampled_from(Boundary),
    confidence=UNIT,
    n_correct=st.integers(0, 10),
    n_samples=st.integers(10, 20),
    wilson_low=UNIT,
    wilson_high=UNIT,
    correct=RESPONSES,
    incorrect=RESPONSES,
    refusal=RESPONSES,
    source=st.text(),
    version=st.just(1),
)
PREFERENCES = st.builds(
    Preference,
    id=st.text(),
    image=st.text(),
    question=st.text(),
    chosen=st.text(),
    rejected=st.text(),
    kind=st.sampled_from(PairKind),
    confidence=UNIT,
    type=st.sampled_from([1, 2, 3, None]),
)


def through_json(value):
    return json.loads(json.dumps(value, ensure_ascii=False))


@given(RECORDS)
def test_record_round_trip(record):
    assert BoundaryRecord.from_json(through_json(record.to_json())) == record


@given(PREFERENCES)
def test_preference_round_trip(preference):
    row = through_json(preference.to_json())
    assert Preference.from_json(row) == preference
    assert row["kind"] == preference.kind.name.lower()  # words on disk, not the losses' integers


def test_the_integers_of_pair_kinds_are_stable():
    assert {k.name: int(k) for k in PairKind} == {
        "CORRECT_OVER_REFUSAL": 0,
        "CORRECT_OVER_INCORRECT": 1,
        "REFUSAL_OVER_INCORRECT": 2,
        "REFUSAL_OVER_ANSWER": 3,
    }


def row(**changes):
    record = BoundaryRecord("q1", "a.png", "What?", ("red",), 1, Boundary.KNOWN, 0.8, 8, 10, 0.5, 0.9, (Response("red", 8, -1.0),), (), ())
    return through_json(record.to_json()) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "record q1: version 0, this program reads 1; run `inbol build` again"),
        ({"version": None}, "version None"),
        ({"shape": 1}, r"record q1: fields differ: \['shape'\]"),
        ({"boundary": "certain"}, "record q1: 'certain' is not a valid Boundary"),
        ({"answers": 3}, "record q1: "),
        ({"correct": [{"text": "red", "number": 3}]}, "record q1: .*number"),
        ({"incorrect": ["red"]}, "record q1: "),
        ({"type": 4}, "record q1: type 4 with 8 of 10"),
        ({"n_correct": 11}, "11 of 10 correct is not possible"),
        ({"n_correct": -1}, "-1 of 10 correct is not possible"),
        ({"n_correct": "8"}, "record q1: "),
        ({"n_samples": None}, "record q1: "),
    ],
)
def test_a_row_that_is_no_record(changes, message):
    with pytest.raises(InbolError, match=message):
        BoundaryRecord.from_json(row(**changes))


def test_a_row_without_a_field():
    short = row()
    del short["refusal"]
    with pytest.raises(InbolError, match=r"record q1: fields differ: \['refusal'\]"):
        BoundaryRecord.from_json(short)
    with pytest.raises(InbolError, match=r"record \(no id\): version None"):
        BoundaryRecord.from_json({})


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # statsmodels.stats.proportion.proportion_confint(method="wilson"), to seven digits
        (0, 10, 0.0, 0.2775328),
        (5, 10, 0.2365931, 0.7634069),
        (8, 10, 0.4901625, 0.9433178),
        (10, 10, 0.7224672, 1.0),
        (1, 1, 0.2065493, 1.0),
        (50, 100, 0.4038315, 0.5961685),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_an_interval_around_the_share_and_symmetric(counts):
    k, n = counts
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low))
    wider = wilson_interval(2 * k, 2 * n)
    assert wider[1] - wider[0] < high - low  # more samples, less doubt
