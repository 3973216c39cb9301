"""Confidence of a model on every question of a dataset: c(x) = correct samples / samples."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from inbol_jax.confidence.estimators import get_estimator, proposed_answer
from inbol_jax.confidence.p_true import PROMPT, self_evaluate
from inbol_jax.confidence.store import ConfidenceStore, check_p_true, p_true_file, shard_path
from inbol_jax.data.config import Data
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset, summarise_rejections
from inbol_jax.defaults import TINY, Dtype
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.generate import Generation, generate
from inbol_jax.sampling.sampler import SamplingOptions
from inbol_jax.sharding import make_mesh


@dataclasses.dataclass(frozen=True)
class ConfidenceConfig:
    """Sample answers to every question of a dataset and count how many are correct.

    Attributes:
      data: questions, their images and answers.
      out: results go to OUT/confidence/NAME.jsonl. A run that was stopped goes on where it was.
      model: checkpoint folder; by default the tiny LLaVA that ships with the package.
      n: samples a question.
      temperature: of the samples.
      top_p: nucleus that the samples are drawn from; 1 for the whole distribution.
      top_k: tokens that the samples are drawn from, the most probable ones; 0 for all.
      min_p: tokens less probable than this share of the most probable one are not drawn.
      stop: strings before which an answer is cut.
      stop_tokens: ids of tokens that end an answer, beside the model's own; they end it on the device, where a stop string does not.
      max_new_tokens: longest answer.
      batch_size: questions at a time, each with n answers in flight; a CPU takes as many as suit it.
      p_true: ask the model afterwards whether the answer that it gave most often is true; adds to a store that is there, and samples
        nothing again.
      estimator: of the confidences that are shown: "accuracy" against the gold answers, "consistency" or "likelihood" of the samples, or
        "p-true".
      dtype: of the model; auto is float32 for a float32 checkpoint and bfloat16 for any other.
      mesh: number of this process's devices along data, fsdp and tensor; -1 takes what the others leave.
      distributed: this is one of several processes, each with devices of its own and a share of the questions. jax finds the others on
        Cloud TPU, Slurm, Kubernetes and Open MPI; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say who they are.
      max_rejected: share of unusable records or images above which the stage stops.
      seed: of the samples.
    """

    data: Data
    out: Path
    model: Path = TINY
    n: int = 10
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    max_new_tokens: int = 12
    batch_size: int = 128
    p_true: bool = False
    estimator: str = "accuracy"
    dtype: Dtype = "auto"
    mesh: tuple[int, int, int] = (-1, 1, 1)
    distributed: bool = False
    max_rejected: float = 0.1
    seed: int = 0


def row(example: VQAExample, generations: list[Generation]) -> dict[str, Any]:
    """The store's line: the question with all its columns, and each sample's text, log-probability, tokens and outcome."""
    outcomes = [outcome(example, g.text) for g in generations]
    return example.to_json() | {
        "samples": [g.text for g in generations],
        "logprobs": [round(g.logprob, 5) for g in generations],
        "token_counts": [g.tokens for g in generations],
        "outcomes": outcomes,
        "n_correct": outcomes.count("correct"),
        "n_samples": len(outcomes),
    }


def estimate(config: ConfidenceConfig) -> Path:
    """Fills the store of one dataset. Returns its file.

    Raises:
      InbolError: for what is wrong with data, model, options or output folder, before anything is sampled.
    """
    if config.n < 1:
        raise InbolError(f"--n {config.n}: at least one sample is needed")
    if config.batch_size < 1:
        raise InbolError(f"--batch-size {config.batch_size}: must be greater than 0")
    estimator = get_estimator(config.estimator)
    options = SamplingOptions(
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(SamplingOptions)}
    )
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    if dataset.rejected:
        say(summarise_rejections(dataset.rejected, len(dataset.examples) + len(dataset.rejected)))
    file, index, count = store_file(config, dataset), jax.process_index(), jax.process_count()
    if config.estimator == "p-true" and not config.p_true:
        check_p_true(shard_path(file, index, count), finished=False)
    loaded = load_pretrained(
        config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh, devices=jax.local_devices())
    )
    settings = {
        "command": "confidence",
        "model": loaded.fingerprint,
        "dtype": loaded.model.dtype.name,
        "n": config.n,
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(options).items()
        },
        "seed": config.seed,
        "dataset": dataset.name,
        "images": _relative(dataset, file),
    }
    with ConfidenceStore(file, settings, index=index, count=count) as store:
        mine = dataset.examples[index::count]
        pending = store.pending(mine)
        bad: list[tuple[str, str]] = []
        for batch in generate(
            loaded,
            pending,
            dataset.root,
            n=config.n,
            options=options,
            seed=config.seed,
            batch_size=config.batch_size,
            label=f"sampling {dataset.name}",
            set_aside=lambda example, reason: bad.append((example.id, reason)),
        ):
            store.append(row(example, generations) for example, generations in batch)
        _report(bad, len(pending), len(mine), config.max_rejected)
        store.finish(len(bad))
        if config.p_true:
            with ConfidenceStore(
                p_true_file(file), p_true_settings(store), index=index, count=count
            ) as evaluations:
                _add_p_true(config, loaded, store, evaluations, mine, dataset)
        values = [
            found.value
            for r in store.rows()
            if r["answerable"] is not False and (found := estimator(r))
        ]
    mean = (
        f", mean confidence ({config.estimator}) {math.fsum(values) / len(values):.3f}"
        if values
        else ""
    )
    say(f"{len(store.done)} questions x {config.n} samples{mean} -> {store.file}")
    return store.file


def p_true_settings(samples: ConfidenceStore) -> dict[str, Any]:
    """What self-evaluations depend on: the very samples, and the question about them."""
    return {"command": "confidence --p-true", "samples": samples.fingerprint, "prompt": PROMPT}


def _add_p_true(
    config: ConfidenceConfig,
    loaded: Checkpoint,
    samples: ConfidenceStore,
    evaluations: ConfidenceStore,
    mine: Sequence[VQAExample],
    dataset: VQADataset,
) -> None:
    """Asks about every question of the samples that was not asked about before."""
    proposed = {r["id"]: proposed_answer(r) for r in samples.rows()}
    pending, waiting = evaluations.pending(mine), len(proposed) - len(evaluations.done)
    bad: list[tuple[str, str]] = []

    def line(example: VQAExample, value: float | None) -> dict[str, Any]:
        value = value if value is None else round(value, 6)
        about = {"id": example.id, "image": example.image, "question": example.question}
        return about | {"proposed": proposed[example.id], "p_true": value}

    evaluations.append(
        line(e, None) for e in pending if e.id in proposed and proposed[e.id] is None
    )
    for batch in self_evaluate(
        loaded,
        ((e, answer) for e in pending if (answer := proposed.get(e.id)) is not None),
        dataset.root,
        total=len(proposed) - len(evaluations.done),
        batch_size=config.batch_size,
        label=f"P(True) {dataset.name}",
        set_aside=lambda example, reason: bad.append((example.id, reason)),
    ):
        evaluations.append(line(example, value) for example, value in batch)
    _report(bad, waiting, len(proposed), config.max_rejected)
    evaluations.finish(len(bad))
    say(f"{len(evaluations.done)} questions with P(True) -> {evaluations.file}")


def _report(bad: Sequence[tuple[str, str]], asked: int, total: int, max_rejected: float) -> None:
    """Says what was set aside.

    Raises:
      InbolError: when it is too much.
    """
    if not bad:
        return
    say(f"{len(bad)} of {asked} questions set aside (first: {bad[0][0]}: {bad[0][1]})")
    if len(bad) > max_rejected * total:
        raise InbolError(
            f"{len(bad)} of {total} questions could not be asked, more than --max-rejected {max_rejected}"
        )


def store_file(config: ConfidenceConfig, dataset: VQADataset) -> Path:
    """Where the confidences of a dataset are (the name that the shards of several processes begin with)."""
    return config.out / "confidence" / f"{dataset.name}.jsonl"


def _relative(dataset: VQADataset, file: Path) -> str:
    """The image folder, as seen from the store: the output can be moved together with the data."""
    return os.path.relpath(dataset.root.resolve(), file.parent.resolve())
