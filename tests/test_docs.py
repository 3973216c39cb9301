"""What the documents say is what was measured."""

import json
import re
from pathlib import Path

import pytest

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.demo import MEASURED
from inbol_jax.models.loading import TINY

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_results_hold_the_tables_of_the_report(file):
    table = json.loads(file.read_text())
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    results = (ROOT / "docs/results.md").read_text()
    for row in table["rows"]:
        assert "| " + " | ".join(row) + " |" in results


def test_tables_were_measured_with_the_shipped_checkpoint():
    assert {json.loads(file.read_text())["checkpoint"] for file in MEASURED} == {file_fingerprint(TINY / "model.safetensors")}


def test_files_that_the_readme_names_are_there():
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"\((docs/[\w./-]+)\)|`(docs/[\w./-]+)`", readme):
        assert (ROOT / next(filter(None, name))).exists()
