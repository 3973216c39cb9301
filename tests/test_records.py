import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.records import (
    Boundary,
    BoundaryRecord,
    PairKind,
    Preference,
    Response,
    wilson_interval,
)

UNIT = st.floats(0, 1)


@st.composite
def records(draw):
    texts = draw(st.lists(st.text(), min_size=1, max_size=8, unique=True))
    found = ([], [], [])
    boundary, type = draw(
        st.sampled_from([("known", 1), ("mixed", None), ("unknown", 2), ("unknown", 3)])
    )
    for text in texts:
        count = draw(st.integers(0, 5))
        outcome = draw(st.integers(1 if type == 3 else 0, 2))
        found[outcome].append(Response(text, count, draw(st.floats(-99, 0)) if count else None))
    low, confidence, high = sorted(draw(st.tuples(UNIT, UNIT, UNIT)))
    return BoundaryRecord(
        id=draw(st.text(min_size=1)),
        image=draw(st.text()),
        question=draw(st.text()),
        answers=draw(st.lists(st.text()).map(tuple)),
        type=type,
        boundary=Boundary(boundary),
        confidence=0.0 if type == 3 else confidence,
        n_correct=sum(r.count for r in found[0]),
        n_samples=sum(r.count for rs in found for r in rs),
        wilson_low=0.0 if type == 3 else low,
        wilson_high=high,
        correct=tuple(found[0]),
        incorrect=tuple(found[1]),
        refusal=tuple(found[2]),
        source=draw(st.text()),
        split=draw(st.text()),
        metric=draw(st.sampled_from(["vqa", "yes_no", "numeric:0.1"])),
        generator=draw(st.none() | st.text()),
        filters=draw(st.lists(st.text(), max_size=3).map(tuple)),
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


@given(records())
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
    responses = (
        (Response("red", 8, -1.0),),
        (Response("blue", 2, -2.0),),
        (Response("I don't know."),),
    )
    record = BoundaryRecord(
        "q1", "a.png", "What?", ("red",), 1, Boundary.KNOWN, 0.8, 8, 10, 0.5, 0.9, *responses
    )
    return through_json(record.to_json()) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"version": 0},
            "record q1: version 0, this program reads 1 and 2; run `inbol build` again",
        ),
        ({"version": 3}, "version 3"),
        ({"version": None}, "version None"),
        ({"shape": 1}, r"record q1: fields differ: \['shape'\]"),
        ({"boundary": "certain"}, "record q1: 'certain' is not a valid Boundary"),
        ({"answers": 3}, "record q1: answers and filters are lists"),
        ({"answers": "red"}, "record q1: answers and filters are lists"),
        ({"answers": [3]}, "answers, .* are texts"),
        ({"question": None}, "question, .* are texts"),
        ({"generator": 3}, "generator .* are texts"),
        ({"metric": "bleu"}, "record q1: metric 'bleu' is not known"),
        ({"metric": 3}, "record q1: "),
        ({"filters": [{}]}, "filters are texts"),
        ({"correct": [{"text": "red", "number": 3}]}, "record q1: .*number"),
        ({"incorrect": ["red"]}, "record q1: "),
        ({"type": 4}, "record q1: type 4 is not possible with boundary known"),
        ({"type": 2}, "type 2 is not possible with boundary known"),
        ({"type": 3, "boundary": "unknown"}, "Type 3 has no correct samples and confidence 0"),
        ({"n_correct": 11}, "11 of 10 correct is not possible"),
        ({"n_correct": -1}, "-1 of 10 correct is not possible"),
        ({"n_correct": "8"}, "record q1: "),
        ({"n_samples": None}, "record q1: "),
        ({"n_samples": 11}, "10 responses, 8 of them correct, were counted, not 11 and 8"),
        ({"n_correct": 7}, "not 10 and 7"),
        ({"confidence": 0.95}, "confidence 0.95 is not within its interval 0.5 to 0.9"),
        ({"confidence": float("nan")}, "confidence nan"),
        ({"confidence": "0.8"}, "record q1: "),
        ({"wilson_high": 1.1}, "interval 0.5 to 1.1 within 0 to 1"),
        (
            {"incorrect": [{"text": "blue", "count": 2, "logprob": None}]},
            "logprob is a finite number where",
        ),
        (
            {"incorrect": [{"text": "blue", "count": 2, "logprob": float("-inf")}]},
            "logprob is a finite number where",
        ),
        (
            {"refusal": [{"text": "I don't know.", "count": 0, "logprob": -1.0}]},
            "and null where it was not",
        ),
        ({"refusal": [{"text": "red", "count": 0, "logprob": None}]}, "a response is there twice"),
    ],
)
def test_a_row_that_is_no_record(changes, message):
    with pytest.raises(InbolError, match=message):
        BoundaryRecord.from_json(row(**changes))


def test_a_record_of_version_1_is_read():
    old = row(version=1, source="mismatched")
    for name in ("split", "metric", "generator", "filters"):
        del old[name]
    record = BoundaryRecord.from_json(old)
    assert (record.generator, record.source, record.filters, record.version) == (
        "mismatched",
        "",
        (),
        2,
    )
    assert BoundaryRecord.from_json(old | {"source": "dataset"}).generator is None


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
