"""Adapters, accumulation, optimizers, updates that are not finite, the reference on disk, and the same training on every mesh."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from stage_data import mean_loss, metrics_of, random_batch, weights_of

from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import init_lora
from inbol_jax.models.packing import stack
from inbol_jax.sharding import make_mesh
from inbol_jax.training import ca_dpo as ca_dpo_stage
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo
from inbol_jax.training.input import in_order
from inbol_jax.training.loop import fit
from inbol_jax.training.parallel import Jit, round_rows
from inbol_jax.training.sft import SftConfig, idk_it
from inbol_jax.training.stage import FROZEN, _identity
from inbol_jax.training.state import init_state, make_optimizer, split_variables
from inbol_jax.training.step import ca_dpo_objective, make_train_step, sft_objective

LORA = {"lora_rank": 4, "learning_rate": 1e-2, "epochs": 4, "batch_size": 8}


def sft(data, model, out, **options):
    return idk_it(SftConfig(data=data / "instructions.jsonl", out=out, model=model, **options))


def dpo(data, model, out, **options):
    return ca_dpo(DpoConfig(data=data / "preferences.jsonl", out=out, model=model, **options))


def flat(variables):
    return flatten_dict(jax.device_get(dict(variables)), sep="/")


# --- adapters


def test_adapters_through_both_stages(data, micro, tmp_path):
    """IDK-IT makes them, CA-DPO goes on with them; the base stays as it is, and the reference is what CA-DPO starts from."""
    first = sft(
        data,
        micro.path,
        tmp_path / "sft",
        lora_trainable=("multi_modal_projector",),
        **LORA | {"epochs": 10},
    )
    assert (first / "adapter_config.json").exists()
    assert not (first / "model.safetensors").exists()
    trained = load_pretrained(first, dtype=jnp.float32)
    before, after = flat(micro.variables), flat(trained.variables)
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {path for path in before if path.startswith("params/multi_modal_projector/")}
    assert all(after[path].any() for path in after if path.endswith("/b")), (
        "every adapter has learnt"
    )
    assert metrics_of(tmp_path / "sft")[-1]["loss"] < metrics_of(tmp_path / "sft")[0]["loss"]

    second = dpo(
        data, first, tmp_path / "dpo", learning_rate=5e-3, epochs=4, batch_size=16, beta=0.5
    )
    rows = metrics_of(tmp_path / "dpo")
    assert rows[-1]["reward_margin"] > 0.2
    config = json.loads((second / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert Path(config["base_model_name_or_path"]) == micro.path.resolve()
    assert flat(load_pretrained(second, dtype=jnp.float32).variables).keys() == after.keys()


def test_the_margin_over_the_reference_starts_at_zero(data, micro, tmp_path):
    first = sft(data, micro.path, tmp_path / "sft", **LORA)
    dpo(data, first, tmp_path / "dpo", learning_rate=1e-12, batch_size=16)
    assert metrics_of(tmp_path / "dpo")[0]["reward_margin"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": 4}, "has adapters"),
        ({"keep": 0.1}, "--keep 0.1 mixes whole models"),
        ({"frozen": ("projector",)}, "--frozen projector: with adapters"),
    ],
)
def test_options_that_do_not_go_with_adapters(data, micro, tmp_path, options, words):
    first = sft(data, micro.path, tmp_path / "sft", **LORA | {"epochs": 1})
    with pytest.raises(InbolError, match=words):
        sft(data, first, tmp_path / "again", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": -1}, "--lora-rank -1"),
        ({"lora_rank": 2, "lora_targets": ("nowhere",)}, "'nowhere'"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "dropout"),
        ({"accumulate": 0}, "--accumulate 0"),
        ({"optimizer": "adamm"}, "--optimizer 'adamm'"),
        ({"optimizer": "chain"}, "--optimizer 'chain'"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"rates": (("nowhere", 1e-3),)}, "--rates 'nowhere'"),
        ({"rates": (("*", 1e-3),)}, "--rates '*'"),
        ({"rates": (("projector", 0.0),)}, "--rates projector 0.0"),
        ({"optimizer": "adafactor", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"optimizer": "lbfgs"}, "--optimizer lbfgs"),
        ({"optimizer": "sm3"}, "--optimizer sm3"),
        ({"lora_dropout": 0.5}, "--lora-dropout does nothing without --lora-rank"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "--lora-alpha 0.0"),
        ({"base": Path("somewhere")}, "--base somewhere does nothing"),
        ({"mesh": (2, 2, 2)}, "does not fit 1 devices"),
        ({"mesh": (-1, 0, 1)}, "does not fit 1 devices"),
        ({"max_skipped": -1}, "--max-skipped -1"),
    ],
)
def test_options_that_cannot_be_meant(data, micro, tmp_path, options, words):
    with pytest.raises(InbolError, match=re.escape(words)):
        sft(data, micro.path, tmp_path, **options)


# --- one step


def one_step(micro, batch, *, objective=None, rates=(), optimizer="sgd", **options):
    """Parameters after one update of plain gradient descent."""
    trainable, frozen = split_variables(micro.variables, FROZEN)
    optimizer = make_optimizer(0.1, 1, name=optimizer, rates=rates)
    step = jax.jit(make_train_step(objective or sft_objective(micro.model), optimizer, **options))
    return step(init_state(trainable, optimizer), frozen, batch)


@pytest.mark.parametrize(
    "objective",
    [sft_objective, lambda model: ca_dpo_objective(model, beta=0.3, scheme="linear", anchor=0.5)],
)
def test_accumulation_changes_nothing(micro, objective):
    """Eight micro-batches of one row and one of eight; the rows' numbers of tokens differ, and two rows are padding."""
    batch = stack(random_batch(micro.config, 6), 8)
    whole, whole_metrics = one_step(micro, batch, objective=objective(micro.model))
    for accumulate in (2, 8):
        parts, metrics = one_step(
            micro, batch, objective=objective(micro.model), accumulate=accumulate
        )
        for path, x in whole.params.items():
            np.testing.assert_allclose(parts.params[path], x, atol=1e-6, err_msg=path)
        for name, value in whole_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_batches_that_every_device_gets_a_share_of():
    assert [round_rows(n, make_mesh(), k) for n, k in ((32, 1), (30, 4), (1, 8), (17, 8))] == [
        32,
        32,
        8,
        24,
    ]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_left_out(micro, wrong):
    batch = stack(random_batch(micro.config, 2), 2)
    broken = batch | {"pixel_values": batch["pixel_values"] * np.float32(wrong)}
    state, metrics = one_step(micro, broken)
    trainable, _ = split_variables(micro.variables, FROZEN)
    assert all((state.params[path] == x).all() for path, x in trainable.items())
    assert (int(state.step), int(state.skipped)) == (1, 1)
    assert {name for name, (_, weight) in metrics.items() if weight} == {"skipped"}
    assert metrics["skipped"] == (1, 1)
    state, metrics = one_step(micro, batch)
    assert int(state.skipped) == 0
    assert metrics["skipped"] == (0, 1)


def test_training_stops_after_too_many_updates_in_a_row(micro, tmp_path):
    """Some in between are counted and passed over."""
    good = stack(random_batch(micro.config, 2), 2)
    bad = good | {"pixel_values": good["pixel_values"] * np.float32(np.nan)}
    trainable, frozen = split_variables(micro.variables, FROZEN)
    optimizer = make_optimizer(1e-3, 12)

    def run(out, wrong):
        trained = {path: jnp.array(x) for path, x in trainable.items()}  # the state is given away
        parallel = Jit(make_train_step(sft_objective(micro.model), optimizer), make_mesh())
        batches = lambda start: ((bad if i in wrong else good) for i in range(start, 12))
        options = {"identity": "x", "label": "toy", "log_every": 4, "max_skipped": 4}
        return fit(
            parallel, init_state(trained, optimizer), frozen, batches, 12, out=out, **options
        )

    run(tmp_path / "some", {1, 2, 4, 8, 9, 10, 11})
    rows = metrics_of(tmp_path / "some")
    assert [row["skipped"] for row in rows] == [0.5, 0.25, 1.0]
    assert "loss" not in rows[2]
    assert all(np.isfinite(v) for row in rows for v in row.values())
    with pytest.raises(InbolError, match="toy: 6 updates in a row were not finite at step 8"):
        run(tmp_path / "many", set(range(2, 12)))
    assert [row["skipped"] for row in metrics_of(tmp_path / "many")] == [0.5, 1.0], (
        "the log says how it came to that"
    )


# --- optimizers, rates, dropout, dtypes, remat


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd", "lamb", "rmsprop"])
def test_optimizers_of_optax_by_name(name):
    optimizer, params = (
        make_optimizer(0.05, 60, name=name),
        {"w": jnp.full((4, 4), 0.5), "v": jnp.ones(3)},
    )
    state = optimizer.init(params)
    for _ in range(60):
        gradients = jax.tree.map(lambda x: 2 * x, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert float(optax.tree.norm(params)) < 1.5


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)],
)
def test_schedules(schedule, middle, end):
    optimizer, params = make_optimizer(0.1, 100, name="sgd", schedule=schedule), {"w": jnp.zeros(1)}
    state, rates = optimizer.init(params), []
    for _ in range(100):
        updates, state = optimizer.update({"w": jnp.full(1, -0.5)}, state, params)
        rates.append(float(updates["w"][0]) / 0.5 / 0.1)
    assert rates[:11] == pytest.approx(np.arange(11) / 10, abs=1e-6)
    assert rates[55] == pytest.approx(middle, abs=0.02)
    assert rates[99] == pytest.approx(end, abs=0.02)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_run_of_one_update_has_the_peak(schedule):
    optimizer, params = make_optimizer(0.1, 1, name="sgd", schedule=schedule), {"w": jnp.zeros(1)}
    updates, _ = optimizer.update({"w": jnp.full(1, -0.5)}, optimizer.init(params), params)
    assert float(updates["w"][0]) == pytest.approx(0.05)


def test_a_share_of_the_base_in_bfloat16(data, micro, tmp_path):
    """Mixed in float32, saved as what it was; a base that is stored in another dtype is the same architecture."""
    low = tmp_path / "low"
    save_pretrained(load_pretrained(micro.path, dtype=jnp.bfloat16), low)
    options = {"learning_rate": 1e-2, "batch_size": 16}
    plain = weights_of(sft(data, low, tmp_path / "plain", **options))
    kept = weights_of(sft(data, low, tmp_path / "kept", keep=0.25, base=micro.path, **options))
    start, moved = weights_of(low), 0
    for key, x in kept.items():
        assert x.dtype == jnp.bfloat16
        expected = 0.75 * plain[key].astype(np.float32) + 0.25 * start[key].astype(np.float32)
        np.testing.assert_array_equal(
            x,
            np.where(plain[key] == start[key], plain[key], expected.astype(jnp.bfloat16)),
            err_msg=key,
        )
        moved += bool((plain[key] != start[key]).any())
    assert moved


def test_a_folder_that_cannot_take_the_model_is_refused_before_training(data, micro, tmp_path):
    sft(data, micro.path, tmp_path, batch_size=16)
    subprocess.run(["rm", "-r", str(tmp_path / "checkpoints")], check=True)
    with pytest.raises(InbolError, match="holds a whole model"):
        sft(data, micro.path, tmp_path, lora_rank=2)
    with pytest.raises(InbolError, match="is where the model was loaded from"):
        sft(data, tmp_path / "model", tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_rate_of_its_own(micro):
    batch = stack(random_batch(micro.config, 2), 2)
    trainable, _ = split_variables(micro.variables, FROZEN)
    plain, _ = one_step(micro, batch)
    scaled, _ = one_step(micro, batch, rates=(("projector", 0.02), ("linear_1", 7.0)))
    for path, x in trainable.items():
        factor = 0.2 if "projector" in path else 1.0
        np.testing.assert_allclose(
            scaled.params[path] - x, factor * (plain.params[path] - x), atol=1e-6, err_msg=path
        )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_drawn_anew_on_another_number_of_devices(micro, data, dropout, monkeypatch):
    """So the run is another one; without dropout it is the same."""
    loaded = dataclasses.replace(
        micro, model=Llava(micro.config, lora=LoraConfig(rank=2, alpha=4.0, dropout=dropout))
    )
    config = SftConfig(data=data / "instructions.jsonl", out=data, parallel="pmap")
    identities = set()
    for count in (1, 8):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        identities.add(_identity(loaded, config, "IDK-IT", 8, None))
    assert len(identities) == (2 if dropout else 1)


def test_dropout_has_a_key_a_step_and_a_micro_batch(micro):
    lora = LoraConfig(rank=2, alpha=4.0, dropout=0.5)
    adapters = jax.tree.map(
        lambda x: x + 0.1, init_lora(micro.variables["params"], lora, jax.random.key(0))
    )
    model = dataclasses.replace(
        micro,
        model=Llava(micro.config, jnp.float32, lora),
        variables={**micro.variables, "lora": adapters},
    )
    rows = random_batch(micro.config, 1)
    batch = stack(rows * 2, 2)
    trainable, frozen = split_variables(model.variables, (), lora)
    assert all(path.startswith("lora/") for path in trainable)
    optimizer = make_optimizer(0.0001, 3, name="sgd")
    state = init_state(trainable, optimizer)

    def loss(state, **options):
        return float(
            make_train_step(sft_objective(model.model), optimizer, **options)(state, frozen, batch)[
                1
            ]["loss"][0]
        )

    first = loss(state)
    assert loss(state) == first
    assert loss(state, seed=1) != first
    assert loss(state._replace(step=jnp.int32(1))) != first
    (still, _) = sft_objective(model.model)(model.variables, batch)["loss"]
    assert float(still) != first
    one, two = (
        float(
            sft_objective(model.model)(model.variables, stack(rows, 1), jax.random.key(i))["loss"][
                0
            ]
        )
        for i in (0, 1)
    )
    assert one != two


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_nothing_but_memory(micro, remat):
    batch = stack(random_batch(micro.config, 2), 2)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: mean_loss(sft_objective(model), {"params": p}, batch)[0]))

    plain, again = gradient(micro.model), gradient(micro.model.clone(remat=remat))
    params = micro.variables["params"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain(params), again(params)
    )
    assert "remat" in str(jax.make_jaxpr(again)(params))
    assert "remat" not in str(jax.make_jaxpr(plain)(params))


def test_masters_in_float32(data, micro, tmp_path):
    """Updates too small for bfloat16 add up in float32; without masters they are lost. What is saved is bfloat16 either way."""
    options = {
        "dtype": "bfloat16",
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 2e-5,
        "optimizer": "sgd",
        "schedule": "constant",
    }
    start = {key: x.astype(jnp.bfloat16) for key, x in weights_of(micro.path).items()}
    moved = {}
    for masters in (True, False):
        found = weights_of(
            sft(
                data,
                micro.path,
                tmp_path / str(masters),
                masters=masters,
                **options | {"optimizer": "adamw"},
            )
        )
        assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.bfloat16)}
        moved[masters] = np.mean(
            [
                np.mean(np.asarray(found[key] != start[key]))
                for key in start
                if "mlp.down_proj" in key
            ]
        )
    assert moved[True] > 2 * moved[False]


# --- the reference on disk


def test_the_reference_is_computed_once(data, micro, tmp_path, monkeypatch):
    out = tmp_path / "dpo"
    dpo(data, micro.path, out, batch_size=16)
    reference = np.load(out / "reference.npy")
    assert reference.shape == (16, 2)
    plain = weights_of(out / "model")
    for folder in ("checkpoints", "model"):
        subprocess.run(["rm", "-r", str(out / folder)], check=True)
    monkeypatch.setattr(
        "inbol_jax.training.ca_dpo.reference_logprobs",
        lambda *a, **b: pytest.fail("computed again"),
    )
    again = weights_of(dpo(data, micro.path, out, batch_size=16))
    for key, x in plain.items():
        np.testing.assert_array_equal(again[key], x)
    with pytest.raises(InbolError, match="reference of another model or other pairs"):
        dpo(data, micro.path, out, batch_size=16, length_normalized=True)
    (out / "reference.npy").write_bytes(b"broken")
    with pytest.raises(InbolError, match=r"reference\.npy: cannot be read"):
        dpo(data, micro.path, out, batch_size=16)
    monkeypatch.undo()
    (
        out / "reference.npy.meta.json"
    ).unlink()  # a run that was killed between the two: it is computed again
    dpo(data, micro.path, out, batch_size=16)
    np.testing.assert_array_equal(np.load(out / "reference.npy"), reference)


def test_the_reference_comes_in_batches_that_go_with_the_micro_batches(
    data, micro, tmp_path, monkeypatch
):
    sizes = []
    monkeypatch.setattr(
        ca_dpo_stage,
        "in_order",
        lambda rows, mesh, size: sizes.append(size) or in_order(rows, mesh, size),
    )
    dpo(data, micro.path, tmp_path, batch_size=16, accumulate=8)
    assert sizes == [8]


# --- every mesh

ON_MESHES = """
import sys
from pathlib import Path
import jax
from inbol_jax.training.sft import SftConfig, idk_it
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo
assert jax.device_count() == 8
out, data, model, adapter = map(Path, sys.argv[1:5])
options = dict(epochs=5, batch_size=8, learning_rate=1e-3)
names = sys.argv[5:]
runs = {"pmap": {"parallel": "pmap"}, "accumulate": {"accumulate": 8, "mesh": (1, 1, 8)}}
runs = {name: runs.get(name, {}) for name in names}
for name, special in runs.items():
    mesh = {"mesh": tuple(map(int, name.split()))} if name[0] in "128" else {}
    idk_it(SftConfig(data=data / "instructions.jsonl", out=out / name / "sft", model=model, **options | mesh | special))
    ca_dpo(DpoConfig(data=data / "preferences.jsonl", out=out / name / "dpo", model=adapter, **options | mesh | special))
"""


SOME, OTHERS = ("2 2 2", "pmap"), ("8 1 1", "1 8 1", "1 2 4", "accumulate")


@pytest.mark.parametrize(
    "names", [SOME, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"]
)
def test_ten_steps_are_the_same_on_every_mesh(data, micro, tmp_path, names):
    """IDK-IT of the whole model, CA-DPO of adapters: losses and weights to float tolerance, and XLA moves no whole parameter by force."""
    adapter = sft(data, micro.path, tmp_path / "adapter", **LORA)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-c",
        ON_MESHES,
        *map(str, (tmp_path, data, micro.path, adapter, *names)),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Involuntary full rematerialization" not in done.stderr
    options = {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}
    for stage, folder in (
        ("sft", sft(data, micro.path, tmp_path / "one/sft", **options)),
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
