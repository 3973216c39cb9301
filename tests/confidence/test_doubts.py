import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.confidence.doubts import EARLY, EXAMPLES, MAX_CUT, NEAR, Doubts
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
    assert not extreme or len(shown) == min(n, EXAMPLES) or len(shown) >= EXAMPLES // 2
    assert len(shown) == len({*shown}) <= EXAMPLES * extreme


@pytest.mark.parametrize("n", [1, 9, 10, 11, 19, 20, 21, 999])
def test_examples_are_spread_over_all_questions(n):
    shown = lines_about([sampled(i, 0) for i in range(n)])[1:]
    places = [int(line.split("is ")[1].split("?")[0]) for line in shown]
    assert places[0] == 0
    assert min(n, EXAMPLES // 2) <= len(places) <= EXAMPLES
    assert places[-1] >= n // 2 - 1
    assert shown[0] == '  "What colour is 0?": 10 of 10 say "blue"; gold is "red"'


@pytest.mark.parametrize("about", [{"answers": ()}, {"answerable": False}])
def test_questions_that_nothing_can_be_right_to_say_nothing_of_the_confidence(about):
    assert lines_about([sampled(i, 0, **about) for i in range(2 * EARLY)]) == []
    (line,) = lines_about([sampled(i, 0, 10, **about) for i in range(3)])
    assert "100% of the answers were cut" in line


def test_both_ends_say_what_to_look_at():
    low, high = (lines_about([sampled(i, k) for i in range(EARLY)])[0] for k in (0, 10))
    assert "is 0.000, so hardly anything will be taught to be answered" in low
    assert "--max-new-tokens" in low
    assert "is 1.000, so hardly anything will be taught to be refused" in high
    assert all("--data.metric" in line for line in (low, high))
