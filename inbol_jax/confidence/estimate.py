"""Confidence of a model on every question of a dataset: c(x) = correct samples / samples."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from inbol_jax.answers import AnswerStore, to_row
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.doubts import EARLY, Doubts
from inbol_jax.confidence.estimators import proposed_answer
from inbol_jax.confidence.p_true import self_evaluate
from inbol_jax.confidence.samples import (
    Samples,
    asker_of,
    p_true_file,
    sampled_question,
    store_file,
    taken,
)
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset, summarise_rejections
from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, choose_prompt
from inbol_jax.sampling.engines import CheckpointEngine, EndpointEngine, Engine
from inbol_jax.sharding import make_mesh
from inbol_jax.stage import SetAside, Stage

NO_SAMPLES: dict[str, Any] = {
    name: [] for name in ("responses", "counts", "logprobs", "tokens", "cut")
}
REMEDY = (
    "the same command asks for them again and keeps the others; if images cannot be read, "
    "`inbol data import` makes a dataset without them, and a busy endpoint needs a higher "
    "--endpoint-retries or --endpoint-timeout, or a lower --endpoint-concurrency"
)


def estimate(config: ConfidenceConfig) -> Path:
    """Fills the store of one dataset. Returns its file.

    Raises:
      InbolError: for what is wrong with data, model, options or output folder, before anything is
        sampled.
    """
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    if dataset.rejected:
        say(summarise_rejections(dataset.rejected, len(dataset.examples) + len(dataset.rejected)))
    file = store_file(config.out, dataset.name)
    prompt = prompt_of(config, dataset)
    engine = open_engine(config)
    # As seen from the store: the output can be moved together with the data.
    places = {"data": dataset.file, "images": dataset.root}
    settings = asker_settings(config, engine, prompt) | {
        name: os.path.relpath(path.resolve(), file.parent.resolve())
        for name, path in places.items()
    }
    # An endpoint needs no device, and JAX would take those that its server may use.
    process = 0 if config.endpoint.endpoint else jax.process_index()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(AnswerStore(file, process))
        stage = Stage(file, "confidence", settings, writes=process == 0, grows=True)
        stage = stack.enter_context(stage)
        samples, doubted = ask_samples(config, engine, settings, dataset, store)
        doubts, n = Doubts(), 0
        for question in samples:
            doubts.add(question)
            n += 1
        stage.finish(n, set_aside=samples.n_set_aside)
    say(f"{n} questions x {config.sampling.n} samples{doubts.summary()} -> {file}")
    if not doubted:
        _say_doubts(config, dataset, doubts)
    return file


def asker_settings(config: ConfidenceConfig, engine: Engine, prompt: Prompt) -> dict[str, Any]:
    """Everything that samples depend on beside the questions, by the names of the options."""
    sampling = dataclasses.asdict(config.sampling)
    return {**engine.settings(), **sampling, "seed": config.seed, **prompt.to_json()}


def _say_doubts(config: ConfidenceConfig, dataset: VQADataset, doubts: Doubts) -> bool:
    """Says what speaks against the samples; returns whether there was anything."""
    lines = list(doubts.warnings(dataset.name, config.sampling.max_new_tokens))
    for line in lines:
        say(line)
    return bool(lines)


def prompt_of(config: ConfidenceConfig, dataset: VQADataset) -> Prompt:
    """How the questions are asked; an InbolError if the model cannot be asked."""
    if config.endpoint.endpoint:
        name = config.endpoint.endpoint_model
        return choose_prompt(config.prompt, None, [dataset.file], model=name)
    return prompt_for(config.model, config.prompt, [dataset.file])


def open_engine(config: ConfidenceConfig) -> Engine:
    """What samples the answers: the endpoint, or else the checkpoint, which is loaded."""
    if config.endpoint.endpoint:
        return EndpointEngine(config.endpoint, config.sampling, config.seed)
    mesh = make_mesh(*config.mesh, devices=jax.local_devices())
    checkpoint = load_pretrained(config.model, dtype=config.dtype, mesh=mesh)
    return CheckpointEngine(checkpoint, config.sampling, config.seed, config.batch_size)


def ask_samples(
    config: ConfidenceConfig,
    engine: Engine,
    settings: dict[str, Any],
    dataset: VQADataset,
    store: AnswerStore,
) -> tuple[Samples, bool]:
    """Samples answers to every question that is not in the store yet, and asks for P(True) if the
    options say so. Of several processes each asks its share.

    Args:
      settings: of the asker (`asker_settings`).
    Returns:
      the samples, and whether something in the first of them was warned of.
    Raises:
      InbolError: if more questions than --max-rejected cannot be asked.
    """
    samples = Samples(dataset.examples, asker_of(settings, dataset), store)
    index, count = 0, 1
    if isinstance(engine, CheckpointEngine):
        index, count = jax.process_index(), jax.process_count()
    pending = [i for i in samples.pending() if i % count == index]
    set_aside, first, doubted = SetAside(config.max_rejected), Doubts(), False
    label = f"sampling {dataset.name}"
    for batch in engine.generate(
        taken(dataset.examples, pending),
        dataset.root,
        prompt=samples.prompt,
        label=label,
        set_aside=set_aside,
    ):
        store.add(
            {samples.keys[e.id]: _about(e.id, e.question) | to_row(said) for e, said in batch}
        )
        # The first answers are looked at before the others cost hours.
        if first.n_judged < EARLY:
            for example, said in batch:
                first.add(sampled_question(example, said))
            if first.n_judged >= EARLY:
                doubted = _say_doubts(config, dataset, first)
    set_aside.report(label, len(dataset.examples), REMEDY)
    store.add(  # at once: each call waits for the disk
        {
            samples.keys[id]: _about(id, "") | NO_SAMPLES | {"set_aside": reason}
            for id, reason in set_aside.reasons.items()
        }
    )
    file = p_true_file(store.base)
    if config.p_true and isinstance(engine, CheckpointEngine):
        with AnswerStore(file, index) as evaluations:
            samples.p_true = evaluations
            _ask_p_true(config, engine, dataset, samples, index, count)
    if file.is_file():
        samples.p_true = AnswerStore(file)
    return samples, doubted


def _about(id: str, question: str) -> dict[str, str]:
    """What tells people which question a line answers; programs know it by its key."""
    return {"id": id, "question": question}


def _ask_p_true(
    config: ConfidenceConfig,
    engine: CheckpointEngine,
    dataset: VQADataset,
    samples: Samples,
    index: int,
    count: int,
) -> None:
    """Asks about every proposed answer that was not asked about before."""
    evaluations = samples.p_true
    assert evaluations is not None
    proposed: dict[str, tuple[str, str]] = {}  # id -> key and proposed answer
    for question in samples:
        answer, key = proposed_answer(question), samples.p_true_key(question)
        if answer is not None and key is not None and key not in evaluations:
            proposed[question.example.id] = key, answer
    # In the order of the dataset, of which the batches are planned.
    asked = [i for i, id in enumerate(samples.keys) if id in proposed and i % count == index]
    set_aside, label = SetAside(config.max_rejected), f"P(True) {dataset.name}"
    for batch in self_evaluate(
        engine.checkpoint.asked_by(samples.prompt),
        ((e, proposed[e.id][1]) for e in taken(dataset.examples, asked)),
        dataset.root,
        total=len(asked),
        batch_size=config.batch_size,
        label=label,
        set_aside=set_aside,
    ):
        rows = {}
        for example, value in batch:
            key, answer = proposed[example.id]
            rows[key] = {"id": example.id, "proposed": answer, "p_true": round(value, 6)}
        evaluations.add(rows)
    set_aside.report(label, len(dataset.examples), REMEDY)
    rows = {}
    for id, reason in set_aside.reasons.items():
        key, answer = proposed[id]
        rows[key] = {"id": id, "proposed": answer, "p_true": None, "set_aside": reason}
    evaluations.add(rows)
    say(f"{len(asked) - len(set_aside)} more questions with P(True) -> {evaluations.file}")
