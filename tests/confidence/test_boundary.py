import itertools
import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.confidence.boundary import Thresholds, classify, within_noise
from inbol_jax.confidence.estimators import self_consistency, sequence_likelihood
from inbol_jax.construction.record import make_record
from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import Boundary, BoundaryRecord, Response

ORDER = (Boundary.UNKNOWN, Boundary.MIXED, Boundary.KNOWN)
COUNTS = st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
HUNDREDTHS = (
    st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted).filter(lambda t: t[0] < t[1])
)


def thresholds(pair):
    return Thresholds(delta_uk=pair[0] / 100, delta_k=pair[1] / 100)


@given(COUNTS, HUNDREDTHS)
def test_classes_part_exactly_at_the_thresholds(counts, pair):
    """Against rational numbers: no count at a threshold falls to the wrong side for the sake of a binary fraction."""
    confidence, (low, high) = Fraction(*counts), (Fraction(p, 100) for p in pair)
    expected = (
        Boundary.KNOWN
        if confidence >= high
        else Boundary.UNKNOWN
        if confidence <= low
        else Boundary.MIXED
    )
    assert classify(*counts, thresholds(pair)) is expected


def test_a_count_at_a_threshold_is_on_its_far_side():
    """Every threshold in hundredths that a count meets exactly: delta * n is off by a rounding error for many of them."""
    for n, p in itertools.product(range(1, 101), range(1, 100)):
        k, rest = divmod(n * p, 100)
        if rest == 0:
            assert classify(k, n, thresholds((0, p))) is Boundary.KNOWN, (k, n, p)
            assert classify(k, n, thresholds((p, 100))) is Boundary.UNKNOWN, (k, n, p)


@given(COUNTS, HUNDREDTHS)
def test_more_correct_samples_never_move_towards_unknown(counts, pair):
    k, n = counts
    if k < n:
        assert ORDER.index(classify(k, n, thresholds(pair))) <= ORDER.index(
            classify(k + 1, n, thresholds(pair))
        )


@given(COUNTS, HUNDREDTHS, HUNDREDTHS)
def test_higher_thresholds_move_questions_towards_unknown_only(counts, pair, other):
    low, high = sorted((pair, other))
    if low[1] <= high[1]:
        assert ORDER.index(classify(*counts, thresholds(high))) <= ORDER.index(
            classify(*counts, thresholds(low))
        )


def test_the_default_thresholds_with_ten_samples():
    found = [classify(k, 10, Thresholds()) for k in range(11)]
    assert found == [Boundary.UNKNOWN] * 4 + [Boundary.MIXED] * 3 + [Boundary.KNOWN] * 4


@pytest.mark.parametrize(
    ("delta_k", "delta_uk"), [(0.3, 0.7), (0.5, 0.5), (1.1, 0.3), (0.7, -0.1), (float("nan"), 0.3)]
)
def test_impossible_thresholds(delta_k, delta_uk):
    with pytest.raises(InbolError, match="thresholds need"):
        Thresholds(delta_k, delta_uk)


def store_row(outcomes, *, answers=("red",), answerable=True, texts=None, **extra):
    """A line of the confidence store: outcomes by letter, c, w or r."""
    texts = texts or [{"c": "red", "w": "blue", "r": "I don't know."}[o] for o in outcomes]
    names = [{"c": "correct", "w": "wrong", "r": "refused"}[o] for o in outcomes]
    return {
        "id": "q1",
        "image": "images/a.png",
        "question": "What color is the star?",
        "answers": list(answers),
        "answerable": answerable,
        "samples": texts,
        "logprobs": [-0.5 - i for i in range(len(outcomes))],
        "outcomes": names,
        "n_correct": names.count("correct"),
        "n_samples": len(names),
        **extra,
    }


def test_record_of_a_known_question():
    record = make_record(store_row("cccccccwwr"), Thresholds())
    assert (record.type, record.boundary, record.confidence) == (1, Boundary.KNOWN, 0.7)
    assert (record.n_correct, record.n_samples, record.generator, record.filters) == (
        7,
        10,
        None,
        (),
    )
    assert (record.source, record.split) == ("", "")
    assert record.correct == (Response("red", 7, -0.5),)
    assert record.incorrect == (Response("blue", 2, -7.5),)
    assert record.refusal == (Response("I don't know.", 1, -9.5),)
    assert (record.wilson_low, record.wilson_high) == pytest.approx((0.39678, 0.89221), abs=1e-5)


def test_record_of_an_unknown_question_still_holds_its_gold_answer():
    record = make_record(store_row("wwwwwwwwww"), Thresholds())
    assert (record.type, record.boundary, record.confidence) == (2, Boundary.UNKNOWN, 0.0)
    assert record.correct == (Response("red", 0, None),)


def test_record_of_a_mixed_question():
    record = make_record(store_row("cccccwwwww"), Thresholds())
    assert (record.type, record.boundary, record.confidence) == (None, Boundary.MIXED, 0.5)


def test_record_of_type_3():
    row = store_row(
        "wwwrrwwwww",
        answers=(),
        answerable=False,
        generator="unseeable",
        filters=["form", "leak"],
        source="vqav2",
        split="train",
    )
    record = make_record(row, Thresholds())
    assert (record.type, record.boundary, record.confidence, record.n_correct) == (
        3,
        Boundary.UNKNOWN,
        0.0,
        0,
    )
    assert (record.correct, record.generator, record.filters) == ((), "unseeable", ("form", "leak"))
    assert (record.source, record.split) == ("vqav2", "train")
    assert [r.count for r in record.incorrect] == [8]


def test_on_type_3_a_gold_answer_makes_nothing_correct():
    """A set may give its unanswerable questions the answers of annotators who guessed."""
    record = make_record(store_row("cccccccccr", answerable=False), Thresholds())
    assert (record.type, record.n_correct, record.correct) == (3, 0, ())
    assert [(r.text, r.count) for r in record.incorrect] == [("red", 9)]


def test_gold_answers_are_matched_by_the_question_s_own_metric():
    row = store_row("wwwwwwwwww", answers=["1,200"] * 5 + ["1210"] * 5, texts=["7"] * 10)
    assert [
        r.text for r in make_record(row | {"metric": "numeric:0.05"}, Thresholds()).correct
    ] == ["1,200", "1210"]
    assert make_record(row | {"metric": "numeric:0.05"}, Thresholds()).metric == "numeric:0.05"
    assert make_record(row, Thresholds()).metric == "vqa"


def test_a_gold_answer_that_refuses_is_no_correct_response():
    record = make_record(
        store_row("wwwwwwwwwr", answers=["unanswerable"] * 6 + ["red"] * 4), Thresholds()
    )
    assert [r.text for r in record.correct] == ["red"]


def test_a_refusal_is_neither_correct_nor_wrong():
    record = make_record(store_row("rrrrrrrrrc"), Thresholds())
    assert (record.confidence, record.type, record.incorrect) == (0.1, 2, ())


def test_responses_are_distinct_and_the_most_frequent_comes_first():
    texts = ["Red.", "red", "red", "blue", "pink", "blue", "green", "pink", "blue", "Red"]
    record = make_record(store_row("cccwwwwwwc", texts=texts), Thresholds())
    assert [(r.text, r.count) for r in record.correct] == [("red", 2), ("Red", 1), ("Red.", 1)]
    assert [(r.text, r.count) for r in record.incorrect] == [("blue", 3), ("pink", 2), ("green", 1)]
    assert (
        sum(r.count for r in (*record.correct, *record.incorrect, *record.refusal))
        == record.n_samples
    )


def test_a_gold_answer_that_scores_too_little_is_not_a_correct_response():
    """Nine annotators say red, one says blue: "blue" scores 0.3, so a sample of it is wrong, and it cannot be correct as well."""
    record = make_record(store_row("cccccwwwww", answers=["red"] * 9 + ["blue"]), Thresholds())
    assert [r.text for r in record.incorrect] == ["blue"]
    assert [r.text for r in record.correct] == ["red"]


@given(st.lists(st.sampled_from("cwr"), min_size=1, max_size=15), st.booleans())
def test_any_record_is_consistent(outcomes, answerable):
    outcomes = "".join(outcomes).replace("c", "c" if answerable else "w")
    record = make_record(
        store_row(outcomes, answerable=answerable, answers=("red",) if answerable else ()),
        Thresholds(),
    )
    assert (record.type == 3) is not answerable
    assert (
        record.type
        == {Boundary.KNOWN: 1, Boundary.MIXED: None, Boundary.UNKNOWN: 2 if answerable else 3}[
            record.boundary
        ]
    )
    assert record.confidence == record.n_correct / record.n_samples
    assert record.wilson_low <= record.confidence <= record.wilson_high
    assert BoundaryRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    for a, b in itertools.combinations((record.correct, record.incorrect, record.refusal), 2):
        assert not {r.text for r in a} & {r.text for r in b}


def test_within_noise():
    few, many = (
        make_record(store_row("c" * k + "w" * (n - k)), Thresholds())
        for k, n in ((8, 10), (95, 100))
    )
    assert within_noise(few, Thresholds())
    assert not within_noise(many, Thresholds())


def test_another_estimator_decides_class_confidence_and_interval_and_leaves_the_counts():
    row = store_row("wwwwwwwwcc", texts=["blue"] * 8 + ["red"] * 2) | {"token_counts": [2] * 10}
    record = make_record(row, Thresholds(), self_consistency)
    assert (record.boundary, record.confidence, record.n_correct, record.n_samples) == (
        Boundary.KNOWN,
        0.8,
        2,
        10,
    )
    assert (record.wilson_low, record.wilson_high) == wilson_interval(8, 10)
    likely = make_record(row, Thresholds(), sequence_likelihood)
    assert (
        likely.wilson_low
        == likely.confidence
        == likely.wilson_high
        == math.exp(row["logprobs"][0] / 2)
    )
    assert not within_noise(likely, Thresholds(likely.confidence, 0.1))
    type3 = make_record(row | {"answerable": False, "answers": []}, Thresholds(), self_consistency)
    assert (type3.boundary, type3.confidence) == (Boundary.UNKNOWN, 0)
