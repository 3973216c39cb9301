"""The loss and the reward of one's own that the documentation shows, as they stand there."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from training_data import metrics_of, write_jsonl

from inbol_jax.artifacts import read_jsonl
from inbol_jax.losses import (
    PAIR_LOSSES,
    PAIR_WEIGHTINGS,
    register_pair_loss,
    register_pair_weighting,
)
from inbol_jax.training.rl import REWARDS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pairs(small_world, tmp_path):
    """Four pairs, as `inbol build` writes them."""
    questions = list(read_jsonl(small_world / "train/data.jsonl"))[:4]
    own = {"rejected": "seventeen purple", "kind": "correct_over_incorrect", "confidence": 0.5}
    rows = [
        {name: q[name] for name in ("id", "images", "question")}
        | {"chosen": q["answers"][0], "type": 1, **own}
        for q in questions
    ]
    write_jsonl(tmp_path / "run/preferences.jsonl", rows, small_world / "train")
    return tmp_path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a program in the test's folder; what it registers goes with the test."""
    before = [(table, dict(table)) for table in (PAIR_LOSSES, REWARDS)]

    def program(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(words[0], run_name="__main__")
        assert left.value.code == 0

    yield program
    for table, names in before:
        table.clear()
        table.update(names)


def example(page, name, folder):
    """Writes a program of the documentation into a folder; returns it, and its command's words."""
    pattern = rf"```python\n(.*?)```\n\n```bash\npython {name} ([^\n]+)\n```"
    program, command = re.search(pattern, (ROOT / page).read_text(), re.DOTALL).groups()
    (folder / name).write_text(program)
    return program, command


def test_the_example_of_the_documentation(pairs, micro, run):
    program, command = example("docs/architecture.md", "my_loss.py", pairs)
    assert len([line for line in program.splitlines() if line]) <= 10
    options = ("--model", micro.path, "--batch-size", 4, "--epochs", 1)
    options += ("--pair-weighting", "uniform", "--nll-coef", 0)
    run("my_loss.py", *command.split(), *options)
    (row,) = metrics_of(pairs / "run/simpo")
    assert row["loss"] == row["dpo"]
    # Convex in the margin: the mean loss is no less than the loss at the mean margin, and close to
    # it where margins are alike.
    margin = 2 * (row["logprob_chosen"] - row["logprob_rejected"])
    assert 0 <= row["dpo"] - np.logaddexp(0, 0.5 - margin) < 0.5
    assert (pairs / "run/simpo/model/model.safetensors").exists()


@pytest.mark.slow
def test_the_reward_of_the_documentation(questions, micro, tmp_path, run):
    _, command = example("docs/on-policy.md", "my_reward.py", tmp_path)
    words = command.replace("data/train run/extrinsic.jsonl", str(questions)).split()
    options = ("--model", micro.path, "--batch-size", 12, "--epochs", 1)
    options += ("--n", 4, "--max-new-tokens", 4)
    run("my_reward.py", *words, *options)
    (row,) = metrics_of(tmp_path / "run/brief")
    # The random model's answers are all wrong, and of at least one word.
    assert row["accuracy"] == row["refusal_rate"] == 0
    assert -1 - 0.02 * 4 <= row["reward"] < -1
    assert (tmp_path / "run/brief/model/model.safetensors").exists()


@pytest.mark.parametrize(
    ("table", "register"),
    [(PAIR_LOSSES, register_pair_loss), (PAIR_WEIGHTINGS, register_pair_weighting)],
    ids=["loss", "weighting"],
)
def test_a_name_is_given_once(table, register):
    before = dict(table)

    def mine():
        """Registered, and never called."""

    with pytest.raises(ValueError, match="is registered already"):
        register(next(iter(table)))(mine)
    assert table == before
