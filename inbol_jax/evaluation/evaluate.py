"""`inbol evaluate`: several models answer the same questions; metrics and a report compare them."""

import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec

from inbol_jax.answers import AnswerStore, ImageHashes
from inbol_jax.artifacts import (
    changes,
    check_name,
    check_ours,
    read_meta,
    write_json,
    write_jsonl,
)
from inbol_jax.confidence.boundary import classify, question_type
from inbol_jax.confidence.confidence import self_consistency
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import ask_samples, asker_settings
from inbol_jax.data.check import refuse_same_names
from inbol_jax.data.folder import image_folder
from inbol_jax.data.vqa import VQADataset, load_dataset_folder, named_file
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.asking import ask, greedy, prompts_for
from inbol_jax.evaluation.browser import write_browser
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.metrics import Metrics
from inbol_jax.evaluation.policies import check_refusal_tokens, measure
from inbol_jax.evaluation.prediction import MAY_REFUSE, PROMPTED, VALIDATION, Prediction
from inbol_jax.evaluation.probe import Probe, read_probe
from inbol_jax.evaluation.report import headline, write_report
from inbol_jax.models.loading import load_pretrained
from inbol_jax.pages.table import Table
from inbol_jax.processes import one_writer
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, choose_prompt
from inbol_jax.questions import WithOptions
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engine_protocol import Engine
from inbol_jax.sampling.engines import CheckpointEngine, EndpointEngine
from inbol_jax.sampling.engines import open_engine as confidence_engine
from inbol_jax.sharding import make_mesh


@one_writer
def evaluate(config: EvaluateConfig) -> Metrics | None:
    """Writes predictions, metrics and report. Returns the metrics; of several processes none.

    Raises:
      InbolError: if something is wrong with data, models or output folder.
    """
    if config.distributed:
        ask_models(config)
        say("its share is asked; the same command without --distributed writes the results")
        return None
    start = time.monotonic()
    predicted = predictions(config)
    seconds = {"evaluation": round(time.monotonic() - start, 2)}
    return report(config, predicted, config.out, seconds)


def read_datasets(folders: Iterable[Path], limit: int | None = None) -> list[VQADataset]:
    """The datasets of folders; of each at most `limit` records.

    Raises:
      InbolError: if one cannot be read, or two have one name, or one that no file can have.
    """
    datasets = [load_dataset_folder(folder, limit=limit, judged=True) for folder in folders]
    for dataset in datasets:
        check_name(dataset.name, "dataset")
    refuse_same_names(datasets)
    return datasets


@one_writer
def predictions(config: EvaluateConfig) -> list[Prediction]:
    """What `ask_models` returns, after it is written to `predictions.jsonl`."""
    file = config.out / "predictions.jsonl"
    for name in (file.name, "metrics.json", "report.html", "predictions.html"):
        check_ours(config.out / name, file)
    predicted = ask_models(config)
    settings = msgspec.to_builtins(config, enc_hook=str) | {"out": ""}
    # The answers stay: the command of before makes its results again, and asks nothing.
    if replaced := changes(read_meta(file).get("settings", settings), settings):
        say(f"{file} was made with {'; '.join(replaced.values())}: it is replaced")
    header = {"command": "evaluate", "settings": settings}
    write_jsonl(file, (p.to_json() for p in predicted), header)
    return predicted


def ask_models(config: EvaluateConfig) -> list[Prediction]:
    """Samples the base's confidence and asks every model greedily; returns what is known of all
    questions that all models have answered.

    Raises:
      InbolError: if something is wrong with data or models, before anything is sampled.
    """
    datasets = list(zip(read_datasets(config.folders, config.limit), config.domains, strict=True))
    prompts = choose_prompts(config, [dataset.file for dataset, _ in datasets])
    base, folder = config.models[0]
    probe = config.probe and read_probe(config.probe, folder, prompts[base])
    asked = about_questions(config, datasets, prompts[base])
    predicted: list[Prediction] = []
    images = {dataset.name: ImageHashes(dataset.root) for dataset, _ in datasets}
    _warn_of_test_questions(datasets, images)
    prompted = [(PROMPTED, folder)] if config.prompted else []
    models = [(base, folder), *prompted, *config.models[1:]]
    prompts[PROMPTED] = [MayRefuse(**prompt.to_json()) for prompt in prompts[base]]
    for model, place in models:
        if model != PROMPTED:  # which is the base, and that is loaded
            engine = open_engine(config, place)
        if probe and model == base and not config.distributed:
            add_probe(probe, engine, datasets, prompts[model], asked)
        for (dataset, domain), prompt in zip(datasets, prompts[model], strict=True):
            rows = ask(
                engine,
                dataset,
                images[dataset.name],
                config.out / "answers" / model / f"{dataset.name}.jsonl",
                prompt=prompt,
                refusals=() if model == PROMPTED else config.refusals,
                label=f"{model} on {dataset.name}",
            )
            # Columns of these names are the dataset's own.
            about = dict.fromkeys(("consistency", "p_true", "probe"))
            about |= {"dataset": dataset.name, "domain": domain, "model": model}
            predicted += [
                Prediction.from_json(rows[example.id] | about | asked[dataset.name, example.id])
                for example in dataset.examples
                # The others were set aside, and reported.
                if example.id in rows and (dataset.name, example.id) in asked
            ]
        # Before the next model, which may take hours. A share of the questions does not tell.
        if config.validation and model != PROMPTED and not config.distributed:
            check_refusal_tokens([p for p in predicted if p.model == model], model)
    # A question that one model could not be asked is left out for all: differences are paired.
    answers = Counter((p.dataset, p.id) for p in predicted)
    return [p for p in predicted if answers[p.dataset, p.id] == len(models)]


def _warn_of_test_questions(
    datasets: Iterable[tuple[VQADataset, str]], images: Mapping[str, ImageHashes]
) -> None:
    """Says so if validation questions are test questions as well, in words and pictures."""
    asked: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
    for dataset, domain in datasets:
        hashes = images[dataset.name].of(name for e in dataset.examples for name in e.images)
        asked[domain == VALIDATION] |= {
            (e.question, *(hashes[name] for name in e.images)) for e in dataset.examples
        }
    if shared := len(asked[True] & asked[False]):
        say(
            f"Warning: {shared} of {len(asked[True])} questions of --validation are test questions "
            "too: thresholds chosen on them look better than they are; take others"
        )


class MayRefuse(Prompt):
    """A prompt with `MAY_REFUSE` behind every question."""

    def text(self, question: WithOptions) -> str:
        """The whole text of the user's turn."""
        told = f"{question.question} {MAY_REFUSE}"
        return super().text(msgspec.structs.replace(question, question=told))


def add_probe(
    probe: Probe,
    engine: CheckpointEngine,
    datasets: Sequence[tuple[VQADataset, str]],
    prompts: Sequence[Prompt],
    asked: dict[tuple[str, str], dict[str, int | float | None]],
) -> None:
    """Adds what the probe on the base says of each question to its columns."""
    for (dataset, _), prompt in zip(datasets, prompts, strict=True):
        scores = probe.scores(
            engine.checkpoint.asked_by(prompt),
            dataset.examples,
            dataset.root,
            batch_size=engine.batch_size,
            label=f"probe on {dataset.name}",
        )
        for id in {id for name, id in asked if name == dataset.name}:
            if id in scores:
                asked[dataset.name, id]["probe"] = scores[id]
            else:  # a question that one score lacks is left out for all
                del asked[dataset.name, id]


def choose_prompts(config: EvaluateConfig, files: Sequence[Path]) -> dict[str, list[Prompt]]:
    """{model: the prompt with which it is asked the questions of each file}; says each line once.

    Raises:
      InbolError: if a checkpoint cannot be asked.
    """
    # Most models are asked alike.
    prompts, tell = {}, functools.cache(say)
    for name, place in config.models:
        if config.endpoint_of(place):
            prompts[name] = [
                choose_prompt(config.prompt, None, [file], model=name, tell=tell) for file in files
            ]
        else:
            prompts[name] = prompts_for(place, config.prompt, files, config.refusals, tell)
    return prompts


def open_engine(config: EvaluateConfig, place: Path) -> Engine:
    """What gives the greedy answers of a model, given its place as in `config.models`."""
    options = greedy(config.max_new_tokens)
    if endpoint := config.endpoint_of(place):
        return EndpointEngine(endpoint, options, config.seed)
    mesh = make_mesh(*config.mesh, devices=jax.local_devices())
    checkpoint = load_pretrained(place, dtype=config.dtype, mesh=mesh)
    return CheckpointEngine(lambda: checkpoint, options, 0, 4 * config.batch_size)


def about_questions(
    config: EvaluateConfig, datasets: Sequence[tuple[VQADataset, str]], prompts: Sequence[Prompt]
) -> dict[tuple[str, str], dict[str, int | float | None]]:
    """{(dataset, id): columns that all models' predictions share}, from samples of the base.

    Args:
      prompts: with which the base is asked, one per dataset.
    """
    asked: dict[tuple[str, str], dict[str, int | float | None]] = {}
    base = config.models[0][1]
    if endpoint := config.endpoint_of(base):
        model: dict[str, Any] = {"endpoint": endpoint}
    else:
        model = {"model": base, "p_true": bool(config.validation)}
        model |= {"batch_size": config.batch_size, "dtype": config.dtype, "mesh": config.mesh}
    sampling = SamplingOptions(config.temperature, n=config.n, max_new_tokens=config.max_new_tokens)
    model |= {"sampling": sampling, "seed": config.seed}
    engine = None
    for (dataset, _), prompt in zip(datasets, prompts, strict=True):
        options = ConfidenceConfig(dataset.file, config.out, **model)
        engine = engine or confidence_engine(options)
        settings = asker_settings(options, engine, prompt)
        file = config.out / "samples" / f"{dataset.name}.jsonl"
        with AnswerStore(file, engine.share()[0]) as store:
            samples, _ = ask_samples(options, engine, settings, dataset, store)
            for q in samples:
                boundary = classify(q.n_correct, q.n_samples, config.thresholds)
                type = question_type(boundary, answerable=q.example.answerable)
                # Nothing that is said to a Type 3 question is correct, whatever its samples match.
                confidence = 0.0 if type == 3 else q.confidence
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
) -> Metrics:
    """Writes metrics and report of predictions into `out`. Returns the metrics.

    Args:
      seconds: {stage: how long it took}.
      other_tables: as in `write_report`.
    """
    # Thresholds are chosen on the validation questions, so nothing is reported of them.
    tested = [p for p in predicted if p.domain != VALIDATION]
    if config.validation and len(tested) == len(predicted):
        raise InbolError(
            "--validation: the predictions were made without it; give `inbol evaluate` again"
        )
    metrics = measure(predicted, tested, config.seed, seconds)
    write_json(out / "metrics.json", metrics.to_json())
    folders = {name: image_folder(file, None) for name, file in map(named_file, config.folders)}
    write_report(out, config, tested, metrics, image_folders=folders, other_tables=other_tables)
    write_browser(out, tested, folders)
    for line in headline(metrics):
        say(line)
    say(f"report -> {out / 'report.html'}")
    return metrics
