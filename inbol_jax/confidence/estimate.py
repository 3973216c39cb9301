"""Samples answers to every question of a dataset, and keeps them in its store."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inbol_jax.answers import AnswerStore, to_row
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.sample_warnings import EARLY, Doubts
from inbol_jax.confidence.samples import (
    Proposal,
    Samples,
    asker_of,
    p_true_file,
    sampled_question,
    store_file,
)
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.sampling.engine_protocol import Engine
from inbol_jax.stage import SetAside, Stage

REMEDY = (
    "the same command asks for them again and keeps the others; if images cannot be read, "
    "`inbol data check` makes a dataset without them, and a busy endpoint needs a higher "
    "--endpoint-retries or --endpoint-timeout, or a lower --endpoint-concurrency"
)


def estimate(config: ConfidenceConfig, engine: Engine) -> Path:
    """Fills the store of one dataset. Returns its file.

    Raises:
      InbolError: for what is wrong with data, model, options or output folder, before anything is
        sampled.
    """
    share = config.max_rejected
    dataset = load_dataset_folder(config.data, limit=config.limit, max_rejected=share)
    file = store_file(config.out, dataset.name)
    prompt = engine.choose_prompt(config.prompt, [dataset.file])
    # As seen from the store: the output can be moved together with the data.
    places = {"data": dataset.file, "images": dataset.root}
    settings = asker_settings(config, engine, prompt) | {
        name: os.path.relpath(path.resolve(), file.parent.resolve())
        for name, path in places.items()
    }
    process, _ = engine.share()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(AnswerStore(file, process))
        stage = Stage(file, "confidence", settings, writes=process == 0, grows=True)
        stage = stack.enter_context(stage)
        samples, doubts = ask_samples(config, engine, settings, dataset, store)
        stage.finish(doubts.n_questions, set_aside=samples.n_set_aside)
    n = config.sampling.n
    say(f"{doubts.n_questions} questions x {n} samples{doubts.summary()} -> {file}")
    if not doubts.warned:
        doubts.warn(dataset.name, config.sampling.max_new_tokens)
    return file


def asker_settings(config: ConfidenceConfig, engine: Engine, prompt: Prompt) -> dict[str, Any]:
    """Everything that samples depend on beside the questions, by the names of the options."""
    sampling = dataclasses.asdict(config.sampling)
    return {**engine.settings(), **sampling, "seed": config.seed, **prompt.to_json()}


def ask_samples(
    config: ConfidenceConfig,
    engine: Engine,
    settings: dict[str, Any],
    dataset: VQADataset,
    store: AnswerStore,
) -> tuple[Samples, Doubts]:
    """Samples answers to every question that is not in the store yet, and asks for P(True) if the
    options say so. Of several processes each asks its share.

    Args:
      settings: of the asker (`asker_settings`).
    Returns:
      the samples, and what speaks against them.
    Raises:
      InbolError: if more questions than --max-rejected cannot be asked.
    """
    samples = Samples(dataset.examples, asker_of(settings, dataset), store, settings["n"])
    doubts = Doubts(warned=_ask_pending(config, engine, dataset, samples))
    proposals: list[Proposal] = []
    for question in samples:  # each is read and judged once, of a million as well
        doubts.add(question)
        if config.p_true and (proposal := samples.proposal(question)):
            proposals.append(proposal)
    if config.p_true:
        with AnswerStore(p_true_file(store.base), engine.share()[0]) as evaluations:
            _ask_p_true(config, engine, dataset, samples, proposals, evaluations)
    samples.read_p_true()
    return samples, doubts


def _ask_pending(
    config: ConfidenceConfig, engine: Engine, dataset: VQADataset, samples: Samples
) -> bool:
    """Asks what has no answer yet; returns whether something in the first answers was warned of."""
    index, count = engine.share()
    share = dataset.examples[index::count]
    set_aside, first = SetAside(config.max_rejected), Doubts()
    label = f"sampling {dataset.name}"
    for batch in engine.generate(
        [example for example in share if samples.keys[example.id] not in samples.store],
        dataset.root,
        prompt=samples.prompt,
        label=label,
        set_aside=set_aside,
    ):
        # Id and question tell people which line it is; programs know it by its key.
        samples.store.add(
            {
                samples.keys[e.id]: {"id": e.id, "question": e.question, **to_row(said)}
                for e, said in batch
            }
        )
        # The first answers are looked at before the others cost hours.
        if first.n_judged < EARLY:
            for example, said in batch:
                first.add(sampled_question(example, said))
            if first.n_judged >= EARLY:
                first.warn(dataset.name, config.sampling.max_new_tokens)
    set_aside.report(label, len(dataset.examples), REMEDY)
    samples.store.add(  # at once: each call waits for the disk
        {
            samples.keys[id]: {"id": id, "question": "", **to_row(()), "set_aside": reason}
            for id, reason in set_aside.reasons.items()
        }
    )
    return first.warned


def _ask_p_true(
    config: ConfidenceConfig,
    engine: Engine,
    dataset: VQADataset,
    samples: Samples,
    proposals: Iterable[Proposal],
    evaluations: AnswerStore,
) -> None:
    """Asks about every proposed answer that was not asked about before."""
    proposed = {p.id: p for p in proposals if p.key not in evaluations}
    # In the order of the dataset, of which the batches are planned.
    index, count = engine.share()
    examples = [example for example in dataset.examples[index::count] if example.id in proposed]
    set_aside, label = SetAside(config.max_rejected), f"P(True) {dataset.name}"
    for batch in engine.p_true(
        ((e, samples.p_true_text(e, proposed[e.id].answer)) for e in examples),
        dataset.root,
        prompt=samples.prompt,
        total=len(examples),
        label=label,
        set_aside=set_aside,
    ):
        evaluations.add(dict(proposed[e.id].row(round(value, 6)) for e, value in batch))
    set_aside.report(label, len(dataset.examples), REMEDY)
    reasons = set_aside.reasons.items()
    evaluations.add(dict(proposed[id].row(None, set_aside=reason) for id, reason in reasons))
    say(f"{len(examples) - len(set_aside)} more questions with P(True) -> {evaluations.file}")
