"""`inbol evaluate`: several models answer the same questions; metrics and a report compare them."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inbol_jax.artifacts import check_name, one_writer, read_jsonl, write_json, write_jsonl
from inbol_jax.confidence.boundary import classify, question_type
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.confidence.estimators import self_consistency
from inbol_jax.confidence.store import read_store
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import VQADataset, load_dataset_folder, refuse_same_names
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.asking import ask, greedy, prompts_for
from inbol_jax.evaluation.baselines import against_baselines, check_refusal_tokens, compare
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.metrics import Metrics, differences, summarise
from inbol_jax.evaluation.prediction import DOMAINS, VALIDATION, Prediction
from inbol_jax.evaluation.report import headline, write_report
from inbol_jax.evaluation.yes_no import yes_no_table
from inbol_jax.models.loading import load_pretrained
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, choose_prompt
from inbol_jax.records import BoundaryRecord
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engines import CheckpointEngine, EndpointEngine, Engine
from inbol_jax.sharding import make_mesh


@one_writer
def evaluate(config: EvaluateConfig) -> Metrics:
    """Writes predictions, metrics and report. Returns the metrics.

    Raises:
      InbolError: if something is wrong with data, models or output folder.
    """
    start = time.monotonic()
    inputs = read_inputs(config)
    predicted = predictions(config, inputs)
    seconds = {"evaluation": round(time.monotonic() - start, 2)}
    return report(config, predicted, config.out, seconds, inputs=inputs)


class Inputs(NamedTuple):
    """What an evaluation reads, besides models.

    Attributes:
      datasets: with the domain of each.
      curves: {name: rows of the log}.
      train_confidence: of the answerable training questions.
    """

    datasets: list[tuple[VQADataset, str]]
    curves: dict[str, list[dict[str, Any]]]
    train_confidence: list[float]


def read_inputs(config: EvaluateConfig) -> Inputs:
    """Reads them.

    Raises:
      InbolError: if one cannot be read, or two datasets have one name.
    """
    datasets = [
        (load_dataset_folder(folder), domain)
        for domain in (*DOMAINS, VALIDATION)
        for folder in getattr(config, domain)
    ]
    for dataset, _ in datasets:
        check_name(dataset.name, "dataset")
    refuse_same_names(dataset for dataset, _ in datasets)
    for _, run in config.curves:
        if not (run / "metrics.jsonl").is_file():
            raise InbolError(f"--curves {run}: the folder holds no metrics.jsonl")
    curves = {name: list(read_jsonl(run / "metrics.jsonl")) for name, run in config.curves}
    file = config.train and config.train / "records.jsonl"
    records = read_jsonl(file, BoundaryRecord.from_json) if file else ()
    return Inputs(datasets, curves, [r.confidence for r in records if r.type != 3])


@one_writer
def predictions(config: EvaluateConfig, inputs: Inputs | None = None) -> list[Prediction]:
    """Samples the base's confidence, asks every model greedily, and writes `predictions.jsonl`.

    Args:
      inputs: what `read_inputs` gives; it is called if they are not given.
    Raises:
      InbolError: if something is wrong with data or models, before anything is sampled.
    """
    datasets = (inputs or read_inputs(config)).datasets
    prompts = choose_prompts(config, [dataset.file for dataset, _ in datasets])
    asked = about_questions(config, datasets, prompts[config.models[0][0]])
    predicted: list[Prediction] = []
    # Columns of these names are the dataset's own.
    unknown = {} if config.validation else dict.fromkeys(("forced", "consistency", "p_true"))
    images = {dataset.name: ImageHashes(dataset.root) for dataset, _ in datasets}
    for model, place in config.models:
        engine = open_engine(config, place)
        of_model: list[Prediction] = []
        for (dataset, domain), prompt in zip(datasets, prompts[model], strict=True):
            rows = ask(
                engine,
                dataset,
                images[dataset.name],
                config.out / "predictions" / model / f"{dataset.name}.jsonl",
                prompt=prompt,
                refusals=config.refusals,
                label=f"{model} on {dataset.name}",
            )
            about = {"dataset": dataset.name, "domain": domain, "model": model}
            of_model += [
                Prediction.from_json(
                    rows[example.id] | unknown | about | asked[dataset.name, example.id]
                )
                for example in dataset.examples
                # The others were set aside, and reported.
                if example.id in rows and (dataset.name, example.id) in asked
            ]
        if config.validation:  # before the next model is asked, which may take hours
            check_refusal_tokens(of_model, model)
        predicted += of_model
    answers = Counter((p.dataset, p.id) for p in predicted)
    predicted = [p for p in predicted if answers[p.dataset, p.id] == len(config.models)]
    settings = {name: str(value) for name, value in dataclasses.asdict(config).items()}
    header = {"command": "evaluate", "settings": settings}
    write_jsonl(config.out / "predictions.jsonl", (p.to_json() for p in predicted), header)
    return predicted


def choose_prompts(config: EvaluateConfig, files: Sequence[Path]) -> dict[str, list[Prompt]]:
    """{model: the prompt with which it is asked the questions of each file}; says each line once.

    Raises:
      InbolError: if a checkpoint cannot be asked.
    """
    lines: dict[str, None] = {}
    prompts, tell = {}, lines.setdefault
    for name, place in config.models:
        if config.endpoint_of(place):
            prompts[name] = [
                choose_prompt(config.prompt, None, [file], model=name, tell=tell) for file in files
            ]
        else:
            prompts[name] = prompts_for(place, config.prompt, files, config.refusals, tell)
    for line in lines:
        say(line)
    return prompts


def open_engine(config: EvaluateConfig, place: Path) -> Engine:
    """What gives the greedy answers of a model, given its place as in `config.models`."""
    if endpoint := config.endpoint_of(place):
        return EndpointEngine(endpoint, greedy(config.max_new_tokens), config.seed)
    checkpoint = load_pretrained(place, dtype=config.dtype, mesh=make_mesh(*config.mesh))
    return CheckpointEngine(checkpoint, greedy(config.max_new_tokens), 0, 4 * config.batch_size)


def about_questions(
    config: EvaluateConfig, datasets: Sequence[tuple[VQADataset, str]], prompts: Sequence[Prompt]
) -> dict[tuple[str, str], dict[str, int | float | None]]:
    """{(dataset, id): columns that all models' predictions share}, from samples of the base.

    Args:
      prompts: with which the base is asked, one per dataset.
    """
    asked: dict[tuple[str, str], dict[str, int | float | None]] = {}
    folders = (*config.in_domain, *config.out_of_domain, *config.validation)
    base = config.models[0][1]
    if endpoint := config.endpoint_of(base):
        model: dict[str, Any] = {"endpoint": endpoint}
    else:
        model = {"model": base, "p_true": bool(config.validation)}
        model |= {"batch_size": config.batch_size, "dtype": config.dtype, "mesh": config.mesh}
    sampling = SamplingOptions(config.temperature, n=config.n, max_new_tokens=config.max_new_tokens)
    for (dataset, _), folder, prompt in zip(datasets, folders, prompts, strict=True):
        options = ConfidenceConfig(folder, config.out, sampling=sampling, seed=config.seed, **model)
        store = estimate(options, dataset, prompt)
        for q in read_store(store):
            boundary = classify(q.n_correct, q.n_samples, config.thresholds)
            type = question_type(boundary, answerable=q.example.answerable)
            confidence = 0.0 if type == 3 else q.n_correct / q.n_samples
            about = {"type": type, "confidence": confidence}
            if config.validation:
                # What could not be asked for P(True) is what the base is least sure of.
                about |= {"consistency": self_consistency(q).value, "p_true": q.p_true or 0.0}
            asked[dataset.name, q.example.id] = about
    return asked


def report(
    config: EvaluateConfig,
    predicted: Sequence[Prediction],
    out: Path,
    seconds: Mapping[str, float],
    other_tables: Sequence[Table] = (),
    inputs: Inputs | None = None,
) -> Metrics:
    """Writes metrics and report of predictions into `out`. Returns the metrics.

    Args:
      seconds: {stage: how long it took}.
      other_tables: as in `write_report`.
      inputs: as in `predictions`.
    """
    tested = [p for p in predicted if p.domain != VALIDATION]
    if config.validation and len(tested) == len(predicted):
        raise InbolError(
            "--validation: the predictions were made without it; give `inbol evaluate` again"
        )
    metrics = measure(predicted, tested, config.seed, seconds)
    write_json(out / "metrics.json", metrics.to_json())
    inputs = inputs or read_inputs(config)
    write_report(
        out,
        config,
        tested,
        metrics,
        curves=inputs.curves,
        train_confidence=inputs.train_confidence,
        image_folders={dataset.name: dataset.root for dataset, _ in inputs.datasets},
        other_tables=other_tables,
    )
    for line in headline(metrics):
        say(line)
    if table := yes_no_table(tested):
        for name, *cells in table.rows:
            named = map(" ".join, zip(table.columns[1:], cells, strict=True))
            say(f"{'; '.join(named)} ({name})")
    say(f"report -> {out / 'report.html'}")
    return metrics


def measure(
    predicted: Sequence[Prediction],
    tested: Sequence[Prediction],
    seed: int,
    seconds: Mapping[str, float],
) -> Metrics:
    """The metrics of the tested predictions, with those baselines that the others, which are of
    validation, allow."""
    changes = differences(tested, seed=seed)
    compared = compare(predicted, seed)
    everything = [*tested, *compared.predictions]
    summary = summarise(everything, seed=seed)
    models = list(dict.fromkeys(p.model for p in tested))
    known = {(d.a, d.b, d.domain) for d in changes}
    for d in against_baselines(summary, everything, models, seed):
        changes += [] if (d.a, d.b, d.domain) in known else [d]
    return Metrics(
        summary,
        changes,
        dict(seconds),
        compared.curves,
        compared.thresholds,
        compared.calibrations,
    )
