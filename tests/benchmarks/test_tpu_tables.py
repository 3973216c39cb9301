"""The tables of chips: what is tried, what goes on, what is printed; nothing is compiled here."""

import json
import math

import pytest
import tpu_tables
from costs import Time
from hlo import Collective
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
    config = tpu_tables.Config(tmp_path / "tables.json", only=("v5e", "qwen3-vl-4b", "LoRA"))
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
    out = capsys.readouterr().out
    assert "| sampling |  |  |  | more than 64 chips |" in out
    assert "| sampling |  |  |  | more than 8 chips |" in out
    assert len(json.loads(config.out.read_text())["v5e, llava-1.5-13b: sampling"]["tried"]) == 5


def test_what_a_chip_costs_as_chips_grow(monkeypatch, tmp_path, capsys):
    """Four slices of 256 exchange over their network; 4 and 16 chips have no groups of 16."""
    configs = []

    def plan(config):
        configs.append(config)
        chips = math.prod(config.mesh)
        if not config.lora_rank and chips < 64:
            return "full"
        between = [Collective("all-reduce", "bf16", (2**29,), slices=4)] * (config.slices > 1)
        ring = Collective("all-gather", "bf16", (2**30,), (0, 1))
        time = Time(1, 0, 0.5, 2.0 * len(between))
        exchanges = [ring, *between]
        return Plan({"trained": 8.0}, 16.0, chips * 1e12, exchanges, time, chips, chips, 60.0)

    monkeypatch.setattr(tpu_tables, "plan_of", plan)
    tpu_tables.main(tpu_tables.Config(tmp_path / "t.json", only=("growth",)))
    meshes = [config.mesh for config in configs if config.lora_rank]
    assert meshes[:5] == [(1, 4, 1), (1, 16, 1), (1, 64, 1), (1, 256, 1), (4, 256, 1)]
    assert meshes[5:] == [(4, 16, 1), (16, 16, 1), (64, 16, 1)]
    assert {config.batch_size // math.prod(config.mesh) for config in configs} == {4}
    assert [config.slices for config in configs if config.lora_rank] == [1, 1, 1, 1, 4, 1, 1, 4]
    lines = capsys.readouterr().out.splitlines()
    assert "| whole: a slice | 4 | does not fit | | | | | | |" in lines
    row = "| LoRA 128: a slice | 1,024 | 8.0 | 1.0 | 1.00 | 1.50 | 1.00 s | 2.00 s | 3,600 |"
    assert row in lines
