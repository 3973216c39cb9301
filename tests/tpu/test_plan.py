"""The planner's programs, lowered for the devices at hand: for those of a TPU slice libtpu compiles
them, which takes minutes.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import plan
import pytest
from costs import Time, traffic
from hlo import Collective

from inbol_jax.errors import InbolError
from inbol_jax.models.families import load_config
from inbol_jax.sharding import make_mesh

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", ["sft", "dpo", "rl", "sample", "evaluate"])
def test_stages_are_lowered_with_the_rows_that_they_would_have(micro, stage):
    """Training rounds a batch up to whole micro-batches."""
    options = {"prompt": 40, "answer": 4, "batch_size": 6, "lora_rank": 2}
    options |= {"gradient_accumulation_steps": 4} if stage in ("sft", "dpo", "rl") else {}
    options |= {"n": 3} if stage in ("rl", "sample") else {}
    config = plan.Config(stage, model=str(micro.path), **options)
    text = plan.lower(config, micro.path, make_mesh()).as_text()
    if stage == "rl":
        assert "tensor<8x52xi32>" in text, "a prompt of 40 tokens, and three responses of 4"
    side = micro.config.vision.image_size
    rows = {"sample": 6, "evaluate": 24}.get(stage, 8)
    assert f"tensor<{rows}x1x3x{side}x{side}xui8>" in text


@pytest.mark.parametrize("stage", ["sft", "sample"])
def test_images_in_tiles(smolvlm, stage):
    options = {"model": str(smolvlm.path), "answer": 4, "batch_size": 8, "tiles": 5}
    config = plan.Config(stage, prompt=60, **options)
    text = plan.lower(config, smolvlm.path, make_mesh()).as_text()
    side = smolvlm.config.vision.image_size
    assert f"tensor<8x5x3x{side}x{side}xui8>" in text
    with pytest.raises(InbolError, match="--prompt 20: the 5 tiles of an image have 20 tokens"):
        plan.lower(plan.Config(stage, prompt=20, **options), smolvlm.path, make_mesh())


def lowered(name, **options):
    """The text of CA-DPO on a published model."""
    options |= {"lora_rank": 8, "remat": "full", "batch_size": 8}
    config = plan.Config("dpo", model=name, **options)
    return plan.lower(config, plan.SHAPES / name, make_mesh()).as_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["smolvlm-256m", "smolvlm2-500m", "smolvlm2-2.2b", "internvl3-2b", "internvl3.5-8b"]
)
def test_published_shapes_are_lowered(name):
    """An image of 4 x 4 tiles and the whole."""
    tokens = 17 * load_config(plan.SHAPES / name).num_image_tokens
    side = load_config(plan.SHAPES / name).vision.image_size
    text = lowered(name, prompt=tokens + 128, tiles=17)
    assert f"tensor<8x17x3x{side}x{side}xui8>" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-1.6-vicuna-7b", "llava-onevision-0.5b"])
def test_published_shapes_of_anyres_are_lowered(name):
    """An image of 2 x 2 tiles and the whole, by default."""
    text = lowered(name, prompt=4096)
    side = load_config(plan.SHAPES / name).vision.image_size
    assert f"tensor<8x5x3x{side}x{side}xui8>" in text
    assert "tensor<8x5x6xi32>" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b"])
def test_published_shapes_at_native_resolution_are_lowered(name):
    """An image of 640 x 480 pixels, by default."""
    text = lowered(name)
    tiles, dim = (391, 1176) if "2.5" in name else (300, 1536)
    assert f"tensor<8x{4 * tiles}x{dim}xf32>" in text
    assert f"tensor<8x{tiles}x3xi32>" in text


@pytest.mark.parametrize("stage", ["sft", "sample"])
def test_images_at_native_resolution(qwen3_vl, stage):
    options = {"prompt": 40, "answer": 4, "batch_size": 8, "tiles": 20}
    config = plan.Config(stage, model=str(qwen3_vl.path), **options)
    text = plan.lower(config, qwen3_vl.path, make_mesh()).as_text()
    assert "tensor<8x80x216xf32>" in text, "20 tokens of four patches"


def test_images_of_more_tokens_than_the_prompt(llava_next):
    config = plan.Config("sft", model=str(llava_next.path), prompt=24, batch_size=8)
    with pytest.raises(InbolError, match="--prompt 24: the 5 tiles of an image have 24 tokens"):
        plan.lower(config, llava_next.path, make_mesh())


def test_tiles_of_a_model_that_has_none(micro):
    config = plan.Config("sft", model=str(micro.path), tiles=2)
    with pytest.raises(InbolError, match="--tiles 2: checkpoint does not cut images"):
        plan.lower(config, micro.path, make_mesh())


@pytest.mark.parametrize(("topology", "one"), [("v5e:4x4", "v5e:2x2"), ("v4:4x2x2", "v4:2x2x1")])
def test_sampling_keeps_to_the_chips_of_a_host(monkeypatch, topology, one):
    """As a topology of their own: libtpu aborts on a part of a slice."""
    chips = [SimpleNamespace(process_index=i // 4, coords=(i % 2, i // 2, 0)) for i in range(16)]
    described = lambda platform, topology_name, **_: SimpleNamespace(devices=[topology_name])  # noqa: E731
    monkeypatch.setenv("TPU_LIBRARY_PATH", "a stand-in's")  # as if libtpu were installed
    monkeypatch.setattr(plan.topologies, "get_topology_desc", described)
    assert plan.program_devices("sample", topology, chips) == [one]
    assert plan.program_devices("sample", one, chips[:4]) == chips[:4]
    assert plan.program_devices("sft", topology, chips) == chips


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("sft", {"n": 3}),
        ("dpo", {"n": 3}),
        ("sample", {"gradient_accumulation_steps": 2}),
        ("sample", {"slices": 2}),
        ("evaluate", {"n": 3}),
    ],
)
def test_an_option_that_the_stage_does_not_use_is_refused(stage, options):
    option = next(iter(options)).replace("_", "-")
    with pytest.raises(InbolError, match=f"--{option} does nothing for {stage}"):
        plan.Config(stage, **options)


def test_a_mesh_that_cuts_through_heads_is_told(capsys):
    """SmolVLM-256M has 9 heads, of which 3 are of keys."""
    model = load_config(plan.SHAPES / "smolvlm-256m")
    for tensor in (1, 3):
        plan._check_heads(model, SimpleNamespace(shape={"tensor": tensor}))
    assert capsys.readouterr().out == ""
    plan._check_heads(model, SimpleNamespace(shape={"tensor": 2}))
    assert "tensor 2 cuts through heads" in (told := capsys.readouterr().out)
    assert "choose 1, 3," in told


def test_exchanges_are_summed_by_kind_and_axis():
    ring = Collective("collective-permute", "bf16", (2**28,), (0, 1), 31)
    gathers = [Collective("all-gather", "bf16", (2**29,), (0, 2))] * 2
    lines = traffic([ring, *gathers], {"data": 2, "fsdp": 2, "tensor": 2})
    assert lines == [
        "all-gather along fsdp: 2 per step, 1.00 GiB received per chip",
        "collective-permute along tensor: 31 per step, 15.50 GiB received per chip",
    ]


def test_a_plan_is_told_with_what_it_assumes():
    ring = Collective("all-gather", "bf16", (2**29,), (0, 1), 4)
    found = plan.Plan(
        {"trained": 1.5, "batch": 0.001, "activations and temporaries": 2.0},
        16.0,
        5e12,
        [ring],
        Time(0.5, 0.25, 2.0),
        8.0,
        4,
        90.0,
        scanned=True,
    )
    lines = plan.report(found, SimpleNamespace(shape={"data": 1, "fsdp": 4, "tensor": 1}))
    assert lines[0] == (
        "memory per device: 3.50 of 16 GiB (trained 1.50, activations and temporaries 2.00)"
    )
    assert lines[1].startswith("5.0 TFLOP per step")
    assert lines[2] == "all-gather along fsdp: 4 per step, 2.00 GiB received per chip"
    assert lines[3].startswith(
        "step: products 0.500 s, memory 0.250 s, exchanges 2.000 s; 8.0 samp"
    )
    assert lines[3].endswith("7,200 per chip-hour")
    assert "more of the mesh along data" in lines[4]
    assert lines[5].startswith("assumed, not measured")
    assert "fits; layers are scanned" in lines[6]
    assert not found._replace(room=3.0).fits


def test_what_cannot_be_compiled_for_gpus_is_told(monkeypatch):
    def missing(**options):
        raise ValueError("unknown platform cuda")

    monkeypatch.setattr(plan.topologies, "get_topology_desc", missing)
    with pytest.raises(InbolError, match=r'h100:8: unknown .*"jax\[cuda12\]" installed'):
        plan.topology_devices("h100:8")
    with pytest.raises(InbolError, match="--slices: the compiler knows one node"):
        plan.topology_devices("h100:8", slices=2)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(InbolError, match="pip install libtpu"):
        plan.topology_devices("v5e:2x2")


def test_shapes_of_known_models_lie_beside_it():
    assert load_config(plan.SHAPES / plan.Config("sft").model).text.num_layers == 32


def test_to_import_it_or_training_changes_no_environment():
    """The script looks for no TPU of this machine; who imports it, or a stage, may want one."""
    program = "import os, sys; before = dict(os.environ); sys.path.insert(0, 'tpu'); import plan; "
    program += "import inbol_jax.training.ca_dpo; print(before == dict(os.environ), "
    program += "*sorted({'Config', 'SHAPES', 'lower', 'make_mesh'} & set(vars(plan))))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    own = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", program], **own)
    assert done.stdout.split() == ["True", "Config", "SHAPES", "lower", "make_mesh"], done.stderr
