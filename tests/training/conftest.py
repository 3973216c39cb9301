import pytest
from training_data import instructions, preferences, write_jsonl

from inbol_jax.artifacts import read_jsonl
from inbol_jax.training.rl import REWARDS, register_reward


@pytest.fixture(scope="module")
def data(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "instructions.jsonl", instructions(small_world), small_world / "train")
    write_jsonl(folder / "preferences.jsonl", preferences(small_world), small_world / "train")
    return folder


@pytest.fixture(scope="session")
def questions(small_world, tmp_path_factory):
    """Eight questions with answers and four of Type 3, as a dataset for `inbol rl`."""
    rows = list(read_jsonl(small_world / "test/data.jsonl"))
    answerable = [row for row in rows if row["answerable"]]
    type3 = [row for row in rows if row["answerable"] is False]
    folder = tmp_path_factory.mktemp("questions")
    return write_jsonl(folder / "questions.jsonl", answerable[:8] + type3[:4], small_world / "test")


@pytest.fixture(scope="session")
def short():
    """The name of a reward that tells apart also what a random model says: short is good."""
    register_reward("short")(lambda example, text: -len(text) / 10)
    yield "short"
    del REWARDS["short"]
