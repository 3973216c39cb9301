"""`inbol confidence`: fill a store, say how full it is, or draw what is in it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_meta
from inbol_jax.boundary import Thresholds, make_record, within_noise
from inbol_jax.confidence.estimate import ConfidenceConfig, estimate, store_file
from inbol_jax.confidence.estimators import get_estimator
from inbol_jax.confidence.store import check_p_true, p_true_file, read_rows, shards, with_p_true
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.plots import confidence_histograms, save
from inbol_jax.progress import say


@dataclasses.dataclass(frozen=True)
class ConfidenceCommand(ConfidenceConfig):
    """Sample answers to every question of a dataset and count how many are correct.

    Attributes:
      status: say how many questions are answered, pending and set aside, and how fast; nothing is sampled.
      plot: draw the confidences that are there into OUT/confidence/NAME.png; nothing is sampled.
      thresholds: where Known, Mixed and Unknown part in the plot.
    """

    status: bool = False
    plot: bool = False
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)


def confidence(config: ConfidenceCommand) -> None:
    """Samples, or reads what was sampled.

    Raises:
      InbolError: for what is wrong with the options, or where there is no store to read.
    """
    if not (config.status or config.plot):
        estimate(config)
        return
    get_estimator(config.estimator)
    dataset = load_dataset_folder(config.data, images=config.images, max_rejected=config.max_rejected)
    file = store_file(config, dataset)
    files = shards(file)
    if not files:
        raise InbolError(f"{file}: nothing was sampled yet; run `inbol confidence` without --status and --plot first")
    if config.estimator == "p-true":
        for shard in files:
            check_p_true(shard, finished=False)
    if config.status:
        say_status(config, dataset, files)
    if config.plot:
        plot(config, files, file.with_suffix(".png"))


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return with_p_true(file, (row for _, row in read_rows(file)))


def say_status(config: ConfidenceConfig, dataset: VQADataset, files: list[Path]) -> None:
    """One line on a store, which may be growing: its latest run's rate is taken from its first to its last line."""
    rows = [row for file in files for row in _lines(file)]
    headers = [read_meta(file) for file in files]
    set_aside = len(dataset.rejected) + sum(h.get("set_aside", 0) for h in headers)
    pending = len({e.id for e in dataset.examples} - {row["id"] for row in rows}) - sum(h.get("set_aside", 0) for h in headers)
    seconds = max(f.stat().st_mtime for f in files) - min(h.get("started", 0) for h in headers)
    new = len(rows) - sum(h.get("started_with", 0) for h in headers)
    rate = f", {new / seconds:,.1f} questions/s in the latest run" if new and seconds > 0 else ""
    estimator = get_estimator(config.estimator)
    values = [found.value for row in rows if row["answerable"] is not False and (found := estimator(row))]
    mean = f", mean confidence ({config.estimator}) {sum(values) / len(values):.3f}" if values else ""
    asked = f", {sum('p_true' in row for row in rows)} with P(True)" if any(p_true_file(file).is_file() for file in files) else ""
    say(f"{dataset.name}: {len(rows)} answered, {pending} pending, {set_aside} set aside{asked}{rate}{mean}")


def plot(config: ConfidenceCommand, files: list[Path], out: Path) -> None:
    """A histogram of the confidences of answerable questions, and the share of labels that a threshold's noise could change."""
    estimator = get_estimator(config.estimator)
    rows = (row for file in files for row in _lines(file) if row["answerable"] is not False and estimator(row))
    records = [make_record(row, config.thresholds, estimator) for row in rows]
    if not records:
        raise InbolError(f"{files[0]}: no answerable question to draw")
    noisy = sum(within_noise(record, config.thresholds) for record in records) / len(records)
    title = f"{config.estimator}; {noisy:.0%} of the labels within noise of a threshold"
    figure = confidence_histograms({title: [r.confidence for r in records]}, (config.thresholds.delta_uk, config.thresholds.delta_k))
    save(figure, out)
    say(f"{len(records)} confidences, {noisy:.0%} of the labels lie within sampling noise of a threshold -> {out}")
