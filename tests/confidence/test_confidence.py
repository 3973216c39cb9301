import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.confidence.confidence import (
    ESTIMATORS,
    get_estimator,
    proposed_answer,
    sampled_accuracy,
    self_consistency,
    sequence_likelihood,
)
from inbol_jax.confidence.samples import sampled_question
from inbol_jax.errors import InbolError
from inbol_jax.intervals import Estimate, share
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import Generation

EXAMPLE = VQAExample("q", ("a.png",), "What color is it?", ("red",), True)


def line(*answers, example=EXAMPLE):
    """A question whose samples are given as (text, log-probability, tokens)."""
    return sampled_question(example, [Generation(*answer) for answer in answers])


MIXED = line(
    ("Red.", -1.0, 2),
    ("the red", -3.0, 3),
    ("blue", -0.5, 2),
    ("green", -4.0, 2),
    ("I don't know.", -0.01, 5),
)


def test_accuracy_is_the_share_of_correct_samples():
    assert sampled_accuracy(MIXED) == share(2, 5)


def test_consistency_is_the_share_of_the_most_frequent_answer():
    """ "Red." and "the red" are one answer once normalised."""
    assert self_consistency(MIXED) == share(2, 5)
    assert self_consistency(line(*[("blue", -1.0, 2)] * 4, ("red", -1.0, 2))).value == 4 / 5
    assert self_consistency(line(("blue", -1.0, 2), ("red", -1.0, 2))).value == 1 / 2


def test_likelihood_is_that_of_the_likeliest_answer_a_token():
    """exp(-0.5 / 2) beats exp(-1 / 2), exp(-3 / 3) and exp(-4 / 2); the refusal, likelier than all,
    is no answer."""
    value = math.exp(-0.25)
    assert sequence_likelihood(MIXED) == Estimate(value, value, value)
    for p in (0.5, 0.25):  # blue is as likely as the first red, and likelier than the second
        both = line(("red", math.log(p), 1), ("blue", math.log(0.125), 3))
        assert sequence_likelihood(both).value == pytest.approx(0.5)
    above_certainty = line(("red", 1e-7, 1))  # by a rounding error
    assert sequence_likelihood(above_certainty).value == 1


def test_likelihood_without_log_probabilities_is_refused():
    """Unless there is no answer, or some have them."""
    unknown, refusal = ("red", None, None), ("I don't know.", None, None)
    with pytest.raises(InbolError, match="'q' have no log-probabilities"):
        sequence_likelihood(line(unknown, refusal))
    assert sequence_likelihood(line(refusal)).value == 0
    assert sequence_likelihood(line(("", None, None))).value == 0
    assert sequence_likelihood(line(unknown, ("red", -1.0, 2))).value == math.exp(-0.5)


def test_refusals_are_no_answers():
    refused = line(*[("I don't know.", -0.1, 5)] * 3)
    assert [estimator(refused).value for estimator in ESTIMATORS.values()] == [0, 0, 0]
    half = line(*[("I don't know.", -0.1, 5)] * 3, ("blue", -1.0, 1))
    assert self_consistency(half).value == 1 / 4
    assert sequence_likelihood(half).value == math.exp(-1)


@pytest.mark.parametrize("name", ["consistency", "likelihood"])
def test_no_gold_answer_is_needed(name):
    answers = [("red", -1.0, 2), ("red", -1.0, 2), ("blue", -2.0, 2)]
    without = VQAExample("q", ("a.png",), "What color is it?")
    assert get_estimator(name)(line(*answers, example=without)) == get_estimator(name)(
        line(*answers)
    )


SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["red", "Red", "blue", "", "a", "I don't know."]),
        st.floats(-40, 0),
        st.integers(1, 12),
    ),
    min_size=1,
)


@given(SAMPLES, st.randoms())
def test_estimates_are_confidences_and_do_not_depend_on_the_order(samples, random):
    other = list(samples)
    random.shuffle(other)
    for name, estimator in ESTIMATORS.items():
        found = estimator(line(*samples))
        assert 0 <= found.low <= found.value <= found.high <= 1, name
        assert estimator(line(*other)) == found, name
    assert proposed_answer(line(*other)) == proposed_answer(line(*samples))


def test_the_proposed_answer_is_the_most_frequent_one():
    """In the likeliest of its spellings, which of two as frequent answers decides too; never a
    refusal."""
    assert proposed_answer(MIXED) == "Red."
    assert proposed_answer(line(("blue", -0.1, 2), ("a red", -3.0, 2), ("red", -2.0, 2))) == "red"
    assert proposed_answer(line(("blue", -2.0, 2), ("red", -1.0, 2))) == "red"
    assert proposed_answer(line(*[("I don't know.", -0.1, 5)] * 3, ("blue", -9.0, 1))) == "blue"
    assert proposed_answer(line(*[("I don't know.", -0.1, 5)] * 3)) is None
