"""Confidence of a model on every question of a dataset: c(x) = correct samples / samples."""

import array
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from inbol_jax.artifacts import canonical_json
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.doubts import EARLY, Doubts, describe_cut
from inbol_jax.confidence.estimators import describe_mean, estimates, get_estimator, proposed_answer
from inbol_jax.confidence.p_true import self_evaluate
from inbol_jax.confidence.p_true_prompt import P_TRUE_PROMPT
from inbol_jax.confidence.store import (
    ConfidenceStore,
    Row,
    check_p_true,
    p_true_file,
    question_of,
    read_store,
    shard_path,
    store_file,
)
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset, summarise_rejections
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, choose_prompt
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.engines import CheckpointEngine, EndpointEngine, Engine
from inbol_jax.sampling.generate import Generation
from inbol_jax.sharding import make_mesh


def sampled_question(example: VQAExample, generations: Sequence[Generation]) -> SampledQuestion:
    """The question with its samples: each one's outcome is decided, its log-probability rounded."""
    samples = [
        Sample(
            text,
            None if logprob is None else round(logprob, 5),
            tokens,
            outcome(example, text),
            cut,
        )
        for text, logprob, tokens, cut in generations
    ]
    return SampledQuestion(example, tuple(samples))


def estimate(
    config: ConfidenceConfig, dataset: VQADataset | None = None, prompt: Prompt | None = None
) -> Path:
    """Fills the store of one dataset. Returns its file.

    Args:
      dataset: what `config.data` names, if it was read before.
      prompt: the choice of `config.prompt`, if it was made before.
    Raises:
      InbolError: for what is wrong with data, model, options or output folder, before anything is
        sampled.
    """
    estimator = get_estimator(config.estimator)
    if dataset is None:
        dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    if dataset.rejected:
        say(summarise_rejections(dataset.rejected, len(dataset.examples) + len(dataset.rejected)))
    file = store_file(config.out, dataset.name)
    # An endpoint needs no device, and JAX would take those that its server may use.
    process = {"index": 0, "count": 1}
    if not config.endpoint.endpoint:
        process = {"index": jax.process_index(), "count": jax.process_count()}
    if config.estimator == "p-true" and not config.p_true:
        check_p_true(shard_path(file, **process), finished=False)
    prompt = prompt or prompt_of(config, dataset)
    engine = open_engine(config)
    settings = _settings(config, engine, dataset, file) | prompt.to_json()
    images = ImageHashes(dataset.root)
    with ConfidenceStore(file, settings, images, **process) as store:
        examples = dataset.examples[process["index"] :: process["count"]]
        doubted = _add_samples(config, engine, prompt, dataset, examples, store)
        if config.p_true and isinstance(engine, CheckpointEngine):
            about = {
                "command": "confidence --p-true",
                "samples": store.fingerprint,
                "p_true_prompt": P_TRUE_PROMPT,
            }
            checkpoint = engine.checkpoint.asked_by(prompt)
            with ConfidenceStore(p_true_file(file), about, images, **process) as evaluations:
                _add_p_true(config, checkpoint, dataset, examples, store, evaluations)
        values, doubts = array.array("d"), Doubts()
        for question in read_store(store.file):
            doubts.add(question)
            values.extend(e.value for e in estimates([question], estimator))
    about = describe_mean(config.estimator, values) + describe_cut(doubts.n_cut, doubts.n_samples)
    say(f"{len(store.done)} questions x {config.sampling.n} samples{about} -> {store.file}")
    if not doubted:
        _say_doubts(config, dataset, doubts)
    return store.file


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


def _settings(
    config: ConfidenceConfig, engine: Engine, dataset: VQADataset, file: Path
) -> dict[str, Any]:
    """What samples depend on, as the store's header spells it."""
    sampling = dataclasses.asdict(config.sampling).items()
    return {
        "command": "confidence",
        **engine.settings(),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in sampling},
        "seed": config.seed,
        "dataset": dataset.name,
        # As seen from the store: the output can be moved together with the data.
        "images": os.path.relpath(dataset.root.resolve(), file.parent.resolve()),
    }


def scored(example: VQAExample, row: Row) -> Row:
    """The line of an example, given its old line: its samples are scored again if it changed."""
    question = question_of(dict(row))
    if canonical_json(question.example.to_json()) == canonical_json(example.to_json()):
        return row
    samples = [s._replace(outcome=outcome(example, s.text)) for s in question.samples]
    return SampledQuestion(example, tuple(samples)).to_json()


def _add_samples(
    config: ConfidenceConfig,
    engine: Engine,
    prompt: Prompt,
    dataset: VQADataset,
    examples: Sequence[VQAExample],
    store: ConfidenceStore,
) -> bool:
    """Samples answers to every question that is not in the store yet.

    The first ones are looked at before the others cost hours. Returns whether that gave a warning.
    """
    store.update(examples, dataset.file, scored)
    pending = store.pending(examples)
    if pending and config.estimator == "likelihood" and not engine.gives_logprobs():
        raise InbolError(
            f"--estimator likelihood: {config.endpoint.endpoint_model} comes without "
            "log-probabilities; choose accuracy or consistency"
        )
    rejected: list[tuple[VQAExample, str]] = []
    first, doubted = Doubts(), False
    for batch in engine.generate(
        pending,
        dataset.root,
        prompt=prompt,
        label=f"sampling {dataset.name}",
        set_aside=lambda *rejection: rejected.append(rejection),
    ):
        questions = [sampled_question(*generated) for generated in batch]
        store.append(question.to_json() for question in questions)
        if first.n_judged < EARLY:
            for question in questions:
                first.add(question)
            if first.n_judged >= EARLY:
                doubted = _say_doubts(config, dataset, first)
    _finish(store, rejected, len(pending), len(examples), config.max_rejected)
    return doubted


def _add_p_true(
    config: ConfidenceConfig,
    checkpoint: Checkpoint,
    dataset: VQADataset,
    examples: Sequence[VQAExample],
    samples: ConfidenceStore,
    evaluations: ConfidenceStore,
) -> None:
    """Asks about every question of the samples that was not asked about before."""
    proposed = {q.example.id: proposed_answer(q) for q in read_store(samples.file)}

    def same_proposal(example: VQAExample, row: Row) -> Row | None:
        return row if row["proposed"] == proposed.get(example.id) else None

    evaluations.update(examples, dataset.file, same_proposal, ask_again=True)
    pending = evaluations.pending(examples)
    waiting = len(proposed) - len(evaluations.done)
    rejected: list[tuple[VQAExample, str]] = []
    refused = (e for e in pending if e.id in proposed and proposed[e.id] is None)
    evaluations.append(_self_evaluation(example, None, None) for example in refused)
    for batch in self_evaluate(
        checkpoint,
        ((e, answer) for e in pending if (answer := proposed.get(e.id)) is not None),
        dataset.root,
        total=len(proposed) - len(evaluations.done),
        batch_size=config.batch_size,
        label=f"P(True) {dataset.name}",
        set_aside=lambda *rejection: rejected.append(rejection),
    ):
        evaluations.append(
            _self_evaluation(example, proposed[example.id], round(value, 6))
            for example, value in batch
        )
    _finish(evaluations, rejected, waiting, len(proposed), config.max_rejected)
    say(f"{len(evaluations.done)} questions with P(True) -> {evaluations.file}")


def _self_evaluation(
    example: VQAExample, proposed: str | None, p_true: float | None
) -> dict[str, Any]:
    """A line of a store's P(True) file."""
    # With its options: others are another question.
    about = {"id": example.id, "images": list(example.images), "question": example.whole}
    return about | {"proposed": proposed, "p_true": p_true}


def _finish(
    store: ConfidenceStore,
    rejected: Sequence[tuple[VQAExample, str]],
    asked: int,
    total: int,
    max_rejected: float,
) -> None:
    """Says what was set aside, and notes it in the store's header unless it is too much."""
    if rejected:
        example, reason = rejected[0]
        say(f"{len(rejected)} of {asked} questions set aside (first: {example.id}: {reason})")
        if len(rejected) > max_rejected * total:
            raise InbolError(
                f"{len(rejected)} of {total} questions could not be asked, "
                f"more than --max-rejected {max_rejected}"
            )
    store.finish(len(rejected))
