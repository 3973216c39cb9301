"""The same training on every mesh and number of devices."""

import json
import shutil

import pytest
from training_data import LORA, assert_same_runs, command_line, dpo, metrics_of, run_sft
from virtual_devices import run_on_devices

from inbol_jax.sharding import make_mesh, round_batch
from inbol_jax.training.parallel import round_batch_size

# Command lines in one process. The reward tells apart also what a random model says.
PROGRAM = """
import json, sys
import jax
from inbol_jax.cli import main
from inbol_jax.training.rl import register_reward
assert jax.device_count() == int(sys.argv[1])
register_reward("short")(lambda example, text: -len(text) / 10)
for words in json.loads(sys.argv[2]):
    assert main(words) == 0, words
"""
SPECIAL = {
    "one": {},
    "pmap": {"parallel": "pmap"},
    "micro-batches of IDK-IT": {"gradient_accumulation_steps": 8, "mesh": (1, 1, 8)},
    "micro-batches": {"gradient_accumulation_steps": 2, "mesh": (1, 2, 4)},
}
OPTIONS = {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}


def spread(name):
    """Options that spread a run over devices, by a name of `SPECIAL` or three sizes."""
    return SPECIAL[name] if name in SPECIAL else {"mesh": tuple(map(int, name.split()))}


def on_devices(*commands, devices=8):
    """Runs command lines on so many virtual devices. XLA moves no whole parameter by force."""
    done = run_on_devices(PROGRAM, devices, json.dumps(commands), devices=devices, timeout=900)
    assert "Involuntary full rematerialization" not in done.stderr, done.stderr
    return done


def test_batches_that_every_device_gets_a_share_of():
    mesh = make_mesh()
    sizes = [round_batch_size(n, mesh, k) for n, k in ((32, 1), (30, 4), (1, 8), (17, 8))]
    assert sizes == [32, 32, 8, 24]


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_batch_sizes_are_multiples_of_the_devices(size):
    mesh = make_mesh()
    assert round_batch(size, mesh) % mesh.size == 0
    assert size <= round_batch(size, mesh) < size + mesh.size


FAMILIES = ("smolvlm", "llava_next", "llava_onevision", "internvl", "gemma3")
FAMILIES += ("qwen2_5_vl", "qwen3_vl")
SOME, OTHERS = ("2 2 2", "pmap"), ("8 1 1", "1 8 1", "1 2 4", "micro-batches of IDK-IT")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"),
    [("micro", SOME), ("micro", OTHERS), *((family, SOME) for family in FAMILIES)],
    ids=["some", "others", *FAMILIES],
)
def test_ten_steps_are_the_same_on_every_mesh(data, tmp_path, request, kind, names):
    """IDK-IT of the whole model, CA-DPO of adapters."""
    model = request.getfixturevalue(kind).path
    adapter = run_sft(data, model, tmp_path / "adapter", **LORA)
    commands = []
    for name in names:
        options = OPTIONS | spread(name)
        sft = {"data": data / "instructions.jsonl", "model": model, "out": tmp_path / name / "sft"}
        pairs = {"data": data / "preferences.jsonl", "model": adapter}
        commands.append(command_line("sft", **sft, **options))
        commands.append(command_line("dpo", **pairs, out=tmp_path / name / "dpo", **options))
    on_devices(*commands)
    run_sft(data, model, tmp_path / "one/sft", **OPTIONS)
    dpo(data, adapter, tmp_path / "one/dpo", **OPTIONS)
    for stage in ("sft", "dpo"):
        assert metrics_of(tmp_path / "one" / stage)[-1]["step"] == 10
        for name in names:
            assert_same_runs(tmp_path / "one" / stage, tmp_path / name / stage)


@pytest.mark.slow
def test_on_policy_refusal_is_the_same_on_every_mesh(questions, micro, tmp_path):
    """It draws the same responses, and trains to the same weights."""
    options = {"data": questions, "model": micro.path, "epochs": 3, "batch_size": 8, "n": 4}
    options |= {"max_new_tokens": 6, "learning_rate": 1e-3, "reward": "short"}

    def command(name):
        return command_line("rl", out=tmp_path / name, **options, **spread(name))

    names = ("8 1 1", "2 2 2", "pmap", "micro-batches")
    on_devices(*map(command, names))
    on_devices(command("one"), devices=1)
    assert metrics_of(tmp_path / "one")[-1]["step"] == 5
    for name in names:  # batches are padded to sizes that the devices share
        assert_same_runs(tmp_path / "one", tmp_path / name, without=("padding",))


def test_a_run_goes_on_on_another_mesh(data, micro, tmp_path):
    """Saved at (1, 1, 1) under `jit`, continued at (2, 2, 2) and by `pmap` on eight devices."""
    options = {"epochs": 3, "batch_size": 8, "save_steps": 4, "learning_rate": 1e-3}
    run_sft(data, micro.path, tmp_path / "one", **options)
    options |= {"data": data / "instructions.jsonl", "model": micro.path}
    commands = []
    for name in SOME:
        gone = shutil.ignore_patterns("6", "model")  # as if it had been stopped after step 4
        shutil.copytree(tmp_path / "one", tmp_path / name, ignore=gone)
        commands.append(command_line("sft", out=tmp_path / name, **options, **spread(name)))
    assert "damaged" not in on_devices(*commands).stdout
    one = metrics_of(tmp_path / "one")
    assert [row["step"] for row in one] == [4, 6]
    for name in SOME:
        assert metrics_of(tmp_path / name)[0] == one[0], "it was not trained again"
        assert_same_runs(tmp_path / "one", tmp_path / name)
