"""Tokens per second, and FLOPs as the compiler counts them."""

import dataclasses
import functools
from pathlib import Path

import jax
import pytest
from flax.traverse_util import flatten_dict
from training_data import metrics_of, random_batch, run_sft

from inbol_jax.models import LoraConfig
from inbol_jax.models.config import load_config
from inbol_jax.models.families import make_model
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.lora import init_lora
from inbol_jax.models.packing import collate
from inbol_jax.training.ca_dpo import ca_dpo_objective
from inbol_jax.training.config import FROZEN, OptimizerConfig, PairLossConfig
from inbol_jax.training.optimizer import make_optimizer
from inbol_jax.training.step import init_state, make_train_step
from inbol_jax.training.throughput import PEAK_FLOPS, Meter, TrainingFlops, training_flops
from inbol_jax.training.variables import split_variables

SHAPES = Path(__file__).parents[2] / "tpu/shapes"


def test_rates_are_in_the_log(data, micro, tmp_path, monkeypatch):
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    run_sft(data, micro.path, tmp_path, batch_size=4, epochs=4, save_steps=8)
    rows = metrics_of(tmp_path, rates=True)
    assert [row["step"] for row in rows] == [8, 10, 16]
    for row in rows:
        assert row["tokens_per_second"] > 0
        assert 0 < row["mfu"] < 1


def test_a_meter_counts_tokens_and_operations(monkeypatch):
    clock = iter([0.0, 10.0, 12.0, 12.0, 13.0, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    meter = Meter(TrainingFlops(per_token=100.0, per_pair=2.0, per_row=50.0), peak=1e4)
    meter.start()
    metrics = {"tokens": (30.0, 3.0)}  # three rows of ten tokens
    rates = meter.read([metrics, metrics])
    assert rates["tokens_per_second"] == 30.0
    assert rates["mfu"] == pytest.approx((100 * 60 + 6 * (2 * 10 * 11 / 2) + 50 * 6) / 2 / 1e4)
    assert meter.read([]) == {}


def adapter_shapes(params, lora):
    return jax.eval_shape(lambda: init_lora(params, lora, jax.random.key(0)))


@pytest.mark.parametrize(
    "lora",
    [None, LoraConfig(rank=3, alpha=6.0, trainable=("multi_modal_projector",))],
    ids=["whole", "adapters"],
)
def test_work_is_what_the_compiler_counts(micro, lora):
    """Operations of the compiled step, which has the same products; elementwise work is small
    beside them only in larger models.
    """
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 128, "vocab_size": 2048}
    text = dataclasses.replace(micro.config.text, **sizes)
    config = dataclasses.replace(micro.config, text=text)
    variables = {"params": param_shapes(config)}
    if lora:
        variables["lora"] = adapter_shapes(variables["params"], lora)
    trainable, frozen = split_variables(variables, FROZEN if lora is None else (), lora)
    optimizer = make_optimizer(OptimizerConfig(optimizer="sgd", learning_rate=1e-3), 5)
    state = jax.eval_shape(lambda x: init_state(x, optimizer), trainable)
    batch = collate(random_batch(config, 4), 4)
    batch["segments"][:] = 0  # no padding: the program computes it as well
    step = make_train_step(ca_dpo_objective(Llava(config, lora=lora), PairLossConfig()), optimizer)
    compiled = jax.jit(step).lower(state, frozen, None, batch).compile()
    rows, tokens = batch["segments"].shape
    work = functools.partial(
        training_flops, config, trainable, frozen, targets=batch["targets"].shape[1]
    )
    counted = work().total(rows, rows * tokens)
    assert counted == pytest.approx(compiled.cost_analysis()["flops"], rel=0.15)
    online = work(forwards=1)
    assert 1.2 < online.total(rows, rows * tokens) / counted < 1.6


def test_work_of_images_at_native_resolution(qwen3_vl):
    """All patches of an image see each other, however many there are."""
    config = qwen3_vl.config
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_layers": 2, "patch_size": 2}
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **sizes))
    params, tiles = param_shapes(config), 128
    batch = {
        name: jax.ShapeDtypeStruct((1, *shape), dtype)
        for name, (shape, dtype) in config.image_shapes(tiles).items()
    }
    encode = functools.partial(make_model(config).apply, method="encode_images")
    counted = jax.jit(encode).lower({"params": params}, batch).cost_analysis()["flops"]
    frozen = flatten_dict(params, sep="/")
    work = training_flops(config, {}, frozen, targets=0, tiles=tiles)
    assert work.per_row == pytest.approx(counted, rel=0.15)


def test_work_of_a_known_model():
    """LLaVA-1.5-7B: two operations a parameter and token forward, and as many again back through
    frozen weights.
    """
    config, lora = load_config(SHAPES / "llava-1.5-7b"), LoraConfig()
    params = param_shapes(config)
    adapters = adapter_shapes(params, lora)
    split = split_variables({"params": params, "lora": adapters}, (), lora)
    work = training_flops(config, *split, targets=64)
    layers = 6_738_415_616 - 2 * 32000 * 4096 - 65 * 4096
    added = sum(x.size for x in jax.tree.leaves(adapters))
    # The last layer's q, o and MLP are computed for the targets alone, and so is its attention.
    layers -= 2 * 4096**2 + 3 * 4096 * 11008
    added -= lora.rank * (2 * 2 * 4096 + 3 * (4096 + 11008))
    assert work.per_token == pytest.approx(4 * layers + 6 * added + 64 * 4 * 4096 * 3)
    assert work.per_pair == 31 * 4 * 4096 * 3
