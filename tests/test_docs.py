"""What the documents say is what was measured."""

import json
import re
from pathlib import Path

import pytest

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.data.adapters import ADAPTERS
from inbol_jax.defaults import TINY
from inbol_jax.demo import MEASURED
from inbol_jax.records import METRICS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_results_hold_the_tables_of_the_report(file):
    table = json.loads(file.read_text())
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    results = (ROOT / "docs/results.md").read_text()
    for row in table["rows"]:
        assert "| " + " | ".join(row) + " |" in results


def test_tables_were_measured_with_the_shipped_checkpoint():
    assert {json.loads(file.read_text())["checkpoint"] for file in MEASURED} == {
        file_fingerprint(TINY / "model.safetensors")
    }


def test_files_that_the_readme_names_are_there():
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"\((docs/[\w./-]+)\)|`(docs/[\w./-]+)`", readme):
        assert (ROOT / next(filter(None, name))).exists()


def test_every_set_and_metric_is_in_the_datasets_page():
    page = (ROOT / "docs/datasets.md").read_text()
    sets, metrics = page.split("## Answers")
    rows = {
        row[1]: row
        for line in sets.splitlines()
        if line.startswith("| `") and (row := [cell.strip(" `") for cell in line.split("|")])
    }
    assert rows.keys() == ADAPTERS.keys()
    for name, adapter in ADAPTERS.items():
        _, _, _, questions, hub, metric, _ = rows[name]
        assert (hub != "none") == adapter.hub, name
        assert ("--data.annotations" in questions) == adapter.annotations, name
        assert adapter.metric in metric, name
    assert {
        line.split("`")[1] for line in metrics.split("##")[0].splitlines() if line.startswith("| `")
    } == set(METRICS)
