"""The planner's programs, lowered for the devices at hand: for those of a TPU slice libtpu compiles them, which takes minutes."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from inbol_jax.errors import InbolError
from inbol_jax.sharding import make_mesh


@pytest.fixture
def script(monkeypatch):
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY"):  # it sets them: for itself alone
        monkeypatch.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "1")
    spec = importlib.util.spec_from_file_location(
        "tpu_plan", Path(__file__).parents[2] / "tpu/plan.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tpu_plan", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stage", ["sft", "dpo", "sample"])
def test_stages_are_lowered_with_the_rows_that_they_would_have(script, micro, stage):
    """Training rounds a batch up to whole micro-batches."""
    config = script.Config(
        stage,
        model=str(micro.path),
        prompt=40,
        answer=4,
        batch_size=6,
        accumulate=4,
        lora_rank=2,
        n=3,
    )
    text = script.lower(config, micro.path, make_mesh()).as_text()
    side = micro.config.vision.image_size
    assert f"tensor<{6 if stage == 'sample' else 8}x1x3x{side}x{side}xf32>" in text


def test_sampling_keeps_to_the_devices_of_a_host(script):
    devices = [SimpleNamespace(process_index=i // 4) for i in range(16)]
    assert script.of_a_run("sample", devices) == devices[:4]
    assert script.of_a_run("sft", devices) == devices


@pytest.mark.parametrize(
    ("stage", "options"),
    [("sft", {"reference": "online"}), ("dpo", {"n": 3}), ("sample", {"accumulate": 2})],
)
def test_options_that_do_nothing(script, stage, options):
    with pytest.raises(InbolError, match=f"--{next(iter(options))} does nothing for {stage}"):
        script.main(script.Config(stage, **options))
