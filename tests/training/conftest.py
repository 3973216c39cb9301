import pytest
from training_data import instructions, preferences, write_jsonl


@pytest.fixture(scope="module")
def data(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "instructions.jsonl", instructions(small_world), small_world / "train")
    write_jsonl(folder / "preferences.jsonl", preferences(small_world), small_world / "train")
    return folder
