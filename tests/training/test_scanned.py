"""Runs whose layers are stacked and scanned end like those whose layers are apart."""

import pytest
from training_data import LORA, assert_same_runs, command_line, dpo, metrics_of, run_sft
from virtual_devices import run_on_devices

from inbol_jax.errors import InbolError
from inbol_jax.training.config import RlConfig
from inbol_jax.training.rl import rl

OPTIONS = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3}


def test_idk_it_of_all_weights(data, qwen2_5_vl, tmp_path):
    """Two layers. With decay, of which norms have none."""
    options = OPTIONS | {"weight_decay": 0.1}
    run_sft(data, qwen2_5_vl.path, tmp_path / "apart", **options)
    run_sft(data, qwen2_5_vl.path, tmp_path / "scanned", scan_layers=True, **options)
    assert metrics_of(tmp_path / "apart")[-1]["step"] == 6
    assert_same_runs(tmp_path / "apart", tmp_path / "scanned")
    with pytest.raises(InbolError, match="made with --scan-layers"):
        run_sft(data, qwen2_5_vl.path, tmp_path / "scanned", **options)


def test_ca_dpo_of_adapters_on_a_mesh(data, qwen2_5_vl, tmp_path):
    """The adapters are written as PEFT reads them; the reference's pairs are the same."""
    adapter = run_sft(data, qwen2_5_vl.path, tmp_path / "adapter", **LORA)
    dpo(data, adapter, tmp_path / "apart", **OPTIONS)
    words = {"data": data / "preferences.jsonl", "model": adapter, "out": tmp_path / "scanned"}
    words = command_line("dpo", **words, mesh=(2, 2, 2), **OPTIONS)
    program = "import sys; from inbol_jax.cli import main; assert main(sys.argv[1:]) == 0"
    run_on_devices(program, *words, "--scan-layers", timeout=600)
    assert_same_runs(tmp_path / "apart", tmp_path / "scanned")


def test_on_policy_refusal(questions, qwen2_5_vl, tmp_path):
    """Responses are sampled by the layers apart."""
    options = {"data": (questions,), "model": qwen2_5_vl.path, "n": 4, "max_new_tokens": 6}
    for name, scanned in (("apart", False), ("scanned", True)):
        own = OPTIONS | options | {"out": tmp_path / name, "scan_layers": scanned}
        rl(RlConfig.from_options(**own))
    assert_same_runs(tmp_path / "apart", tmp_path / "scanned")


def test_layers_that_are_not_alike(data, gemma3, tmp_path):
    with pytest.raises(InbolError, match="--scan-layers: the model's layers are not alike"):
        run_sft(data, gemma3.path, tmp_path, scan_layers=True)
