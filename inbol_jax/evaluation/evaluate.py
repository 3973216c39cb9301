"""`inbol evaluate`: several models answer the same questions; metrics and a report compare them."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from inbol_jax.artifacts import (
    file_fingerprint,
    fingerprint,
    read_jsonl,
    read_meta,
    write_json,
    write_jsonl,
)
from inbol_jax.confidence.boundary import classify, question_type
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.confidence.store import read_store
from inbol_jax.data.vqa import data_file, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.metrics import Metrics, differences, summarise
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.evaluation.report import headline, write_report
from inbol_jax.evaluation.yes_no import yes_no_table
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate
from inbol_jax.sharding import make_mesh


def evaluate(config: EvaluateConfig) -> Metrics:
    """Writes predictions, metrics and report. Returns the metrics.

    Raises:
      InbolError: if something is wrong with data, models or output folder.
    """
    start = time.monotonic()
    predicted = predictions(config)
    seconds = {"evaluation": round(time.monotonic() - start, 2)}
    return report(config, predicted, config.out, seconds)


def predictions(config: EvaluateConfig) -> list[Prediction]:
    """Samples the base's confidence, asks every model greedily, and writes `predictions.jsonl`."""
    for _, run in config.curves:
        if not (run / "metrics.jsonl").is_file():
            raise InbolError(f"--curves {run}: the folder holds no metrics.jsonl")
    datasets = [(data, "in_domain") for data in config.in_domain]
    datasets += [(data, "out_of_domain") for data in config.out_of_domain]
    asked: dict[tuple[Path, str], dict[str, int | float | None]] = {}
    for data, _ in datasets:
        store = estimate(
            ConfidenceConfig(
                data=data,
                out=config.out,
                model=config.models[0][1],
                sampling=SamplingOptions(n=config.n, max_new_tokens=config.max_new_tokens),
                batch_size=config.batch_size,
                dtype=config.dtype,
                mesh=config.mesh,
                seed=config.seed,
            )
        )
        for q in read_store(store):
            boundary = classify(q.n_correct, q.n_samples, config.thresholds)
            type = question_type(boundary, answerable=q.example.answerable)
            confidence = 0.0 if type == 3 else q.n_correct / q.n_samples
            asked[data, q.example.id] = {"type": type, "confidence": confidence}
    predicted: list[Prediction] = []
    for model, folder in config.models:
        checkpoint = load_pretrained(folder, dtype=config.dtype, mesh=make_mesh(*config.mesh))
        for data, domain in datasets:
            file = _ask(config, model, checkpoint, data)
            about = {"dataset": file.stem, "domain": domain, "model": model}
            predicted += [
                Prediction.from_json(row | about | sampled)
                for row in read_jsonl(file)
                # The others were set aside, and reported, while the base was sampled.
                if (sampled := asked.get((data, row["id"])))
            ]
    settings = {name: str(value) for name, value in dataclasses.asdict(config).items()}
    header = {"command": "evaluate", "settings": settings}
    write_jsonl(config.out / "predictions.jsonl", (p.to_json() for p in predicted), header)
    return predicted


def _ask(config: EvaluateConfig, model: str, checkpoint: Checkpoint, data: Path) -> Path:
    """The file with one model's greedy answers to one dataset; asks only if it is not there yet."""
    dataset = load_dataset_folder(data)
    file = config.out / "predictions" / model / f"{dataset.name}.jsonl"
    settings = {
        "command": "evaluate",
        "model": checkpoint.fingerprint,
        "dtype": checkpoint.model.dtype.name,
        "dataset": file_fingerprint(data_file(data)),
        "max_new_tokens": config.max_new_tokens,
    }
    settings["config"] = fingerprint(settings)
    if read_meta(file).get("config") == settings["config"]:
        return file
    texts: dict[str, str] = {}
    for batch in generate(
        checkpoint,
        dataset.examples,
        dataset.root,
        options=SamplingOptions(n=1, temperature=0.0, max_new_tokens=config.max_new_tokens),
        seed=0,
        batch_size=4 * config.batch_size,
        label=f"{model} on {dataset.name}",
        set_aside=lambda *_: None,  # such a question gets no text
    ):
        texts |= {example.id: generations[0].text for example, generations in batch}
    rows = [
        example.to_json() | {"prediction": text, "outcome": outcome(example, text)}
        for example in dataset.examples
        if (text := texts.get(example.id)) is not None
    ]
    write_jsonl(file, rows, settings | {"set_aside": len(dataset.examples) - len(rows)})
    return file


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
    summary = summarise(predicted, seed=config.seed)
    metrics = Metrics(summary, differences(predicted, seed=config.seed), dict(seconds))
    write_json(out / "metrics.json", dataclasses.asdict(metrics))
    datasets = [load_dataset_folder(data) for data in (*config.in_domain, *config.out_of_domain)]
    records = read_jsonl(config.train / "records.jsonl") if config.train else ()
    write_report(
        out,
        config,
        predicted,
        metrics,
        curves={name: list(read_jsonl(run / "metrics.jsonl")) for name, run in config.curves},
        train_confidence=[r["confidence"] for r in records if r["type"] != 3],
        image_folders={dataset.name: dataset.root for dataset in datasets},
        other_tables=other_tables,
    )
    for line in headline(metrics):
        say(line)
    if table := yes_no_table(predicted):
        for name, *cells in table.rows:
            named = map(" ".join, zip(table.columns[1:], cells, strict=True))
            say(f"{'; '.join(named)} ({name})")
    say(f"report -> {out / 'report.html'}")
    return metrics
