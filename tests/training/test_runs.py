"""What a run does besides its updates: evaluation, rates, trackers; and the two kinds of reference."""

import dataclasses
import json
import sys
import tempfile
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stage_data import metrics_of, random_batch, weights_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from inbol_jax.errors import InbolError
from inbol_jax.losses import LOSSES
from inbol_jax.models import LoraConfig
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.lora import init_lora
from inbol_jax.models.packing import stack
from inbol_jax.training import loop
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo
from inbol_jax.training.sft import SftConfig, idk_it
from inbol_jax.training.stage import FROZEN
from inbol_jax.training.state import init_state, make_optimizer, split_variables
from inbol_jax.training.step import (
    REFERENCE,
    ca_dpo_objective,
    make_train_step,
    pair_logprobs,
    target_logprobs,
)
from inbol_jax.training.throughput import PEAK_FLOPS, Meter, Work, training_work


def sft(data, model, out, **options):
    return idk_it(SftConfig(data=data / "instructions.jsonl", out=out, model=model, **options))


def dpo(data, model, out, **options):
    return ca_dpo(DpoConfig(data=data / "preferences.jsonl", out=out, model=model, **options))


# --- evaluation while training


def test_evaluation_changes_nothing_but_the_log(data, micro, tmp_path):
    """At the same steps whatever the batches are; at the end the evaluation of the training data is that of the trained model."""
    options = {"batch_size": 6, "epochs": 4, "accumulate": 2, "learning_rate": 1e-3}
    plain = sft(data, micro.path, tmp_path / "plain", **options)
    watched = sft(
        data,
        micro.path,
        tmp_path / "watched",
        eval_data=data / "instructions.jsonl",
        eval_every=4,
        **options,
    )
    for key, x in weights_of(plain).items():
        np.testing.assert_array_equal(weights_of(watched)[key], x)
    rows = metrics_of(tmp_path / "watched")
    assert [row["step"] for row in rows if "eval/loss" in row] == [4, 8, 11]
    assert not any("eval/loss" in row for row in metrics_of(tmp_path / "plain"))
    again = tmp_path / "again"
    sft(
        data,
        watched,
        again,
        eval_data=data / "instructions.jsonl",
        learning_rate=1e-30,
        batch_size=16,
    )
    assert metrics_of(again)[-1]["loss"] == pytest.approx(rows[-1]["eval/loss"], rel=1e-5)
    assert metrics_of(again)[-1]["eval/loss"] == pytest.approx(rows[-1]["eval/loss"], rel=1e-5)


def test_evaluation_of_pairs_has_a_reference_of_its_own(data, micro, tmp_path):
    lines = (data / "preferences.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[:5]) + "\n")
    header = (data / "preferences.jsonl.meta.json").read_text()
    (data / "some.jsonl").write_text("\n".join(lines[:5]) + "\n")
    (data / "some.jsonl.meta.json").write_text(header)
    dpo(data, micro.path, tmp_path, eval_data=data / "some.jsonl", batch_size=16)
    assert np.load(tmp_path / "eval_reference.npy").shape == (5, 2)
    np.testing.assert_allclose(
        np.load(tmp_path / "eval_reference.npy"), np.load(tmp_path / "reference.npy")[:5], atol=1e-4
    )
    assert {"eval/loss", "eval/reward_margin", "eval/reward_accuracy"} <= metrics_of(tmp_path)[
        -1
    ].keys()


def test_options_of_an_evaluation_without_one(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--eval-every 5 does nothing without --eval-data"):
        sft(data, micro.path, tmp_path, eval_every=5)


def test_missing_images_are_found_before_training(data, micro, tmp_path):
    with pytest.raises(
        InbolError,
        match=r"instructions.jsonl: 16 of its images are missing, the first is .*; name their folder by --images",
    ):
        sft(data, micro.path, tmp_path, images=tmp_path)


# --- rates


def test_rates_are_in_the_log(data, micro, tmp_path, monkeypatch):
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    sft(data, micro.path, tmp_path, batch_size=4, epochs=4, checkpoint_every=8)
    rows = metrics_of(tmp_path, rates=True)
    assert [row["step"] for row in rows] == [8, 10, 16]
    for row in rows:
        assert row["tokens_per_second"] > 0
        assert 0 < row["mfu"] < 1


def test_a_meter_counts_tokens_and_operations(monkeypatch):
    clock = iter([0.0, 10.0, 12.0, 12.0, 13.0, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    meter = Meter(Work(token=100.0, pair=2.0, row=50.0), peak=1e4)
    meter.start()
    metrics = {"tokens": (30.0, 3.0)}  # three rows of ten tokens
    rates = meter.read([metrics, metrics])
    assert rates["tokens_per_second"] == 30.0
    assert rates["mfu"] == pytest.approx((100 * 60 + 6 * (2 * 10 * 11 / 2) + 50 * 6) / 2 / 1e4)
    assert meter.read([]) == {}


@pytest.mark.parametrize(
    "lora",
    [None, LoraConfig(rank=3, alpha=6.0, trainable=("multi_modal_projector",))],
    ids=["whole", "adapters"],
)
def test_work_is_what_the_compiler_counts(micro, lora):
    """Operations of the compiled step, which has the same products; elementwise work is small beside them only in larger models."""
    config = dataclasses.replace(
        micro.config,
        text=dataclasses.replace(
            micro.config.text, hidden_size=256, intermediate_size=512, head_dim=128, vocab_size=2048
        ),
    )
    model = Llava(config, lora=lora)
    params = param_shapes(config)
    adapters = (
        {"lora": jax.eval_shape(lambda: init_lora(params, lora, jax.random.key(0)))} if lora else {}
    )
    trainable, frozen = split_variables(
        {"params": params, **adapters}, FROZEN if lora is None else (), lora
    )
    optimizer = make_optimizer(1e-3, 5, name="sgd")
    state = jax.eval_shape(
        lambda: init_state({k: jnp.zeros(x.shape) for k, x in trainable.items()}, optimizer)
    )
    batch = stack(random_batch(config, 4), 4)
    batch["segments"] = np.zeros_like(
        batch["segments"]
    )  # no padding: the program computes it as well
    objective = ca_dpo_objective(model, beta=0.1, scheme="linear", anchor=1.0)
    compiled = jax.jit(make_train_step(objective, optimizer)).lower(state, frozen, batch).compile()
    rows, tokens = batch["segments"].shape
    work = training_work(config, trainable, frozen, targets=batch["targets"].shape[1])
    counted = work.rows(rows, rows * tokens)
    assert counted == pytest.approx(compiled.cost_analysis()["flops"], rel=0.15)
    online = training_work(config, trainable, frozen, targets=batch["targets"].shape[1], forwards=1)
    assert 1.2 < online.rows(rows, rows * tokens) / counted < 1.6


def test_work_of_a_known_model():
    """LLaVA-1.5-7B: two operations a parameter and token forward, and as many again back through frozen weights."""
    text = {
        "model_type": "llama",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32064,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "patch_size": 14,
    }
    vision |= {
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "projection_dim": 768,
        "vocab_size": 32000,
    }
    with tempfile.TemporaryDirectory() as folder:
        whole = {
            "model_type": "llava",
            "text_config": text,
            "vision_config": vision,
            "image_token_index": 32000,
        }
        (Path(folder) / "config.json").write_text(json.dumps(whole))
        config = load_config(Path(folder))
    lora = LoraConfig()
    params = param_shapes(config)
    adapters = jax.eval_shape(lambda: init_lora(params, lora, jax.random.key(0)))
    work = training_work(
        config, *split_variables({"params": params, "lora": adapters}, (), lora), targets=64
    )
    layers = 6_738_415_616 - 2 * 32000 * 4096 - 65 * 4096
    added = sum(x.size for x in jax.tree.leaves(adapters))
    assert work.token == pytest.approx(4 * layers + 6 * added)
    assert work.pair == 32 * 4 * 4096 * 3


# --- trackers


def test_tensorboard(data, micro, tmp_path):
    sft(
        data,
        micro.path,
        tmp_path,
        track=("tensorboard",),
        batch_size=4,
        epochs=3,
        eval_data=data / "instructions.jsonl",
        eval_every=6,
    )
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    rows = metrics_of(tmp_path)
    for name in ("loss", "eval/loss", "gradient_norm"):
        found = {e.step: e.value for e in events.Scalars(name)}
        assert found == pytest.approx({row["step"]: row[name] for row in rows if name in row})


def test_tensorboard_shows_a_run_that_went_on_once(data, micro, tmp_path, monkeypatch):
    """Steps after the checkpoint are logged by both processes."""
    options = {"track": ("tensorboard",), "batch_size": 4, "epochs": 12, "checkpoint_every": 16}
    with monkeypatch.context() as patch:
        calls = []
        means = loop._means

        def stop(metrics):
            calls.append(metrics)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return means(metrics)

        patch.setattr(loop, "_means", stop)
        with pytest.raises(KeyboardInterrupt):
            sft(data, micro.path, tmp_path, **options)
    sft(data, micro.path, tmp_path, **options)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [10, 16, 20, 30, 32, 40, 48]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_that_are_not_installed_here(data, micro, tmp_path, monkeypatch, name):
    """A stand-in with the functions that are called: what reaches it, and that the run is closed also when training fails."""
    calls = []
    log = lambda metrics, step: calls.append((step, metrics))
    run = types.SimpleNamespace(log=log, finish=lambda: calls.append("finished"))
    stand_in = types.ModuleType(name)
    stand_in.init = lambda **options: calls.append(options) or run
    stand_in.log, stand_in.finish = run.log, run.finish
    monkeypatch.setitem(sys.modules, name, stand_in)
    sft(data, micro.path, tmp_path, track=(name,), batch_size=4, epochs=3)
    options, *logged, end = calls
    assert (options["project"], options["resume"], options["config"]["batch_size"]) == (
        "inbol_jax",
        "allow",
        4,
    )
    assert [step for step, _ in logged] == [row["step"] for row in metrics_of(tmp_path)]
    assert logged[-1][1]["loss"] == metrics_of(tmp_path)[-1]["loss"]
    assert end == "finished"
    assert options["config"]["out"] == str(tmp_path)
    calls.clear()
    sft(data, micro.path, tmp_path / "beside", track=(name,), batch_size=4, epochs=3)
    key = "id" if name == "wandb" else "name"
    assert calls[0][key] != options[key], "the same settings in another folder are another run"

    def refuse(**options):
        raise RuntimeError("log in first\nlong story")

    stand_in.init = refuse
    with pytest.raises(InbolError, match=rf"--track {name}: it does not start \(log in first\)"):
        sft(data, micro.path, tmp_path / "refused", track=(name,))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InbolError, match=f"--track {name}: it is not installed"):
        sft(data, micro.path, tmp_path / "without", track=(name,))


def test_a_tracker_that_does_not_exist(data, micro, tmp_path):
    with pytest.raises(
        InbolError, match="--track 'visdom': choose among tensorboard, wandb, trackio"
    ):
        sft(data, micro.path, tmp_path, track=("visdom",))


# --- the reference, cached and online


@pytest.mark.parametrize("start", ["whole", "new adapters", "its own adapters"])
def test_both_references_train_alike(data, micro, tmp_path, start):
    """A frozen copy of the start; adapters off; the adapters as they were. Dropout, where there is any, is not the reference's."""
    model, options = micro.path, {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}
    if start == "new adapters":
        options |= {"lora_rank": 2, "lora_trainable": ("multi_modal_projector",)}
    if start == "its own adapters":
        model = sft(
            data,
            micro.path,
            tmp_path / "sft",
            lora_rank=2,
            learning_rate=1e-2,
            epochs=4,
            batch_size=8,
        )
    for kind in ("cached", "online"):
        dpo(data, model, tmp_path / kind, reference=kind, **options)
    assert not (tmp_path / "online/reference.npy").exists()
    one, two = metrics_of(tmp_path / "cached"), metrics_of(tmp_path / "online")
    for row, other in zip(one, two, strict=True):
        numbers = [k for k in row if "reward_accuracy" not in k]
        assert {k: other[k] for k in numbers} == pytest.approx(
            {k: row[k] for k in numbers}, rel=1e-4, abs=1e-4
        )
    assert abs(one[-1]["reward_margin"]) > 1e-3


def test_a_reference_that_does_nothing(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--reference online does nothing with --reference-free"):
        dpo(data, micro.path, tmp_path, reference="online", reference_free=True)


REFERENCES = ("cached", "online", "adapters off", "none")
COMBINATIONS = [  # the everyday suite has each loss and each reference once
    pytest.param(
        loss,
        reference,
        marks=() if "sigmoid" in loss or reference == "cached" else pytest.mark.slow,
    )
    for loss in sorted(LOSSES)
    for reference in REFERENCES
]


@pytest.mark.parametrize(("loss", "reference"), COMBINATIONS)
def test_sixteen_pairs_are_learnt(micro, loss, reference):
    """With each loss and each kind of reference the loss falls under its start and the margin of every pair rises."""
    batch = {name: jnp.asarray(x) for name, x in stack(random_batch(micro.config, 16), 16).items()}
    lora = LoraConfig(rank=8, alpha=16.0) if reference == "adapters off" else None
    model, variables = Llava(micro.config, lora=lora), dict(micro.variables)
    if lora:
        variables["lora"] = init_lora(variables["params"], lora, jax.random.key(0))
    trainable, frozen = split_variables(variables, FROZEN if lora is None else (), lora)
    start = pair_logprobs(target_logprobs(model, variables, batch), batch, average=False)
    batch["ref_chosen"], batch["ref_rejected"] = (
        start if reference == "cached" else (jnp.zeros(16),) * 2
    )
    if reference == "online":
        frozen = {**frozen, **{f"{REFERENCE}{path}": x for path, x in trainable.items()}}
    options = {"label_smoothing": 0.1} if loss == "robust" else {}
    objective = ca_dpo_objective(
        model,
        beta=0.1,
        scheme="uniform",
        anchor=0.0,
        loss=loss,
        online_reference=reference in ("online", "adapters off"),
        **options,
    )
    steps = 40
    optimizer = optax.adam(1e-2)
    step = make_train_step(objective, optimizer)

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda state, _: step(state, frozen, batch), state, length=steps)

    _, metrics = run(init_state(trainable, optimizer))
    losses = np.asarray(metrics["loss"][0] / metrics["loss"][1])
    margins = np.asarray(metrics["reward_margin"][0] / metrics["reward_margin"][1])
    if reference != "none":
        assert margins[0] == pytest.approx(0, abs=1e-4)
    assert losses[-1] < losses[0]
    assert margins[-1] > margins[0] + 0.4  # IPO's goal is a margin of a half
    assert metrics["reward_accuracy"][0][-1] == 16
    assert not metrics["skipped"][0].any()
