"""`evaluate.py`: several models answer the same questions; metrics and report say what they learnt."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import (
    file_fingerprint,
    fingerprint,
    read_jsonl,
    read_meta,
    write_json,
    write_jsonl,
)
from inbol_jax.confidence.boundary import Thresholds, classify, question_type
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.data.vqa import data_file, load_dataset_folder
from inbol_jax.defaults import TINY, Dtype
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import differences, summarise
from inbol_jax.evaluation.report import headline, write_report
from inbol_jax.evaluation.yes_no import yes_no_table
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate
from inbol_jax.sharding import make_mesh

Counts = Mapping[str, tuple[int, int]]  # id -> correct samples, samples


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Ask several models the same questions, greedily, and write predictions, metrics and the report.

    Attributes:
      in_domain: dataset folders like those of training.
      out_of_domain: dataset folders unlike them.
      out: gets confidence/, predictions.jsonl, metrics.json, report.html and report.md.
      models: name and checkpoint folder of each; the first is the base, whose confidence sorts the questions into types.
      curves: name and run folder of training stages whose curves the report shows.
      train: folder of `inbol build` for the histogram of training confidences.
      thresholds: where Known, Mixed and Unknown part.
      n: samples a question for the confidence.
      max_new_tokens: longest answer.
      batch_size: questions at a time; a CPU takes as many as suit it.
      dtype: of the models; auto is float32 for a float32 checkpoint and bfloat16 for any other.
      mesh: number of devices along data, fsdp and tensor; -1 takes what the others leave.
      seed: of the confidence's samples, the bootstrap and the report's gallery.
    """

    in_domain: tuple[Path, ...]
    out: Path
    out_of_domain: tuple[Path, ...] = ()
    models: tuple[tuple[str, Path], ...] = (("base", TINY),)
    curves: tuple[tuple[str, Path], ...] = ()
    train: Path | None = None
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    n: int = 10
    max_new_tokens: int = 12
    batch_size: int = 128
    dtype: Dtype = "auto"
    mesh: tuple[int, int, int] = (-1, 1, 1)
    seed: int = 0


def predict(
    config: EvaluateConfig,
    name: str,
    loaded: Checkpoint,
    data: Path,
    domain: str,
    confidence: Counts,
) -> list[dict[str, Any]]:
    """One model's greedy answers to one dataset, as rows of predictions.jsonl; read from the disk where they are already there."""
    dataset = load_dataset_folder(data)
    file = config.out / "predictions" / name / f"{dataset.name}.jsonl"
    settings = {
        "command": "evaluate",
        "model": loaded.fingerprint,
        "dtype": loaded.model.dtype.name,
        "dataset": file_fingerprint(data_file(data)),
        "max_new_tokens": config.max_new_tokens,
    }
    identity = fingerprint(settings)
    if read_meta(file).get("config") != identity:
        options = SamplingOptions(n=1, temperature=0.0, max_new_tokens=config.max_new_tokens)
        bad: list[str] = []
        rows = {
            example.id: example.to_json()
            | {"prediction": g[0].text, "outcome": outcome(example, g[0].text)}
            for batch in generate(
                loaded,
                dataset.examples,
                dataset.root,
                options=options,
                seed=0,
                batch_size=4 * config.batch_size,
                label=f"{name} on {dataset.name}",
                set_aside=lambda example, reason: bad.append(reason),
            )
            for example, g in batch
        }
        write_jsonl(
            file,
            (rows[e.id] for e in dataset.examples if e.id in rows),
            settings | {"config": identity, "set_aside": len(bad)},
        )
    found = []
    for row in read_jsonl(file):
        counts = confidence.get(row["id"])
        if counts is None:
            continue  # set aside when its confidence was sampled, and reported there
        type = question_type(classify(*counts, config.thresholds), answerable=row["answerable"])
        found.append(
            {
                "id": row["id"],
                "dataset": dataset.name,
                "domain": domain,
                "model": name,
                "image": row["image"],
                "question": row["question"],
            }
            | {"answers": row["answers"], "type": type}
            | {
                "kind": str(row.get("kind", "")),
                "confidence": 0.0 if type == 3 else counts[0] / counts[1],
            }
            | {"prediction": row["prediction"], "outcome": row["outcome"]}
            | {column: row[column] for column in ("metric",) if column in row}
        )
    return found


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Writes predictions, metrics and report. Returns the metrics.

    Raises:
      InbolError: for what is wrong with data, models or output folder.
    """
    start = time.monotonic()
    rows = predictions(config)
    return report(config, rows, config.out, {"evaluation": round(time.monotonic() - start, 2)})


def predictions(config: EvaluateConfig) -> list[dict[str, Any]]:
    """Confidence of the base and greedy answers of every model: the rows of predictions.jsonl."""
    if not config.in_domain:
        raise InbolError("--in-domain needs at least one dataset folder")
    if not config.models:
        raise InbolError("--models needs at least one name and checkpoint folder")
    if len({name for name, _ in config.models}) < len(config.models):
        raise InbolError("--models: two models have one name")
    for _, run in config.curves:
        if not (run / "metrics.jsonl").is_file():
            raise InbolError(f"--curves {run}: the folder holds no metrics.jsonl")
    datasets = [(d, "in_domain") for d in config.in_domain] + [
        (d, "out_of_domain") for d in config.out_of_domain
    ]
    base = config.models[0][1]
    sampling = {
        "sampling": SamplingOptions(n=config.n, max_new_tokens=config.max_new_tokens),
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    sampling |= {"dtype": config.dtype, "mesh": config.mesh}
    counts: dict[Path, Counts] = {}
    for data, _ in datasets:
        file = estimate(ConfidenceConfig(data, config.out, base, **sampling))
        counts[data] = {row["id"]: (row["n_correct"], row["n_samples"]) for row in read_jsonl(file)}
    rows: list[dict[str, Any]] = []
    for name, model in config.models:
        loaded = load_pretrained(model, dtype=config.dtype, mesh=make_mesh(*config.mesh))
        for data, domain in datasets:
            rows += predict(config, name, loaded, data, domain, counts[data])
    write_jsonl(
        config.out / "predictions.jsonl",
        rows,
        {"command": "evaluate", "settings": _settings(config)},
    )
    return rows


def report(
    config: EvaluateConfig,
    rows: list[dict[str, Any]],
    out: Path,
    seconds: Mapping[str, float],
    other_tables: Sequence[Table] = (),
) -> dict[str, Any]:
    """Metrics and report of predictions, into `out`, beside `other_tables` of what was measured elsewhere. Returns the metrics."""
    metrics = {
        "models": summarise(rows, seed=config.seed),
        "differences": differences(rows, seed=config.seed) if len(config.models) > 1 else [],
        "seconds": dict(seconds),
    }
    write_json(out / "metrics.json", metrics)
    datasets = [load_dataset_folder(data) for data in (*config.in_domain, *config.out_of_domain)]
    write_report(
        out,
        rows=rows,
        metrics=metrics,
        curves={name: list(read_jsonl(run / "metrics.jsonl")) for name, run in config.curves},
        train_confidence=_train_confidence(config.train),
        thresholds=(config.thresholds.delta_uk, config.thresholds.delta_k),
        settings=_settings(config),
        seconds=seconds,
        image_folders={dataset.name: dataset.root for dataset in datasets},
        seed=config.seed,
        other_tables=other_tables,
    )
    for line in headline(metrics):
        say(line)
    if table := yes_no_table(rows):
        for row in table.rows:
            say(
                "; ".join(
                    f"{name} {cell}" for name, cell in zip(table.columns[1:], row[1:], strict=True)
                )
                + f" ({row[0]})"
            )
    say(f"report -> {out / 'report.html'}")
    return metrics


def _settings(config: EvaluateConfig) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(config).items()}


def _train_confidence(train: Path | None) -> list[float]:
    return (
        []
        if train is None
        else [row["confidence"] for row in read_jsonl(train / "records.jsonl") if row["type"] != 3]
    )
