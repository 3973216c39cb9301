"""The table that `inbol build` prints."""

import re

import numpy as np
from store_lines import LINES, built, line, store

from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.tally import Tally, select, table
from inbol_jax.records import PairKind

COLUMNS = ["", "questions", "instructions", "pairs"]
COLUMNS += ["correct > refusal", "correct > incorrect", "refusal > incorrect", "refusal > answer"]


def test_the_table_counts_what_was_kept(tmp_path):
    tally = Tally(
        question_keys=np.array([3, 1, 2, 9, 8], np.uint64),
        question_types=np.array([1, 2, 3, 0, 1], np.int8),
        instruction_questions=np.array([0, 1, 2, 4], np.uint32),
        pair_questions=np.array([0, 0, 2, 3], np.uint32),
        pair_kinds=np.array([0, 1, PairKind.REFUSAL_OVER_ANSWER, 0], np.int8),
        pair_keys=np.array([5, 6, 7, 8], np.uint64),
        n_noisy=0,
        n_unanswered=0,
        n_without_negatives=0,
    )
    selection = select(tally, BuildConfig(tmp_path))
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
    assert lines[-2].endswith("of the labels lie within sampling noise of a threshold")
    assert lines[-1] == f"10 records, 9 instructions, 10 pairs -> {out}"


def test_a_known_question_that_nobody_judged_is_counted(tmp_path, capsys):
    out = tmp_path / "run"
    store(out, "train", LINES)
    row = line("free", "wwwwwwwwww", answers=[], answerable=None, samples=["blue"] * 10)
    store(out, "free", [row])
    _, instructions, pairs = built(out, estimator="consistency")
    assert "free" not in {i["id"] for i in instructions} | {p["id"] for p in pairs}
    assert "1 Known questions have no correct response to teach" in capsys.readouterr().out
