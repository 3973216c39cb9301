from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_lines import ANY_LINES, SETS, THRESHOLDS, line, preferences, question_of, records

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.record import make_record
from inbol_jax.records import PairKind, Sample, SampledQuestion
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.taught_refusals import SHORT_REFUSALS


def test_pairs_by_class():
    kinds = {}
    for pair in preferences(records()):
        kinds.setdefault(pair.id, set()).add(pair.kind)
    answers = {PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT}
    assert kinds == {
        "known": answers,
        "sure": {PairKind.CORRECT_OVER_REFUSAL},  # nothing wrong was said
        "mixed": answers | {PairKind.REFUSAL_OVER_INCORRECT},
        "torn": {PairKind.CORRECT_OVER_REFUSAL},
        "unknown": {PairKind.REFUSAL_OVER_INCORRECT},
        # One sample was right, but to prefer it would teach to guess.
        "hardly": {PairKind.REFUSAL_OVER_INCORRECT},
        "type3": {PairKind.REFUSAL_OVER_ANSWER},
        # "shy" and "type3-refused" only ever refused, "empty" said nothing: no pair
    }


def test_incorrect_responses_are_drawn_as_often_as_they_were_given():
    samples = ["blue"] * 8 + ["pink"] * 2
    one = records([line("q", "w" * 10, samples=samples)])
    many = records([line(f"q{i}", "w" * 10, samples=samples) for i in range(1000)])
    by_seed = Counter(p.rejected for seed in range(1000) for p in preferences(one, seed=seed))
    by_question = Counter(p.rejected for p in preferences(many))
    for drawn in (by_seed, by_question):
        assert drawn.total() == 1000
        assert drawn["blue"] == pytest.approx(800, abs=50)


def test_equal_sides_make_no_pair():
    # a template that some detector took for an answer
    samples = (Sample(SHORT_REFUSALS[0], -1.0, 2, "wrong"),) * 10
    question = SampledQuestion(question_of(line("q", "w")).example, samples)
    record = make_record(question, Thresholds())
    assert not preferences([record], "one")
    assert len(preferences([record], "reason")) == 1


@settings(deadline=None)
@given(ANY_LINES, THRESHOLDS, SETS, st.integers(0, 3))
def test_no_pair_has_equal_sides_and_each_side_is_what_its_kind_says(
    lines, thresholds, templates, seed
):
    by_id = {record.id: record for record in records(lines, thresholds)}
    pairs = preferences(by_id.values(), templates, seed)
    refusal_chosen = (PairKind.REFUSAL_OVER_INCORRECT, PairKind.REFUSAL_OVER_ANSWER)
    for pair in pairs:
        assert pair.chosen != pair.rejected
        assert pair.chosen.strip()
        assert pair.rejected.strip()
        assert is_refusal(pair.chosen) is (pair.kind in refusal_chosen)
        assert is_refusal(pair.rejected) is (pair.kind is PairKind.CORRECT_OVER_REFUSAL)
        record = by_id[pair.id]
        assert (pair.kind is PairKind.REFUSAL_OVER_ANSWER) is (record.type == 3)
        assert (pair.confidence, pair.type) == (record.confidence, record.type)
        assert (pair.question, pair.image) == (record.question, record.image)
        if pair.kind not in refusal_chosen:
            assert pair.chosen == record.correct[0].text
        if pair.kind is not PairKind.CORRECT_OVER_REFUSAL:
            assert pair.rejected in {r.text for r in record.incorrect}
    counts = Counter((p.id, p.kind) for p in pairs)
    assert max(counts.values(), default=1) == 1
