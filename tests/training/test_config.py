"""Options that cannot be meant are refused by name."""

import re
from pathlib import Path

import pytest
from training_data import STAGES, dpo, run_sft, stage_config

from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig
from inbol_jax.training.config import DpoConfig, LoraOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": -1}, "--lora-rank -1"),
        ({"lora_rank": 2, "lora_targets": ("nowhere",)}, "'nowhere'"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "dropout"),
        ({"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps 0"),
        ({"optimizer": "adamm"}, "--optimizer 'adamm'"),
        ({"optimizer": "chain"}, "--optimizer 'chain'"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"lr_overrides": (("nowhere", 1e-3),)}, "--lr-overrides 'nowhere'"),
        ({"lr_overrides": (("*", 1e-3),)}, "--lr-overrides '*'"),
        ({"lr_overrides": (("projector", 0.0),)}, "--lr-overrides projector 0.0"),
        ({"optimizer": "adafactor", "weight_decay": 0.1}, "--weight-decay 0.1"),
        ({"optimizer": "lbfgs"}, "--optimizer lbfgs"),
        ({"optimizer": "sm3"}, "--optimizer sm3"),
        ({"lora_dropout": 0.5}, "--lora-dropout does nothing without --lora-rank"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "--lora-alpha 0.0"),
        ({"quantize": "nf4"}, "--quantize nf4 is for what stays as it is under adapters"),
        ({"wise_ft_base": Path("somewhere")}, "--wise-ft-base somewhere does nothing"),
        ({"mesh": (2, 2, 2)}, "does not fit 1 devices"),
        ({"mesh": (-1, 0, 1)}, "does not fit 1 devices"),
        ({"max_nonfinite_updates": -1}, "--max-nonfinite-updates -1"),
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
        ({"wise_ft_alpha": 0.0}, "--wise-ft-alpha 0.0"),
        ({"wise_ft_alpha": 1.1}, "--wise-ft-alpha 1.1"),
        ({"wise_ft_alpha": 0.9, "wise_ft_base": Path("/nowhere")}, "/nowhere"),
        ({"wise_ft_alpha": 0.9, "wise_ft_base": TINY}, "their weights cannot be mixed"),
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
    with pytest.raises(
        InbolError, match="--report-to 'visdom': choose among tensorboard, wandb, trackio"
    ):
        run_sft(data, micro.path, tmp_path, report_to=("visdom",))


def test_an_online_reference_does_not_go_with_none(data, micro, tmp_path):
    with pytest.raises(InbolError, match="--reference online does nothing with --reference-free"):
        dpo(data, micro.path, tmp_path, reference="online", reference_free=True)


def test_flat_options_and_their_parts_are_the_same():
    config = DpoConfig.from_options(
        data=Path("d"), out=Path("o"), lora_rank=4, beta=0.5, remat="full"
    )
    assert config.lora == LoraOptions(lora_rank=4)
    assert config.optimization.learning_rate == 2e-4, "a part keeps the command's own defaults"
    assert (config.pair_loss.beta, config.runtime.remat) == (0.5, "full")
    assert DpoConfig.from_options(**config.flat()) == config
    with pytest.raises(TypeError, match="anchor"):
        DpoConfig.from_options(data=Path("d"), out=Path("o"), anchor=1.0)


def test_adapters_go_to_the_same_modules_by_default_everywhere():
    assert LoraOptions().lora_targets == LoraConfig().targets
