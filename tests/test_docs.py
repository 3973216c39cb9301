"""What the documents say is what was measured, and their commands run."""

import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import doctor
import pytest

from inbol_jax.artifacts import file_fingerprint, read_jsonl
from inbol_jax.cli import main, parse_options
from inbol_jax.commands import COMMANDS, load
from inbol_jax.data.sets import SETS
from inbol_jax.defaults import TINY
from inbol_jax.demo import MEASURED
from inbol_jax.pages.figures import MINUS
from inbol_jax.records import METRICS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a command of a page begins with -> the commands of `inbol` that it offers.
PROGRAMS = {
    ("inbol",): "",
    ("python", "train.py"): "",
    ("python", "evaluate.py"): "evaluate ",
}


def page_commands(page):
    """The commands of a page's bash blocks, as lists of words."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)  # a variable of the environment
            if words:
                yield words


def inbol_command(words):
    """(name, options) of a command of this package, or None."""
    for start, prefix in PROGRAMS.items():
        if tuple(words[: len(start)]) == start:
            line = [*prefix.split(), *words[len(start) :]]
            name = next(n for n in (" ".join(line[:2]), line[0]) if n in COMMANDS)
            return name, line[len(name.split()) :]
    return None


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param(page, words, id=f"{page.stem}-{i}")
        for page in PAGES
        for i, words in enumerate(page_commands(page))
    ],
)
def test_every_command_of_a_page_is_one(page, words):
    """Its options are parsed and validated; files of programs and targets of make exist."""
    words = words[3:] if words[:2] == ["taskset", "-c"] else words
    if command := inbol_command(words):
        name, options = command
        if not {"--help", "--version"} & set(options):
            parse_options(load(COMMANDS[name].config), f"inbol {name}", options)
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif words[0] == "python" and words[1].endswith(".py"):
        if words[1].startswith(("benchmarks/", "tpu/")):
            source = (ROOT / words[1]).read_text()
            for option in (word for word in words[2:] if word.startswith("--")):
                assert option.removeprefix("--").removeprefix("no-").replace("-", "_") in source
    elif words[0] == "tpu/launch.sh":
        subprocess.run([ROOT / words[0], "--dry-run", *words[1:]], check=True)
        for program, config, skipped in (
            ("train.py", load(COMMANDS["sft"].config), 2),
            ("tpu/doctor.py", doctor.Config, 1),
        ):
            if program in words and "--config" not in words:
                parse_options(config, program, words[words.index(program) + skipped :])
    else:
        others = {"pip", "pytest", "python", "source", "jq", "bash", "kubectl", "sbatch"}
        servers = {"vllm", "llama-server", "transformers"}
        assert words[0] in others | servers


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    """The working directory is empty but for the package, whose checkpoint README names."""
    (tmp_path / "inbol_jax").symlink_to(ROOT / "inbol_jax")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow  # the demo's tests run the same commands every day
def test_the_method_of_the_readme_runs_from_world_to_report(in_an_empty_folder, capsys):
    """README's commands, one after the other, on fewer questions."""
    section = (ROOT / "README.md").read_text().split("## The method, command by command")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    for line in block.splitlines():
        words = [re.sub(r"^(2000|500)$", "40", word) for word in shlex.split(line, comments=True)]
        if words == ["source", ".venv/bin/activate"]:
            continue
        assert words[0] == "inbol"
        assert main(words[1:]) == 0, line
    metrics = json.loads(Path("run/eval/metrics.json").read_text())
    models = ["base", "idk_it", "ca_dpo"]
    assert list(metrics["models"]) == [*models, "always_refuse", "oracle"]
    assert {row["model"] for row in read_jsonl(Path("run/eval/predictions.jsonl"))} == {*models}
    assert os.path.getsize("run/eval/report.html") > 10_000
    section = (ROOT / "README.md").read_text().split("## In Python")[1]
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], {})
    assert "t=1.0" in capsys.readouterr().out.splitlines()[-1]


def tables(text):
    """The tables of a Markdown text: (names of the columns but the first, rows of cells)."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [line.strip().strip("|").split("|") for line in block.splitlines()]
        (_, *columns), _, *rows = [[cell.strip(" ") for cell in line] for line in lines]
        yield columns, rows


def test_results_hold_what_was_measured_over_seeds():
    """A cell's name in the measured file is that of its row and column, in either order."""
    means = {row[0]: row[-2] for row in json.loads(MEASURED[0].read_text())["rows"]}
    text = (ROOT / "docs/results.md").read_text()
    section = text.split("## Does training help?")[1].split("\n## ")[0]
    compared = set()
    for columns, rows in tables(section):
        for label, *cells in rows:
            for column, cell in zip(columns, cells, strict=True):
                names = {f"{label}, {column}", f"{column}, {label}"} & means.keys()
                assert [means[name] for name in names] == [cell] * (cell != "–")  # noqa: RUF001
                compared |= names
    assert {name for name in means if "base minus" not in name} - compared <= {
        "seconds, without on-policy",
        "peak memory, GiB",
    }


def test_the_notes_hold_the_table_of_what_was_tried():
    """All of its rows, in their order, though not all columns."""
    table = json.loads(MEASURED[1].read_text())
    measured = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    text = (ROOT / "benchmarks/NOTES.md").read_text()
    ((columns, rows),) = tables(text.split("## Which settings of CA-DPO?")[1].split("\n## ")[0])
    assert {"T", "Type 1 accuracy", "T against IDK-IT (95% interval)"} <= {*columns}
    assert rows == [[row[name] for name in ("", *columns)] for row in measured]


def test_tables_were_measured_with_the_shipped_checkpoint():
    assert {json.loads(file.read_text())["checkpoint"] for file in MEASURED} == {
        file_fingerprint(TINY / "model.safetensors")
    }


def test_the_numbers_and_the_picture_of_the_readme_are_of_the_measured_run():
    measured = json.loads(MEASURED[0].read_text())
    means = {row[0]: row[-2] for row in measured["rows"]}
    section = (ROOT / "README.md").read_text().split("## What comes out")[1].split("## ")[0]
    ((columns, rows),) = tables(section)
    compared = 0
    for label, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            if cell != "–":  # noqa: RUF001
                mean = float(means[f"{label}, {column}"].replace(MINUS, "-"))
                assert cell == f"{mean:.2f}".replace("-", MINUS), (label, column)
                compared += 1
    assert compared >= 12
    assert measured["picture"] == file_fingerprint(ROOT / "docs/summary.png")


def test_the_losses_of_the_readme_can_be_called():
    section = (ROOT / "README.md").read_text().split("## The losses are functions")[1]
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names := {})
    margin = math.log1p(math.exp(-0.1 * 2.0))  # -log sigmoid(beta * (2 - 0))
    assert names["loss"].tolist() == pytest.approx([0.9 * (margin + 3.0 * 1.3)])


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
    assert rows.keys() == SETS.keys()
    for name, spec in SETS.items():
        _, _, questions, hub, metric, prompt, _ = rows[name]
        assert hub.startswith(f"{spec.hub}`" if spec.hub else ("none", "yours")), name
        assert ("--annotations" in questions) == spec.annotations, name
        assert (spec.metric or METRICS[0]) in metric, name
        assert prompt.strip("`") == (spec.prompt or ""), name
    assert {
        line.split("`")[1] for line in metrics.split("##")[0].splitlines() if line.startswith("| `")
    } == set(METRICS)
