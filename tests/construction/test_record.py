"""The standard record of a sampled question."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_lines import THRESHOLDS, any_line, records

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.confidence import self_consistency, sequence_likelihood
from inbol_jax.construction.record import make_record
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import (
    Boundary,
    BoundaryRecord,
    Response,
    Sample,
    SampledQuestion,
    VQAExample,
)


def sampled(outcomes, *, texts=None, answers=("red",), answerable=True, extra=None, **columns):
    """A question whose samples have the outcomes that are given by letter: c, w or r."""
    texts = texts or [{"c": "red", "w": "blue", "r": "I don't know."}[o] for o in outcomes]
    names = [{"c": "correct", "w": "wrong", "r": "refused"}[o] for o in outcomes]
    samples = tuple(
        Sample(text, -0.5 - i, 2, name)
        for i, (text, name) in enumerate(zip(texts, names, strict=True))
    )
    about = {"answers": tuple(answers), "answerable": answerable, "extra": extra or {}} | columns
    example = VQAExample("q1", ("images/a.png",), "What color is the star?", **about)
    return SampledQuestion(example, samples)


def test_record_of_a_known_question():
    record = make_record(sampled("cccccccwwr"), Thresholds())
    assert (record.type, record.boundary, record.confidence) == (1, Boundary.KNOWN, 0.7)
    assert (record.n_correct, record.n_samples) == (7, 10)
    assert record.generator is None
    assert (record.source, record.split) == ("", "")
    assert record.correct == (Response("red", 7, -0.5),)
    assert record.incorrect == (Response("blue", 2, -7.5),)
    assert record.refusal == (Response("I don't know.", 1, -9.5),)
    assert (record.wilson_low, record.wilson_high) == pytest.approx((0.39678, 0.89221), abs=1e-5)


def test_record_of_type_3():
    question = sampled(
        "wwwrrwwwww",
        answers=(),
        answerable=False,
        extra={"generator": "unseeable"},
        source="vqav2",
        split="train",
    )
    record = make_record(question, Thresholds())
    assert (record.type, record.boundary) == (3, Boundary.UNKNOWN)
    assert (record.confidence, record.n_correct) == (0.0, 0)
    assert (record.correct, record.generator) == ((), "unseeable")
    assert (record.source, record.split) == ("vqav2", "train")
    assert [r.count for r in record.incorrect] == [8]


@pytest.mark.parametrize(("own", "kept"), [("human", "human"), (3, None)])
def test_a_dataset_may_have_a_column_of_its_own_of_that_name(own, kept):
    record = make_record(sampled("w" * 10, extra={"generator": own}), Thresholds())
    assert record.generator == kept


def test_on_type_3_a_gold_answer_makes_nothing_correct():
    """A set may give its unanswerable questions the answers of annotators who guessed."""
    record = make_record(sampled("cccccccccr", answerable=False), Thresholds())
    assert (record.type, record.n_correct, record.correct) == (3, 0, ())
    assert [(r.text, r.count) for r in record.incorrect] == [("red", 9)]


def test_a_gold_answer_that_refuses_is_no_correct_response():
    record = make_record(
        sampled("wwwwwwwwwr", answers=["unanswerable"] * 6 + ["red"] * 4), Thresholds()
    )
    assert [r.text for r in record.correct] == ["red"]


def test_responses_are_distinct_and_the_most_frequent_comes_first():
    texts = ["Red.", "red", "red", "blue", "pink", "blue", "green", "pink", "blue", "Red"]
    record = make_record(sampled("cccwwwwwwc", texts=texts), Thresholds())
    assert [(r.text, r.count) for r in record.correct] == [("red", 2), ("Red.", 1), ("Red", 1)]
    assert [(r.text, r.count) for r in record.incorrect] == [("blue", 3), ("pink", 2), ("green", 1)]


def test_a_gold_answer_that_scores_too_little_is_not_a_correct_response():
    """Nine annotators say red, one says blue: "blue" scores 0.3, so a sample of it is wrong, and it
    cannot be correct as well."""
    question = sampled("cccccwwwww", answers=["red"] * 9 + ["blue"], metric="vqa")
    record = make_record(question, Thresholds())
    assert [r.text for r in record.incorrect] == ["blue"]
    assert [r.text for r in record.correct] == ["red"]


@given(st.lists(st.sampled_from("cwr"), min_size=1, max_size=15), st.booleans())
def test_any_record_is_consistent(outcomes, answerable):
    outcomes = "".join(outcomes).replace("c", "c" if answerable else "w")
    record = make_record(
        sampled(outcomes, answerable=answerable, answers=("red",) if answerable else ()),
        Thresholds(),
    )
    assert (record.type == 3) is not answerable
    unknown = 2 if answerable else 3
    types = {Boundary.KNOWN: 1, Boundary.MIXED: None, Boundary.UNKNOWN: unknown}
    assert record.type == types[record.boundary]
    assert record.confidence == record.n_correct / record.n_samples
    assert record.wilson_low <= record.confidence <= record.wilson_high
    assert BoundaryRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    responses = [*record.correct, *record.incorrect, *record.refusal]
    assert len({r.text for r in responses}) == len(responses)
    assert sum(r.count for r in record.correct) == record.n_correct
    assert sum(r.count for r in responses) == record.n_samples
    assert all(r.count or r.logprob is None for r in responses)


def test_another_estimator_decides_class_confidence_and_interval_and_leaves_the_counts():
    texts = ["blue"] * 8 + ["red"] * 2
    question = sampled("wwwwwwwwcc", texts=texts)
    record = make_record(question, Thresholds(), self_consistency)
    assert (record.boundary, record.confidence) == (Boundary.KNOWN, 0.8)
    assert (record.n_correct, record.n_samples) == (2, 10)
    assert (record.wilson_low, record.wilson_high) == wilson_interval(8, 10)
    likely = make_record(question, Thresholds(), sequence_likelihood)
    value = math.exp(question.samples[0].logprob / 2)
    assert likely.wilson_low == likely.confidence == likely.wilson_high == value
    type3 = sampled("wwwwwwwwcc", texts=texts, answers=(), answerable=False)
    record = make_record(type3, Thresholds(), self_consistency)
    assert (record.boundary, record.confidence) == (Boundary.UNKNOWN, 0)


@settings(deadline=None)
@given(any_line(), THRESHOLDS, THRESHOLDS)
def test_thresholds_move_questions_in_one_direction_only(row, a, b):
    order = [Boundary.UNKNOWN, Boundary.MIXED, Boundary.KNOWN]
    if a.delta_k > b.delta_k or (a.delta_k == b.delta_k and a.delta_uk > b.delta_uk):
        a, b = b, a
    (low,), (high,) = records([row], a), records([row], b)
    if a.delta_uk <= b.delta_uk:  # both thresholds rise: towards Unknown, never back
        assert order.index(high.boundary) <= order.index(low.boundary)
    else:  # further apart: into Mixed, from either side, and nothing out of it
        assert high.boundary in (low.boundary, Boundary.MIXED)
        assert low.boundary is not Boundary.MIXED or high.boundary is Boundary.MIXED
    assert (low.correct, low.incorrect, low.refusal) == (high.correct, high.incorrect, high.refusal)
    assert low.confidence == high.confidence
    if low.type == 3:
        assert high.type == 3
