"""Options that cannot be meant are refused by name; defaults."""

import inspect
import re
from pathlib import Path

import pytest
from training_data import STAGES, dpo, run_sft, stage_config

from inbol_jax.commands import COMMANDS, load
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import RATES, DpoConfig, LoraOptions, OptimizerConfig, SftConfig
from inbol_jax.training.settings import make_schedule


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": -1}, "--lora-rank -1"),
        ({"lora_rank": 2, "lora_targets": ("nowhere",)}, "'nowhere'"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "dropout"),
        ({"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps 0"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"optimizer": "adafactor", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"lora_dropout": 0.5}, "--lora-dropout does nothing without --lora-rank"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "--lora-alpha 0.0"),
        ({"quantize": "nf4"}, "--quantize nf4 is for what stays as it is under adapters"),
        ({"mesh": (2, 2, 2)}, "does not fit 1 devices"),
        ({"mesh": (-1, 0, 1)}, "does not fit 1 devices"),
        ({"max_steps": 0}, "--max-steps 0: at least 1"),
        ({"logging_steps": 0}, "--logging-steps 0: at least 1"),
        ({"save_total_limit": 0}, "--save-total-limit 0"),
        ({"resume_anyway": ("--sead", "seed")}, "--resume-anyway sead: choose among batch_size, "),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(data, micro, tmp_path, options, words):
    with pytest.raises(InbolError, match=re.escape(words)):
        run_sft(data, micro.path, tmp_path, **options)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": -8}, "--batch-size -8"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"save_steps": 0}, "--save-steps 0"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0"),
        ({"frozen": ("nothing_like_it",)}, "'nothing_like_it'"),
        ({"data": Path("/nowhere/data.jsonl")}, "/nowhere/data.jsonl"),
        ({"model": Path("/nowhere")}, "/nowhere"),
        ({"images": Path("/nowhere/images")}, "/nowhere/images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_stages_name_an_option_that_cannot_be_meant(
    stage, data, micro, tmp_path, options, culprit
):
    with pytest.raises(InbolError) as caught:
        STAGES[stage][0](stage_config(stage, data, micro, tmp_path, **options))
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


def test_eval_steps_need_eval_data(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--eval-steps 5 does nothing without --eval-data"):
        run_sft(data, micro.path, tmp_path, eval_steps=5)


def test_an_unknown_tracker_is_named(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--report-to 'visdom': choose among tensorboard, wandb"):
        run_sft(data, micro.path, tmp_path, report_to=("visdom",))


def test_an_online_reference_does_not_go_with_none(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--reference online does nothing with --reference-free"):
        dpo(data, micro.path, tmp_path, reference="online", reference_free=True)


def test_flat_options_and_their_parts_are_the_same():
    config = DpoConfig.from_options(
        data=Path("d"), out=Path("o"), lora_rank=4, beta=0.5, remat="full"
    )
    assert config.lora == LoraOptions(lora_rank=4)
    assert (config.pair_loss.beta, config.runtime.remat) == (0.5, "full")
    assert DpoConfig.from_options(**config.flat()) == config
    with pytest.raises(TypeError, match="anchor"):
        DpoConfig.from_options(data=Path("d"), out=Path("o"), anchor=1.0)


@pytest.mark.parametrize("name", RATES)
def test_the_learning_rate_is_that_of_the_method_and_of_adapters(name, tmp_path):
    """New ones, and those that the model comes with; one that is given holds."""
    command = load(COMMANDS[name].config)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned/adapter_config.json").write_text("{}")
    data = (Path("d"),) if name == "rl" else Path("d")
    own = {"data": data, "out": tmp_path / "out"}
    for options, rate in (
        ({}, RATES[name].whole),
        ({"lora_rank": 4}, RATES[name].lora),
        ({"model": tmp_path / "tuned"}, RATES[name].lora),
        ({"learning_rate": 1e-5, "lora_rank": 4}, 1e-5),
    ):
        found = command.from_options(**own, **options)
        assert found.optimization.learning_rate == rate
    for rate in RATES[name]:  # the help names them
        number = f"{rate:.0e}".replace("e-0", "e-")
        assert number in inspect.getsource(OptimizerConfig)


@pytest.mark.parametrize(
    ("options", "examples", "expected", "warned"),
    [
        ({}, 6400, (1, 200), False),
        ({}, 10_000, (1, 313), False),
        ({}, 1280, (5, 200), False),
        ({}, 364, (10, 114), False),
        ({}, 100, (10, 32), True),
        ({"epochs": 1}, 364, (1, 12), True),
        ({"epochs": 3, "max_steps": 150}, 6400, (3, 150), False),
        ({"max_steps": 40}, 6400, (1, 40), True),
        ({"batch_size": 4}, 400, (2, 200), False),
    ],
)
def test_a_small_set_is_gone_through_again_and_few_steps_are_warned_about(
    options, examples, expected, warned, capsys
):
    config = SftConfig.from_options(data=Path("d"), out=Path("o"), **options)
    schedule = make_schedule(config, examples, make_mesh())
    assert (schedule.epochs, schedule.steps) == expected
    said = capsys.readouterr().out
    assert said.startswith(f"Warning: {expected[1]} optimizer steps of ") == warned
    three = make_schedule(config, examples, make_mesh(), updates=3)
    assert three.steps % 3 == 0


def test_adapters_go_to_the_same_modules_by_default_everywhere():
    assert LoraOptions().lora_targets == LoraConfig().targets
