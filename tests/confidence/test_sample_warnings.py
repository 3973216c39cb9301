import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.confidence.sample_warnings import EARLY, EXAMPLES, MAX_CUT, NEAR, Doubts
from inbol_jax.records import Sample, SampledQuestion, VQAExample


def sampled(i, n_correct, n_cut=0, *, n=10, answers=("red",), answerable=True):
    samples = [
        Sample("red" if k < n_correct else "blue", -1.0, 2, "correct" if k < n_correct else "wrong")
        for k in range(n)
    ]
    samples = [s._replace(cut=k < n_cut) for k, s in enumerate(samples)]
    example = VQAExample(f"q{i}", ("a.png",), f"What colour is {i}?", answers, answerable)
    return SampledQuestion(example, tuple(samples))


def lines_about(questions):
    doubts = Doubts()
    for question in questions:
        doubts.add(question)
    return list(doubts.warnings("set", 32))


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=60))
def test_warnings_follow_the_shares(counts):
    """Whether a line is there depends on the share of cut samples and on the mean alone."""
    lines = lines_about([sampled(i, *both) for i, both in enumerate(counts)])
    n = len(counts)
    cut = n > 0 and sum(cut for _, cut in counts) / (10 * n) > MAX_CUT
    mean = sum(correct for correct, _ in counts) / (10 * n) if n else 0.5
    extreme = not NEAR < mean < 1 - NEAR
    assert sum("cut at --max-new-tokens 32" in line for line in lines) == cut
    assert sum("the mean confidence" in line for line in lines) == extreme
    shown = [line for line in lines if "; gold is" in line]
    assert len(lines) == cut + extreme + len(shown)
    assert len(shown) == len({*shown}) == extreme * min(n, EXAMPLES)


@pytest.mark.parametrize("n", [1, 9, 10, 11, 999])
def test_examples_are_spread_over_all_questions(n):
    shown = lines_about([sampled(i, 0) for i in range(n)])[1:]
    places = [int(line.split("is ")[1].split("?")[0]) for line in shown]
    assert len({*places}) == len(places) == min(n, EXAMPLES)
    assert min(places) < n / 3 <= n * 2 / 3 <= max(places) + 1
    asked = f"What colour is {places[0]}?"
    assert shown[0] == f'  "{asked}": 10 of 10 say "blue"; gold is "red"'


@pytest.mark.parametrize("about", [{"answers": ()}, {"answerable": False}])
def test_questions_that_nothing_can_be_right_to_say_nothing_of_the_confidence(about):
    assert lines_about([sampled(i, 0, **about) for i in range(2 * EARLY)]) == []
    (line,) = lines_about([sampled(i, 0, 10, **about) for i in range(3)])
    assert "100% of the answers were cut" in line
