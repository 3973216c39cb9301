"""`inbol calibrate`: the rule of refusing that is best on validation, kept with the model."""

import dataclasses
import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inbol_jax.answers import ImageHashes
from inbol_jax.artifacts import read_json, sole_writer, write_json, writing
from inbol_jax.data.vqa import VQADataset
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.asking import ask, greedy, prompts_for
from inbol_jax.evaluation.config import CalibrateConfig, RuleName
from inbol_jax.evaluation.evaluate import read_datasets
from inbol_jax.evaluation.policies import RULES, check_refusal_tokens, columns
from inbol_jax.evaluation.prediction import VALIDATION, Prediction
from inbol_jax.evaluation.prices import Columns, stakes
from inbol_jax.evaluation.selective import (
    Calibration,
    best_threshold,
    calibration,
    safe_threshold,
    value_at,
)
from inbol_jax.evaluation.tables import percent, signed, worth_of_rule
from inbol_jax.models import peft
from inbol_jax.models.hf_config import GENERATION, read_generation
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.reading import checkpoint_files, own_files
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.sampling.engines import CheckpointEngine
from inbol_jax.sampling.forced import refusal_tokens
from inbol_jax.sharding import make_mesh
from inbol_jax.taught_refusals import refusals_of

DIGITS = 6  # of a threshold, one more than scores are kept with
NEVER = -1e4  # bias on tokens that are not to come


class Choice(NamedTuple):
    """The rule of refusing that is best on validation, and what it changes there.

    Attributes:
      bias: on the refusal tokens, or the least log-probability of an answer.
      worth: of the threshold that is best at the price; None if one was chosen for a risk.
      cases: "without" and "with" the rule: the mean "value" of the questions, the share "refused",
        and the "risk", the share of the answers that is wrong; None if there is no answer.
    """

    rule: RuleName
    bias: float
    worth: Calibration | None
    cases: dict[str, dict[str, float | None]]


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
    files = [dataset.file for dataset in datasets]
    tell = functools.cache(say)  # each line once: most datasets are asked alike
    prompts = prompts_for(config.model, config.prompt, files, refusals, tell)
    checkpoint = _without_rule(
        load_pretrained(config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh))
    )
    out = config.out or config.model
    with sole_writer(out):
        answers: list[Prediction] = []
        for dataset, prompt in zip(datasets, prompts, strict=True):
            answers += _answers(config, checkpoint, prompt, dataset, out)
        check_refusal_tokens(answers, f"--model {config.model}")
        asked = {"price": config.price, "risk": config.risk, "delta": config.delta}
        choice = choose_rule(answers, config.rule, **asked)
        if config.out:
            _copy(checkpoint, out)
        about = asked | {"data": [dataset.name for dataset in datasets], "n": len(answers)}
        about |= {"prompts": [prompt.to_json() for prompt in prompts]}
        tokens = _write_rule(out, choice, checkpoint, refusals, about)
    said = f"answers of a log-probability below {choice.bias:g} are refused"
    if choice.rule == "bias":
        said = f"bias {choice.bias:+g} on {', '.join(tokens)}"
    before, after = map(_in_words, choice.cases.values())
    say(f"{said}: of {len(answers)} questions from {before} to {after} -> {out / GENERATION}")
    if choice.worth:
        say(worth_of_rule(str(out), choice.rule, choice.worth))
    else:
        say(
            f"{out}: with a probability of {100 * (1 - config.delta):g}% at most "
            f"{100 * config.risk:g}% of its answers are wrong, on questions that are drawn as "
            "these were."
        )
    return choice.bias


def _in_words(case: Mapping[str, float | None]) -> str:
    """ "value +0.430 (31.2% refused, 8.1% of the answers wrong)"."""
    wrong = "" if case["risk"] is None else f", {percent(case['risk'])} of the answers wrong"
    return f"value {signed(case['value'])} ({percent(case['refused'])} refused{wrong})"


def choose_rule(
    answers: Sequence[Prediction],
    rule: RuleName | None = None,
    *,
    price: float = 1.0,
    risk: float | None = None,
    delta: float = 0.1,
) -> Choice:
    """The threshold of the highest value at a price of wrong answers, without a rule that of the
    better one, of equal ones the first of `RULES`.

    With `risk` it is that on the likelihood which answers most and keeps it, see `safe_threshold`:
    what a bias makes of an answer that begins like a refusal is not known before it is asked.

    Raises:
      InbolError: if no threshold keeps the risk.
    """
    tables = {name: columns(answers, score) for name, score in RULES.items()}
    of = {name: stakes(table, price) for name, table in tables.items()}
    if risk is None:
        names = [rule] if rule else [*RULES]
        best = {name: best_threshold(*of[name]) for name in names}
        rule = max(names, key=lambda name: value_at(*of[name], best[name]))
        threshold = best[rule]
    else:
        rule = "likelihood"
        threshold = _safe_threshold(tables[rule], risk, delta)
    # Greedy decoding refuses where margin + bias > 0, so the bias is minus the threshold; and
    # minus a threshold on the likelihood's score is a log-probability.
    bias = round(-threshold, DIGITS) + 0.0  # no minus before a zero
    (score, answered, refused), correct = of[rule], tables[rule]["correct"]
    cases, refuses = {}, of["bias"][0] > 0
    for case, refuse in (("without", refuses), ("with", score > -bias)):
        value, n_answered = np.where(refuse, refused, answered).mean(), int((~refuse).sum())
        wrong = float((~correct & ~refuse).sum() / n_answered) if n_answered else None
        cases[case] = {"value": float(value), "refused": float(refuse.mean()), "risk": wrong}
    worth = calibration(score, answered, refused, refuses=refuses) if risk is None else None
    return Choice(rule, bias, worth, cases)


def _safe_threshold(table: Columns, risk: float, delta: float) -> float:
    """The threshold that keeps the risk; an InbolError says what the questions do tell."""

    def safe(risk: float) -> float | None:
        return safe_threshold(table["score"], table["correct"], risk, delta)

    if (threshold := safe(risk)) is not None:
        return threshold
    told = next((r for r in np.arange(0.01, 1, 0.01) if r > risk and safe(r) is not None), None)
    raise InbolError(
        f"--risk {risk:g}: {len(table['score'])} questions of --data do not tell that so few "
        "answers are wrong under any threshold; give more questions"
        + (f", or bear a risk of {told:g}, which they do tell" if told else "")
    )


def _write_rule(
    out: Path, choice: Choice, checkpoint: Checkpoint, refusals: Sequence[str], about: dict
) -> list[str]:
    """Writes calibration.json, and the rule where it is read. Returns the refusal tokens' texts."""
    encoder = make_text_encoder(checkpoint)
    shared, tokens = refusal_tokens(encoder, refusals)
    texts = [checkpoint.processor.tokenizer.decode([token]).strip() for token in tokens]
    found = {"rule": choice.rule, "bias": choice.bias, **choice.cases}
    if choice.worth:
        found |= {"bias_interval": choice.worth.bias[1:], "gain": choice.worth.gain}
    write_json(out / "calibration.json", found | about | {"refusals": refusals, "tokens": texts})
    # All prompts end with the same token. A bias that applies only behind it acts on the first
    # token of a response and on no other.
    end = (*encoder.prompt("Is it red?"), *shared)[-1]
    bias = choice.bias if choice.rule == "bias" else NEVER
    generation = _generation(checkpoint)
    generation["sequence_bias"] = [[[end, token], bias] for token in tokens]
    if choice.rule == "likelihood":
        generation["refuse_below"] = {"logprob": choice.bias, "refusal": refusals[0]}
    write_json(out / GENERATION, generation)
    return texts


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
