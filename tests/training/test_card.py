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
    ours, theirs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "inbol_jax.load(" in ours
    found = {}
    exec(theirs.replace("this/folder", str(folder)), found)
    count = sum(x.numel() for name, x in found["model"].named_parameters() if "lora" not in name)
    params = load_pretrained(folder).variables["params"]
    assert count == sum(x.size for x in _leaves(params))


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)
