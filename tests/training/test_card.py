"""The card of a trained model says what loads it."""

import re

import pytest
import yaml

from inbol_jax.cli import main
from inbol_jax.models.loading import load_pretrained


@pytest.mark.filterwarnings("ignore")  # of transformers and peft, at import and at loading
@pytest.mark.parametrize("rank", [0, 2])
def test_a_trained_model_is_loaded_as_its_card_says(rank, data, micro, tmp_path, monkeypatch):
    monkeypatch.chdir(micro.path.parent.parent)
    base = micro.path.relative_to(micro.path.parent.parent)
    options = ["--model", base, "--out", tmp_path, "--max-steps", 1, "--lora-rank", rank]
    assert main(["sft", "--data", str(data / "instructions.jsonl"), *map(str, options)]) == 0
    folder = tmp_path / "model"
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == ("peft" if rank else "transformers")
    assert ("`--lora-rank` | `2`" in card) == bool(rank)
    assert "IDK-IT (1 steps)" in card
    assert str(tmp_path) not in card
    assert ("--max-lora-rank 16" in card) == bool(rank)
    assert ('base = "path/to/' in card) == bool(rank), "no hub id, so it names no model there"
    ours, theirs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "inbol_jax.load(" in ours
    found = {}
    places = {"this/folder": str(folder), f"path/to/{base.name}": str(micro.path)}
    for place, folder_of_it in places.items():
        theirs = theirs.replace(place, folder_of_it)
    exec(theirs, found)
    count = sum(x.numel() for name, x in found["model"].named_parameters() if "lora" not in name)
    params = load_pretrained(folder).variables["params"]
    assert count == sum(x.size for x in _leaves(params))


def test_a_card_that_was_edited_stays_and_shows_options_as_one_types_them(data, micro, tmp_path):
    options = ["--model", micro.path, "--out", tmp_path, "--max-steps", 1, "--lora-rank", 2]
    words = ["sft", "--data", str(data / "instructions.jsonl"), *map(str, options)]
    words += ["--lora-targets", "q_proj|v_proj", "o_proj"]
    assert main(words) == 0
    card = tmp_path / "model/README.md"
    assert r"| `--lora-targets` | `q_proj\|v_proj o_proj` |" in card.read_text()
    card.write_text("mine")
    assert main(words) == 0
    assert card.read_text() == "mine"


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)
