"""What is kept, what is warned of, and the table that `inbol build` prints."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_lines import LINES, built, line, store

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.tally import Built, warnings, without_surplus
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, Instruction, PairKind, Preference

COLUMNS = ["", "questions", "instructions", "pairs"]
COLUMNS += ["correct > refusal", "correct > incorrect", "refusal > incorrect", "refusal > answer"]


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


ABOUT = {
    1: (Boundary.KNOWN, PairKind.CORRECT_OVER_REFUSAL),
    2: (Boundary.UNKNOWN, PairKind.REFUSAL_OVER_INCORRECT),
    3: (Boundary.UNKNOWN, PairKind.REFUSAL_OVER_ANSWER),
}


def built_of(types):
    """What questions of these types gave: each has an instruction and a pair."""
    made = Built([], [], [])
    for i, type in enumerate(types):
        about = {"id": f"q{i}", "images": (), "question": "What?", "type": type}
        boundary, kind = ABOUT[type]
        made.instructions.append(Instruction(**about, response="x", boundary=boundary))
        sides = {"chosen": "x", "rejected": "y", "confidence": 0.5}
        made.pairs.append(Preference(**about, **sides, kind=kind))
    return made


def config(most):
    return BuildConfig(Path("run"), max_refusals=most)


@given(*3 * [st.integers(1, 80)], st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]), st.randoms())
def test_surplus_refusals_are_left_out(known, unknown, beyond, most, random):
    types = [1] * known + [2] * unknown + [3] * beyond
    random.shuffle(types)
    built = built_of(types)
    refusals = unknown + beyond
    allowed = min(refusals, int(known * most / (1 - most) + 1e-6)) if most < 1 else refusals
    if not allowed:
        with pytest.raises(InbolError, match="no question is unknown"):
            without_surplus(built, config(most))
        return
    kept = without_surplus(built, config(most))
    count = Counter(lesson.type for lesson in kept.instructions)
    assert count[1] == known
    assert count[2] + count[3] == allowed  # all that the share allows
    assert abs(count[2] - allowed * unknown / refusals) <= 1
    ids = [lesson.id for lesson in kept.instructions]
    assert [pair.id for pair in kept.pairs] == ids  # whole questions
    looser = without_surplus(built, config((1 + most) / 2))
    assert {*ids} <= {lesson.id for lesson in looser.instructions}


@pytest.mark.parametrize(
    ("known", "unknown", "most", "said"),
    [
        (60, 60, 0.6, []),
        (60, 300, 0.6, ["210 of 360 instructions are left out for --max-refusals"]),
        (60, 300, 1.0, ["83% of the instructions teach a r", "83% of the pairs teach a r"]),
        (300, 60, 0.6, ["83% of the instructions teach an a", "83% of the pairs teach an a"]),
        (40, 40, 0.6, ["only 40 instructions teach an answer"]),
    ],
)
def test_what_is_one_sided_is_said(known, unknown, most, said):
    built = built_of([1] * known + [2] * unknown)
    lines = list(warnings(built, without_surplus(built, config(most)), Thresholds()))
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
    _, instructions, _ = built(out, estimator="accuracy")
    assert "free" not in {i["id"] for i in instructions}
    assert "1 of 11 left out: no gold answers, which --estimator" in capsys.readouterr().out


def test_what_is_left_out_depends_on_the_seed(out):
    kept = [{i["id"] for i in built(out, max_refusals=0.5, seed=seed)[1]} for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
