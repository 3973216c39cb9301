"""`inbol calibrate`: the rule of refusing that is best on validation, kept with the model."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.answers import ImageHashes
from inbol_jax.artifacts import sole_writer, write_json, writing
from inbol_jax.data.vqa import VQADataset
from inbol_jax.evaluation.asking import ask, greedy, prompts_for
from inbol_jax.evaluation.config import CalibrateConfig, Rule
from inbol_jax.evaluation.evaluate import read_datasets
from inbol_jax.evaluation.policies import (
    SCORES,
    Score,
    check_refusal_tokens,
    columns,
    margin,
    stakes,
)
from inbol_jax.evaluation.prediction import VALIDATION, Prediction
from inbol_jax.evaluation.selective import best_threshold, calibration, value_at
from inbol_jax.evaluation.tables import worth_of_rule
from inbol_jax.models import peft
from inbol_jax.models.hf_config import GENERATION, read_generation, read_json
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.reading import checkpoint_files, own_files
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.sampling.engines import CheckpointEngine
from inbol_jax.sampling.forced import refusal_tokens
from inbol_jax.sharding import make_mesh
from inbol_jax.taught_refusals import refusals_of

# What refuses -> the score that it is a threshold on. Of equally good ones the first is taken.
RULES: dict[Rule, Score] = {"bias": margin, "likelihood": SCORES["likelihood"]}
DIGITS = 4  # of a threshold
NEVER = -1e4  # bias on tokens that are not to come
CASES = ("without", "with")  # the rule, in calibration.json


def calibrate(config: CalibrateConfig) -> float:
    """Writes the rule into the checkpoint's generation_config.json, or that of a copy. Returns its
    bias, or its least log-probability.

    Beside it go calibration.json, which says what the rule changes, and calibration/, the answers
    that a stopped run goes on with.

    Raises:
      InbolError: if something is wrong with data, model or output folder.
    """
    datasets = read_datasets(config.data)
    refusals = refusals_of(config.templates)
    lines: dict[str, None] = {}
    files = [dataset.file for dataset in datasets]
    prompts = prompts_for(config.model, config.prompt, files, refusals, lines.setdefault)
    for line in lines:
        say(line)
    checkpoint = _without_rule(
        load_pretrained(config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh))
    )
    out = config.out or config.model
    with sole_writer(out):
        answers: list[Prediction] = []
        for dataset, prompt in zip(datasets, prompts, strict=True):
            answers += _answers(config, checkpoint, prompt, dataset, out)
        check_refusal_tokens(answers, f"--model {config.model}")
        found = {rule: stakes(columns(answers, score)) for rule, score in RULES.items()}
        best = {rule: best_threshold(*of_rule) for rule, of_rule in found.items()}
        rule = config.rule or max(RULES, key=lambda rule: value_at(*found[rule], best[rule]))
        score, *worth = found[rule]
        # Greedy decoding refuses where margin + bias > 0, so the bias is minus the threshold; and
        # minus a threshold on the likelihood's score is a log-probability.
        bias = round(-best[rule], DIGITS) + 0.0  # no minus before a zero
        tokenizer = checkpoint.processor.tokenizer
        encoder = make_text_encoder(checkpoint)
        shared, tokens = refusal_tokens(encoder, refusals)
        # All prompts end with the same token. A bias that applies only behind it acts on the first
        # token of a response and on no other.
        end = (*encoder.prompt("Is it red?"), *shared)[-1]
        refuses = found["bias"][0] > 0
        gained = calibration(score, *worth, refuses=refuses)
        about: dict[str, Any] = {"rule": rule, "bias": bias, "n": len(answers)}
        for name, refused in zip(CASES, (refuses, score > -bias), strict=True):
            t = np.where(refused, worth[1], worth[0]).mean()
            about[name] = {"t": float(t), "refused": float(refused.mean())}
        about |= {
            "bias_interval": gained.bias[1:],
            "gain": gained.gain,
            "data": [dataset.name for dataset in datasets],
            "prompts": [prompt.to_json() for prompt in prompts],
            "refusals": refusals,
            "tokens": [tokenizer.decode([token]).strip() for token in tokens],
        }
        if config.out:
            _copy(checkpoint, out)
        write_json(out / "calibration.json", about)
        on_tokens = bias if rule == "bias" else NEVER
        generation = _generation(checkpoint) | {
            "sequence_bias": [[[end, token], on_tokens] for token in tokens]
        }
        if rule == "likelihood":
            generation["refuse_below"] = {"logprob": bias, "refusal": refusals[0]}
        write_json(out / GENERATION, generation)
    before, after = (f"{about[k]['t']:+.3f} ({about[k]['refused']:.1%} refused)" for k in CASES)
    said = f"answers of a log-probability below {bias:g} are refused"
    if rule == "bias":
        said = f"bias {bias:+g} on {', '.join(about['tokens'])}"
    say(f"{said}: T of {len(answers)} questions from {before} to {after} -> {out / GENERATION}")
    say(worth_of_rule(str(out), rule, gained))
    return bias


def _without_rule(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as it generates without any rule: a new one replaces what is there."""
    if checkpoint.config.sequence_bias or checkpoint.config.refuse_below:
        say(f"{checkpoint.adapters or checkpoint.path}: its rule of refusing is replaced")
    config = dataclasses.replace(checkpoint.config, sequence_bias=(), refuse_below=None)
    return dataclasses.replace(
        checkpoint, config=config, model=checkpoint.model.clone(config=config)
    )


def _answers(
    config: CalibrateConfig, checkpoint: Checkpoint, prompt: Prompt, dataset: VQADataset, out: Path
) -> list[Prediction]:
    options = greedy(config.max_new_tokens)
    rows = ask(
        CheckpointEngine(lambda: checkpoint, options, 0, 4 * config.batch_size),
        dataset,
        ImageHashes(dataset.root),
        out / "calibration" / f"{dataset.name}.jsonl",
        prompt=prompt,
        refusals=refusals_of(config.templates),
        label=f"calibrating on {dataset.name}",
    )
    about = {"dataset": dataset.name, "domain": VALIDATION, "model": "", "confidence": 0.0}
    unknown = dict.fromkeys(("consistency", "p_true"))
    return [
        # T needs no more of the type than whether the image holds the answer.
        Prediction.from_json(
            rows[e.id] | unknown | about | {"type": 3 if e.answerable is False else None}
        )
        for e in dataset.examples
        if e.id in rows
    ]


def _generation(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's generation_config.json; its ends stand there, as no other file is asked."""
    own = read_generation(checkpoint.adapters) if checkpoint.adapters else {}
    ends = list(checkpoint.config.eos_token_ids)
    tokens = {"eos_token_id": ends, "pad_token_id": checkpoint.config.pad_token_id}
    kept = tokens | (own or read_generation(checkpoint.path))
    return {name: value for name, value in kept.items() if name != "refuse_below"}


def _copy(checkpoint: Checkpoint, out: Path) -> None:
    """Copies a checkpoint's files as they are. An adapter's base may be beside it: it is named by
    its whole path."""
    source = checkpoint.adapters or checkpoint.path
    files = [*own_files(source), source / peft.WEIGHTS]
    if not checkpoint.adapters:
        files = dict.fromkeys([*own_files(source), *checkpoint_files(source)])
    with writing(out):
        for file in files:
            shutil.copyfile(file, out / file.name)
    if checkpoint.adapters:
        base = {"base_model_name_or_path": checkpoint.hub_id or str(checkpoint.path.resolve())}
        write_json(out / peft.CONFIG, read_json(source / peft.CONFIG) | base)
