"""The same training on every mesh and number of devices."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from training_data import LORA, STAGES, dpo, flat, metrics_of, run_sft, stage_config, weights_of
from virtual_devices import run_on_devices

from inbol_jax.models.loading import load_pretrained
from inbol_jax.sharding import make_mesh, round_batch
from inbol_jax.training.parallel import round_batch_size

ROOT = Path(__file__).parents[2]
ADAPTERS = "adapter_model.safetensors"


def test_batches_that_every_device_gets_a_share_of():
    assert [
        round_batch_size(n, make_mesh(), k) for n, k in ((32, 1), (30, 4), (1, 8), (17, 8))
    ] == [32, 32, 8, 24]


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_batch_sizes_are_multiples_of_the_devices(size):
    mesh = make_mesh()
    assert round_batch(size, mesh) % mesh.size == 0
    assert size <= round_batch(size, mesh) < size + mesh.size


ON_MESHES = """
import sys
from pathlib import Path
import jax
from inbol_jax.training.config import DpoConfig, SftConfig
from inbol_jax.training.sft import sft
from inbol_jax.training.ca_dpo import ca_dpo
assert jax.device_count() == 8
out, data, model, adapter = map(Path, sys.argv[1:5])
options = dict(epochs=5, batch_size=8, learning_rate=1e-3)
names = sys.argv[5:]
accumulation = {"gradient_accumulation_steps": 8, "mesh": (1, 1, 8)}
runs = {"pmap": {"parallel": "pmap"}, "gradient_accumulation_steps": accumulation}
runs = {name: runs.get(name, {}) for name in names}
instructions, pairs = data / "instructions.jsonl", data / "preferences.jsonl"
for name, special in runs.items():
    mesh = {"mesh": tuple(map(int, name.split()))} if name[0] in "128" else {}
    own, folder = options | mesh | special, out / name
    sft(SftConfig.from_options(data=instructions, out=folder / "sft", model=model, **own))
    ca_dpo(DpoConfig.from_options(data=pairs, out=folder / "dpo", model=adapter, **own))
"""


FAMILIES = ("smolvlm", "llava_next", "llava_onevision", "internvl", "gemma3")
FAMILIES += ("qwen2_5_vl", "qwen3_vl")
SOME, OTHERS = ("2 2 2", "pmap"), ("8 1 1", "1 8 1", "1 2 4", "gradient_accumulation_steps")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("micro", SOME),
        ("micro", OTHERS),
        *((family, SOME) for family in FAMILIES),
    ],
    ids=["some", "others", *FAMILIES],
)
def test_ten_steps_are_the_same_on_every_mesh(data, tmp_path, request, kind, names):
    """IDK-IT of the whole model, CA-DPO of adapters: losses and weights to float tolerance, and XLA
    moves no whole parameter by force.
    """
    model = request.getfixturevalue(kind).path
    adapter = run_sft(data, model, tmp_path / "adapter", **LORA)
    done = run_on_devices(ON_MESHES, tmp_path, data, model, adapter, *names, timeout=900)
    assert "Involuntary full rematerialization" not in done.stderr
    options = {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}
    for stage, folder in (
        ("sft", run_sft(data, model, tmp_path / "one/sft", **options)),
        ("dpo", dpo(data, adapter, tmp_path / "one/dpo", **options)),
    ):
        one, ours = (
            metrics_of(tmp_path / "one" / stage),
            flat(load_pretrained(folder, dtype=jnp.float32).variables),
        )
        assert one[-1]["step"] == 10
        for name in names:
            many = metrics_of(tmp_path / name / stage)
            for row, other in zip(one, many, strict=True):
                numbers = [
                    k for k in row if not k.startswith("reward_accuracy")
                ]  # at the first step it counts the signs of roundings
                assert {k: other[k] for k in numbers} == pytest.approx(
                    {k: row[k] for k in numbers}, rel=1e-4, abs=1e-4
                ), name
            theirs = flat(
                load_pretrained(tmp_path / name / stage / "model", dtype=jnp.float32).variables
            )
            for path, x in ours.items():
                np.testing.assert_allclose(
                    theirs[path], x, atol=3e-5, err_msg=f"{name} {stage} {path}"
                )


ON_POLICY = """
import sys
from pathlib import Path
import jax
from inbol_jax.training.rewards import register_reward
from inbol_jax.training.rl import rl
from inbol_jax.training.rl_config import RlConfig
assert jax.device_count() == int(sys.argv[1])
out, data, model = map(Path, sys.argv[2:5])
register_reward("short")(lambda example, text: -len(text) / 10)
options = dict(data=(data,), model=model, epochs=3, batch_size=8, n=4, max_new_tokens=6,
               learning_rate=1e-3, reward="short", num_iterations=2, kl_coef=0.1)
special = {"one": {}, "pmap": {"parallel": "pmap"}, "adapters": {"lora_rank": 2}}
special["micro-batches"] = {"gradient_accumulation_steps": 2, "mesh": (1, 2, 4)}
for name in sys.argv[5:]:
    mesh = {"mesh": tuple(map(int, name.split()))} if name[0] in "128" else {}
    rl(RlConfig.from_options(out=out / name, **options | mesh | special.get(name, {})))
"""


def on_policy(devices, *arguments):
    """Runs `ON_POLICY` on so many virtual devices."""
    done = run_on_devices(ON_POLICY, devices, *arguments, devices=devices, timeout=900)
    assert "Involuntary full rematerialization" not in done.stderr


@pytest.mark.slow
def test_on_policy_refusal_is_the_same_on_every_mesh(questions, micro, tmp_path):
    """It draws the same responses, and trains to the same weights to float tolerance."""
    names = ("8 1 1", "2 2 2", "pmap", "micro-batches")
    on_policy(8, tmp_path, questions, micro.path, *names)
    on_policy(1, tmp_path, questions, micro.path, "one")
    one, ours = metrics_of(tmp_path / "one"), weights_of(tmp_path / "one/model")
    assert one[-1]["step"] == 10
    for name in names:
        for row, other in zip(one, metrics_of(tmp_path / name), strict=True):
            # Batches are padded to sizes that the devices share.
            found, expected = ({k: v for k, v in r.items() if k != "padding"} for r in (other, row))
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), name
        for key, x in weights_of(tmp_path / name / "model").items():
            np.testing.assert_allclose(x, ours[key], atol=3e-5, err_msg=f"{name} {key}")


RESUME = """
import sys
from pathlib import Path
from inbol_jax.training.config import SftConfig
from inbol_jax.training.sft import sft
out, data, model = map(Path, sys.argv[1:])
options = dict(data=data, model=model, epochs=3, batch_size=8, save_steps=4, learning_rate=1e-3)
sft(SftConfig.from_options(out=out / "mesh", mesh=(2, 2, 2), **options))
sft(SftConfig.from_options(out=out / "pmap", parallel="pmap", **options))
"""


def test_a_run_goes_on_on_another_mesh(data, micro, tmp_path):
    """Saved at (1, 1, 1) under `jit`, continued at (2, 2, 2) and by `pmap` on eight devices."""
    options = {"epochs": 3, "batch_size": 8, "save_steps": 4, "learning_rate": 1e-3}
    ours = weights_of(run_sft(data, micro.path, tmp_path / "one", **options))
    for name in ("mesh", "pmap"):
        gone = shutil.ignore_patterns("6", "model")  # as if it had been stopped after step 4
        shutil.copytree(tmp_path / "one", tmp_path / name, ignore=gone)
    done = run_on_devices(RESUME, tmp_path, data / "instructions.jsonl", micro.path)
    assert "damaged" not in done.stdout
    one = metrics_of(tmp_path / "one")
    assert [row["step"] for row in one] == [4, 6]
    for name in ("mesh", "pmap"):
        many = metrics_of(tmp_path / name)
        assert many[0] == one[0], "it was not trained again"
        assert many[1] == pytest.approx(one[1], rel=1e-4, abs=1e-4)
        for key, x in weights_of(tmp_path / name / "model").items():
            np.testing.assert_allclose(x, ours[key], atol=2e-5, err_msg=f"{name} {key}")


MANY = """
import sys
from pathlib import Path
import jax
import numpy as np
assert jax.device_count() == 8
sys.path.insert(0, {here!r})
from inbol_jax.training.config import DpoConfig, SftConfig
from inbol_jax.training.sft import sft
from inbol_jax.training.ca_dpo import ca_dpo
from inbol_jax.sharding import make_mesh, replicate, shard_batch
rows = shard_batch({{"x": np.arange(16)}}, make_mesh())["x"]
found = [s.data.tolist() for s in rows.addressable_shards]
assert found == [[i, i + 1] for i in range(0, 16, 2)], "each device has rows of its own"
assert replicate(np.arange(3), make_mesh()).sharding.is_fully_replicated
out, data, model = map(Path, sys.argv[1:])
options = dict(model=model, epochs=3, batch_size=12, learning_rate=1e-3)
sft(SftConfig.from_options(data=data / "instructions.jsonl", out=out / "sft", **options))
ca_dpo(DpoConfig.from_options(data=data / "preferences.jsonl", out=out / "dpo", **options))
"""


@pytest.mark.slow
def test_eight_devices_train_as_one(data, micro, tmp_path):
    """Twelve rows an update on one device, rounded to sixteen on eight: so one device is given
    sixteen.
    """
    run_on_devices(MANY.format(here=str(ROOT)), tmp_path / "many", data, micro.path)
    options = {"epochs": 3, "batch_size": 16, "save_steps": 100}
    for stage, name in (("IDK-IT", "sft"), ("CA-DPO", "dpo")):
        STAGES[stage][0](stage_config(stage, data, micro, tmp_path / name, **options))
        many, one = metrics_of(tmp_path / "many" / name), metrics_of(tmp_path / name)
        for row in many + one:
            for key in [key for key in row if key.startswith("reward_accuracy")]:
                row.pop(
                    key
                )  # at the first step the rewards are zero but for rounding, whose sign it counts
        assert many[-1] == pytest.approx(one[-1], rel=1e-4, abs=1e-4)
        ours, theirs = (
            weights_of(tmp_path / name / "model"),
            weights_of(tmp_path / "many" / name / "model"),
        )
        for key, x in ours.items():
            np.testing.assert_allclose(theirs[key], x, atol=2e-5, err_msg=key)


QUANTIZED = """
import sys
from pathlib import Path
from inbol_jax.training.config import SftConfig
from inbol_jax.training.sft import sft
out, data, model = map(Path, sys.argv[1:])
options = dict(data=data, model=model, epochs=3, batch_size=8, lora_rank=4, quantize="nf4")
sft(SftConfig.from_options(out=out / "mesh", mesh=(2, 2, 2), **options))
sft(SftConfig.from_options(out=out / "pmap", parallel="pmap", **options))
"""


@pytest.mark.slow
def test_a_quantised_base_is_the_same_on_every_mesh(data, micro, tmp_path):
    """Values and scales are split as the kernel would be."""
    options = {"epochs": 3, "batch_size": 8, "lora_rank": 4, "quantize": "nf4"}
    ours = load_file(run_sft(data, micro.path, tmp_path / "one", **options) / ADAPTERS)
    done = run_on_devices(QUANTIZED, tmp_path, data / "instructions.jsonl", micro.path)
    assert "Involuntary full rematerialization" not in done.stderr
    for name in ("mesh", "pmap"):
        one, many = metrics_of(tmp_path / "one")[-1], metrics_of(tmp_path / name)[-1]
        assert many == pytest.approx(one, rel=1e-4, abs=1e-4)
        for key, x in load_file(tmp_path / name / "model" / ADAPTERS).items():
            np.testing.assert_allclose(x, ours[key], atol=3e-5, err_msg=f"{name} {key}")
