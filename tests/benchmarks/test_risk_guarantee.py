"""Promises of risk are counted as they are kept, on predictions that are made up."""

import runpy
from pathlib import Path

from made_predictions import good_and_bad, with_validation

from inbol_jax.artifacts import write_jsonl

ROOT = Path(__file__).parents[2]


def test_what_is_promised_is_answered(tmp_path, capsys):
    """Half of the questions are to be refused, and the scores of all models tell them."""
    made = [p for p in with_validation(good_and_bad(240)) if p.domain != "out_of_domain"]
    write_jsonl(tmp_path / "predictions.jsonl", (p.to_json() for p in made), {})
    benchmark = runpy.run_path(str(ROOT / "benchmarks/risk_guarantee.py"))
    config = benchmark["Config"](tmp_path / "predictions.jsonl", (0.1, 0.7), splits=40)
    benchmark["main"](config)
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = {
        (name, float(risk)): [*map(float, numbers)] for name, risk, *numbers in map(cells, lines)
    }
    assert {name for name, _ in rows} == {"base", "idk_it", "ca_dpo", "probe"}
    for (name, _), (broken, silent, answered, possible) in rows.items():
        assert 0 <= broken <= 0.2  # a tenth, of 40 splits
        assert answered <= possible + 0.1
        assert (answered > 0) == (silent < 1)
        assert rows[name, 0.1][2] < rows[name, 0.7][2]


def cells(line):
    return line.strip("| ").split(" | ")
