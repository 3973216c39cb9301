"""A trained model says how it was asked, and whoever asks it finds that."""

import json
import shutil

import numpy as np
import pytest

from inbol_jax.artifacts import meta_path, read_meta, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.prompts import AUTO, BARE, FILE, Prompt, PromptOptions
from inbol_jax.training import ca_dpo
from inbol_jax.training.config import DpoConfig, RlConfig, SftConfig
from inbol_jax.training.rl import rl
from inbol_jax.training.settings import Schedule, run_settings
from inbol_jax.training.sft import sft
from inbol_jax.training.trainer import Trainer

ASKED = Prompt("short", "Be brief.")


@pytest.fixture
def asked(data, tmp_path):
    """The same instructions and pairs, whose headers say that they were asked otherwise."""
    folder = shutil.copytree(data, tmp_path / "asked")
    for name in ("instructions.jsonl", "preferences.jsonl"):
        images = (data / read_meta(data / name)["images"]).resolve()
        write_json(meta_path(folder / name), {"images": str(images), **ASKED.to_json()})
    return folder


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Training leaves the model as it is, and the reference is 0."""

    def no_steps(trainer, *batches):
        return trainer.parallel.fetch(trainer.state)

    monkeypatch.setattr(Trainer, "fit", no_steps)

    def zeros(dataset, **options):
        return np.zeros((len(dataset), 2), np.float32)

    monkeypatch.setattr(ca_dpo, "reference_logprobs", zeros)


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2}])
def test_the_model_says_how_it_was_asked(asked, talkative, tmp_path, capsys, lora):
    options = {"data": asked / "instructions.jsonl", "out": tmp_path / "sft", "model": talkative}
    first = sft(SftConfig.from_options(**options, **lora))
    said = capsys.readouterr().out
    assert "prompt short with system 'Be brief.' (the data's)" in said
    assert "warning" not in said
    assert load_pretrained(first).prompt == ASKED
    lines = []
    assert prompt_for(first, AUTO, [], lines.append) == ASKED
    assert lines == [
        "prompt short with system 'Be brief.' (the model's own): '{question}\\n{options}\\n"
        "Answer the question using a single word or phrase.'"
    ]
    assert prompt_for(first, PromptOptions("bare", ""), [], lines.append) == BARE
    assert lines[-1] == f"warning: {first} is asked with prompt bare, and its {FILE} says {ASKED}"

    options = {"data": asked / "preferences.jsonl", "out": tmp_path / "dpo", "model": first}
    second = ca_dpo.ca_dpo(DpoConfig.from_options(**options))
    assert "warning" not in capsys.readouterr().out
    assert load_pretrained(second).prompt == ASKED


def test_a_file_of_ones_own_is_asked_as_the_model_or_bare(data, talkative, tmp_path, capsys):
    options = {"data": data / "instructions.jsonl", "model": talkative}
    bare = sft(SftConfig.from_options(**options, out=tmp_path / "bare"))
    assert json.loads((bare / FILE).read_text()) == {"prompt": "bare", "system": ""}
    assert "(instructions.jsonl has no header that says it)" in capsys.readouterr().out
    (talkative / FILE).write_text(json.dumps(ASKED.to_json()))
    own = sft(SftConfig.from_options(**options, out=tmp_path / "own"))
    assert load_pretrained(own).prompt == ASKED


def test_another_prompt_than_the_models_own_is_warned_of(asked, talkative, tmp_path, capsys):
    (talkative / FILE).write_text(json.dumps(BARE.to_json()))
    options = {"data": asked / "instructions.jsonl", "out": tmp_path / "sft", "model": talkative}
    assert load_pretrained(sft(SftConfig.from_options(**options))).prompt == ASKED
    warning = f"warning: {talkative} is asked with prompt {ASKED}, and its {FILE} says bare"
    assert warning in capsys.readouterr().out


def test_on_policy_training_is_asked_by_its_options(questions, talkative, tmp_path):
    options = {"data": (questions,), "model": talkative, "out": tmp_path / "rl"}
    folder = rl(RlConfig.from_options(**options, prompt="letter", system="Be kind."))
    assert load_pretrained(folder).prompt == Prompt("letter", "Be kind.")


def test_evaluation_data_of_another_prompt_is_refused(asked, data, talkative, tmp_path):
    write_json(meta_path(asked / "other.jsonl"), {"prompt": "bare"})
    shutil.copy(asked / "instructions.jsonl", asked / "other.jsonl")
    options = {"data": asked / "instructions.jsonl", "eval_data": asked / "other.jsonl"}
    options |= {"images": data, "out": tmp_path / "sft", "model": talkative}
    images = (data / read_meta(data / "instructions.jsonl")["images"]).resolve()
    with pytest.raises(InbolError, match=r"--eval-data .*other\.jsonl was made with prompt bare, "):
        sft(SftConfig.from_options(**options | {"images": images}))


def test_runs_of_different_prompts_are_different_runs(micro, data, tmp_path):
    config = SftConfig.from_options(data=data / "instructions.jsonl", out=tmp_path)
    schedule = Schedule(32, 32, 1, 1)
    runs = [
        run_settings("IDK-IT", config, micro.asked_by(prompt), schedule, data="", pictures="")
        for prompt in (BARE, Prompt("short"), ASKED)
    ]
    assert [(run["prompt"], run["system"]) for run in runs] == [
        ("bare", ""), ("short", ""), ("short", "Be brief.")
    ]  # fmt: skip
