"""What is kept for the shares, and the table that `inbol build` prints."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_lines import LINES, UNCAPPED, build_fails, built, four_groups, line, store

from inbol_jax.artifacts import read_meta
from inbol_jax.construction.build import FILES
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.tally import Tally, select, table, warnings
from inbol_jax.errors import InbolError
from inbol_jax.records import PairKind

COLUMNS = ["", "questions", "instructions", "pairs"]
COLUMNS += ["correct > refusal", "correct > incorrect", "refusal > incorrect", "refusal > answer"]


def test_the_table_counts_what_was_kept(tmp_path):
    tally = Tally()
    tally.question_keys.extend([3, 1, 2, 9, 8])
    tally.question_types.extend([1, 2, 3, 0, 1])
    tally.instruction_questions.extend([0, 1, 2, 4])
    tally.pair_questions.extend([0, 0, 2, 3])
    tally.pair_kinds.extend([0, 1, PairKind.REFUSAL_OVER_ANSWER.number, 0])
    tally.pair_keys.extend([5, 6, 7, 8])
    tally.close()
    selection = select(tally, BuildConfig(tmp_path, **UNCAPPED))
    assert selection.instructions.all()
    assert selection.pairs.all()
    selection = select(tally, BuildConfig(tmp_path, type_shares=((1, 0.5), (2, 0.5), (3, 0.0))))
    # Of the two questions of Type 1, the one with the smaller key is kept.
    assert selection.instructions.tolist() == [True, True, False, False]
    assert selection.pairs.tolist() == [True, True, False, True]
    assert [re.split(r"  +", row) for row in table(tally, selection)] == [
        COLUMNS,
        ["Type 1, known", "2", "1", "2", "1", "1", "0", "0"],
        ["mixed", "1", "0", "1", "1", "0", "0", "0"],
        ["Type 2, unknown", "1", "1", "0", "0", "0", "0", "0"],
        ["Type 3", "1", "0", "0", "0", "0", "0", "0"],
        ["all", "5", "2", "3", "2", "1", "0", "0"],
    ]


def test_the_table_of_a_build(tmp_path, capsys):
    out = tmp_path / "run"
    store(out, "train", LINES)
    built(out, templates="short")
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"  +", line) for line in lines[:6]] == [
        COLUMNS,
        ["Type 1, known", "3", "3", "4", "3", "1", "0", "0"],
        ["mixed", "1", "0", "3", "1", "1", "1", "0"],
        ["Type 2, unknown", "4", "4", "2", "0", "0", "2", "0"],
        ["Type 3", "2", "2", "1", "0", "0", "0", "1"],
        ["all", "10", "9", "10", "4", "2", "3", "1"],
    ]
    assert lines[6].startswith("Warning: only 3 instructions teach an answer; fewer than 50 teach")
    assert lines[-2].endswith("of the labels lie within sampling noise of a threshold")
    assert lines[-1] == f"10 records, 9 instructions, 10 pairs -> {out}"


def tally_of(types):
    """A tally of these types; each has an instruction and a pair, its key is that of its place."""
    tally, kinds = Tally(), {1: PairKind.CORRECT_OVER_REFUSAL, 3: PairKind.REFUSAL_OVER_ANSWER}
    random = np.random.default_rng(0)
    for i, type in enumerate(types):
        tally.question_keys.append(int(random.integers(1 << 60)))
        tally.question_types.append(type)
        tally.instruction_questions.append(i)
        tally.pair_questions.append(i)
        tally.pair_kinds.append(kinds.get(type, PairKind.REFUSAL_OVER_INCORRECT).number)
        tally.pair_keys.append(i)
    tally.close()
    return tally


@given(*3 * [st.integers(1, 80)], st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]), st.randoms())
def test_surplus_refusals_are_left_out(known, unknown, beyond, most, random):
    types = [1] * known + [2] * unknown + [3] * beyond
    random.shuffle(types)
    tally = tally_of(types)
    refusals = unknown + beyond
    allowed = min(refusals, int(known * most / (1 - most) + 1e-6)) if most < 1 else refusals
    config = BuildConfig(Path("run"), max_refusals=most)
    if not allowed:
        with pytest.raises(InbolError, match="no question is unknown"):
            select(tally, config)
        return
    kept, pairs = select(tally, config)
    count = Counter(np.array(types)[kept].tolist())
    assert count[1] == known
    assert count[2] + count[3] == allowed  # all that the share allows
    assert abs(count[2] - allowed * unknown / refusals) <= 1
    np.testing.assert_array_equal(kept, pairs)  # whole questions
    looser = select(tally, BuildConfig(Path("run"), max_refusals=(1 + most) / 2)).instructions
    assert looser[kept].all()


@pytest.mark.parametrize(
    ("known", "unknown", "options", "said"),
    [
        (60, 60, {}, []),
        (60, 300, {}, ["210 of 360 instructions are left out for --max-refusals"]),
        (60, 300, UNCAPPED, ["83% of the instructions teach a r", "83% of the pairs teach a r"]),
        (60, 600, {"type_shares": ((1, 0.1),)}, ["90% of the instructions", "90% of the pairs"]),
        (300, 60, {}, ["83% of the instructions teach an a", "83% of the pairs teach an a"]),
        (40, 40, {}, ["only 40 instructions teach an answer"]),
    ],
)
def test_what_is_one_sided_is_said(known, unknown, options, said):
    tally = tally_of([1] * known + [2] * unknown)
    lines = list(warnings(tally, select(tally, BuildConfig(Path("run"), **options))))
    for text in said:
        assert any(text in line for line in lines), lines
    assert sum(line.startswith("Warning") for line in lines) == sum("left" not in s for s in said)


def test_a_known_question_that_nobody_judged_is_counted(tmp_path, capsys):
    out = tmp_path / "run"
    store(out, "train", LINES)
    row = line("free", "wwwwwwwwww", answers=[], answerable=None, samples=["blue"] * 10)
    store(out, "free", [row])
    _, instructions, pairs = built(out, estimator="consistency")
    assert "free" not in {i["id"] for i in instructions} | {p["id"] for p in pairs}
    assert "1 Known questions have no correct response to teach" in capsys.readouterr().out


def test_types_have_their_shares_and_mixed_stays(out):
    whole = built(out)
    records, instructions, pairs = built(out, type_shares=((1, 0.5), (2, 0.3), (3, 0.2)))
    assert records == whole[0]
    assert Counter(i["type"] for i in instructions) == {1: 60, 2: 36, 3: 24}
    assert [i for i in whole[1] if i in instructions] == instructions
    kept = {i["id"] for i in instructions}
    assert {p["id"] for p in pairs} == kept | {f"mixed{i}" for i in range(60)}
    assert read_meta(out / FILES[1])["rows"] == 120


def test_a_share_of_type_3_leaves_the_others_in_proportion(out):
    _, instructions, _ = built(out, type_shares=((3, 0.2),))
    counts = Counter(i["type"] for i in instructions)
    assert (counts[1], counts[2], counts[3]) == (60, 60, 30)
    _, instructions, _ = built(out, type_shares=((3, 0.6),))
    counts = Counter(i["type"] for i in instructions)
    assert (counts[1] + counts[2], counts[3]) == (40, 60)
    assert 10 <= counts[1] <= 30
    _, instructions, pairs = built(out, type_shares=((3, 0.0),))
    assert {i["type"] for i in instructions} == {1, 2}
    assert "refusal_over_answer" not in {p["kind"] for p in pairs}


def test_what_is_left_out_depends_on_the_seed(out):
    shares = ((3, 0.2),)
    ids = [{i["id"] for i in built(out, type_shares=shares, seed=seed)[1]} for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_kinds_of_pairs_have_their_shares(out):
    whole = built(out)
    assert Counter(p["kind"] for p in whole[2]) == {
        "correct_over_refusal": 120,
        "correct_over_incorrect": 120,
        "refusal_over_incorrect": 120,
        "refusal_over_answer": 60,
    }
    shares = {"correct_over_refusal": 0.5, "refusal_over_incorrect": 0.25}
    shares["refusal_over_answer"] = 0.25
    records, instructions, pairs = built(out, pair_shares=tuple(shares.items()))
    assert (records, instructions) == (whole[0], whole[1])
    assert Counter(p["kind"] for p in pairs) == {
        "correct_over_refusal": 120,
        "refusal_over_incorrect": 60,
        "refusal_over_answer": 60,
    }
    assert [p for p in whole[2] if p in pairs] == pairs
    shares = (("refusal_over_answer", 0.05),)
    _, _, pairs = built(out, type_shares=((3, 0.1),), pair_shares=shares)
    counts = Counter(p["kind"] for p in pairs)
    assert counts["refusal_over_answer"] == 13  # of the 13 that the types leave
    assert sum(counts.values()) == 260


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            ((1, 0.0), (2, 0.5), (3, 0.5)),
            "no question is known: nothing to teach; move .* and the shares",
        ),
        (((1, 1.0),), "no question is unknown: nothing to teach"),
        (((1, 0.999), (2, 0.001)), "--type-shares: nothing is left of 2 .there are 60."),
    ],
)
def test_shares_that_leave_a_class_or_a_type_without_instructions(out, shares, message):
    build_fails(out, message, type_shares=shares)


def test_a_group_that_is_to_have_a_share_and_is_not_there(tmp_path):
    out = tmp_path / "run"
    store(out, "train", [row for row in four_groups() if row["answerable"]])
    message = "--type-shares: nothing is left of 3 .there are 0.; lower its share, or use more data"
    build_fails(out, message, type_shares=((3, 0.2),))
    message = "--pair-shares: nothing is left of refusal_over_answer"
    build_fails(out, message, pair_shares=(("refusal_over_answer", 0.2),))
