"""Options that cannot be meant are refused by name; defaults."""

import inspect
import re
from pathlib import Path

import pytest

from inbol_jax.commands import COMMANDS, load
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import RATES, DpoConfig, LoraOptions, OptimizerConfig, SftConfig
from inbol_jax.training.settings import make_schedule

# (command, options, what the message says). What needs a model or data comes last.
REFUSED = [
    ("sft", {"lora_rank": -1}, "--lora-rank -1: at least 0"),
    ("sft", {"lora_alpha": 0.5}, "--lora-alpha does nothing without --lora-rank"),
    ("dpo", {"beta": 0.0}, "--beta 0.0"),
    ("dpo", {"label_smoothing": 0.5}, "--label-smoothing 0.5: at least 0 and less than 0.5"),
    ("rl", {"n": 1}, "--n 1: at least 2 is needed"),
    ("rl", {"data": ()}, "--data: at least one dataset"),
    ("dpo", {"pair_weighting": "cubic"}, "'cubic': choose one of linear, margin, uniform, value"),
    ("dpo", {"loss": "dpo"}, "--loss 'dpo': choose one of sigmoid, robust, ipo, hinge"),
    ("dpo", {"loss": "ipo", "label_smoothing": 0.1}, "0.1: the loss 'ipo' has none"),
    ("rl", {"reward": "mine"}, "--reward 'mine': choose one of value"),
    ("rl", {"data": (Path("/nowhere"),)}, "/nowhere is not there: give a folder"),
    ("sft", {"data": Path("/nowhere/data.jsonl")}, "/nowhere/data.jsonl"),
    ("dpo", {"images": Path("/nowhere/images")}, "/nowhere/images"),
    ("sft", {"model": Path("/nowhere")}, "/nowhere"),
    ("sft", {"mesh": (2, 2, 2)}, "does not fit 1 devices"),
    ("sft", {"lora_rank": 2, "lora_targets": ("nowhere",)}, "'nowhere'"),
    ("dpo", {"frozen": ("nothing_like_it",)}, "'nothing_like_it'"),
]


@pytest.mark.parametrize(("command", "options", "message"), REFUSED)
def test_an_option_that_cannot_be_meant_is_named(
    data, questions, micro, tmp_path, command, options, message
):
    files = {"sft": data / "instructions.jsonl", "dpo": data / "preferences.jsonl"}
    own = {"data": files.get(command, (questions,)), "out": tmp_path, "model": micro.path}
    with pytest.raises(InbolError, match=re.escape(message)) as caught:
        load(COMMANDS[command].run)(load(COMMANDS[command].config).from_options(**own | options))
    assert "\n" not in str(caught.value)


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
    """One that is given holds."""
    command = load(COMMANDS[name].config)
    data = (Path("d"),) if name == "rl" else Path("d")
    own, (whole, of_adapters) = {"data": data, "out": tmp_path / "out"}, RATES[name]
    for options, adapters, rate in (
        ({}, False, whole),
        ({}, True, of_adapters),
        ({"learning_rate": 1e-5}, True, 1e-5),
    ):
        found = command.from_options(**own, **options).with_rate(adapters=adapters)
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


def test_adapters_go_to_the_same_modules_by_default_everywhere():
    assert LoraOptions().lora_targets == LoraConfig().targets
