"""The table of slices: what is tried, what goes on, what is printed; nothing is compiled here."""

import json

import pytest
import tpu_tables
from costs import Time
from plan import Plan


@pytest.fixture
def made(monkeypatch):
    """Plans that fit from sixteen chips on; those that were made."""
    configs = []

    def plan(config):
        configs.append(config)
        if config.batch_size == 4:
            return "full"
        size = 20.0 if config.batch_size == 8 else 12.0
        return Plan({"trained": size}, 16.0, 1e12, [], Time(1, 0, 0), 8.0, config.batch_size, 60.0)

    monkeypatch.setattr(tpu_tables, "plan_of", plan)
    return configs


def test_the_smallest_slice_is_found_once(made, tmp_path, capsys):
    config = tpu_tables.Config(tmp_path / "tables.json", only=("qwen3-vl-4b", "LoRA"))
    tpu_tables.main(config)
    assert len(made) == 3 * 3
    assert {plan.topology for plan in made} == {"v5e:2x2", "v5e:2x4", "v5e:4x4"}
    out = capsys.readouterr().out
    assert "\n| dpo, LoRA 128 |  | 4x4: 8.0/s, 1,800 |  |  |\n" in out
    assert "whole" not in out, "what was not compiled is left out"
    tpu_tables.main(config)
    assert len(made) == 3 * 3, "the file is gone on from"
    assert capsys.readouterr().out == out


def test_what_no_slice_holds_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tpu_tables, "plan_of", lambda config: "full")
    config = tpu_tables.Config(tmp_path / "t.json", only=("13b", "sampling"))
    tpu_tables.main(config)
    assert "| sampling |  |  |  | more than 64 chips |" in capsys.readouterr().out
    assert len(json.loads(config.out.read_text())["llava-1.5-13b: sampling"]["tried"]) == 5
