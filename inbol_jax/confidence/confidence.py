"""`inbol confidence`: fill a store, say how full it is, or draw what is in it."""

import array
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_meta
from inbol_jax.confidence.boundary import Thresholds, within_noise
from inbol_jax.confidence.estimate import ConfidenceConfig, estimate, store_file
from inbol_jax.confidence.estimators import get_estimator
from inbol_jax.confidence.plot import confidence_histograms
from inbol_jax.confidence.store import check_p_true, p_true_file, read_rows, shards, with_p_true
from inbol_jax.construction.record import make_record
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset
from inbol_jax.errors import InbolError
from inbol_jax.pages.figures import save
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
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    file = store_file(config, dataset)
    files = shards(file)
    if not files:
        raise InbolError(
            f"{file}: nothing was sampled yet; run `inbol confidence` without --status and --plot first"
        )
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
    estimator = get_estimator(config.estimator)
    answered: set[str] = set()
    values, asked = array.array("d"), 0
    for file in files:
        for row in _lines(file):
            answered.add(row["id"])
            asked += "p_true" in row
            if row["answerable"] is not False and (found := estimator(row)):
                values.append(found.value)
    headers = [read_meta(file) for file in files]
    set_aside = len(dataset.rejected) + sum(h.get("set_aside", 0) for h in headers)
    pending = sum(e.id not in answered for e in dataset.examples) - sum(
        h.get("set_aside", 0) for h in headers
    )
    seconds = max(f.stat().st_mtime for f in files) - min(h.get("started", 0) for h in headers)
    new = len(answered) - sum(h.get("started_with", 0) for h in headers)
    rate = f", {new / seconds:,.1f} questions/s in the latest run" if new and seconds > 0 else ""
    mean = (
        f", mean confidence ({config.estimator}) {sum(values) / len(values):.3f}" if values else ""
    )
    evaluated = (
        f", {asked} with P(True)" if any(p_true_file(file).is_file() for file in files) else ""
    )
    say(
        f"{dataset.name}: {len(answered)} answered, {pending} pending, {set_aside} set aside{evaluated}{rate}{mean}"
    )


def plot(config: ConfidenceCommand, files: list[Path], out: Path) -> None:
    """A histogram of the confidences of answerable questions, and the share of labels that a threshold's noise could change."""
    estimator = get_estimator(config.estimator)
    rows = (
        row
        for file in files
        for row in _lines(file)
        if row["answerable"] is not False and estimator(row)
    )
    found, noisy = array.array("d"), 0
    for row in rows:
        record = make_record(row, config.thresholds, estimator)
        found.append(record.confidence)
        noisy += within_noise(record, config.thresholds)
    if not found:
        raise InbolError(f"{files[0]}: no answerable question to draw")
    share = noisy / len(found)
    title = f"{config.estimator}; {share:.0%} of the labels within noise of a threshold"
    figure = confidence_histograms(
        {title: found.tolist()}, (config.thresholds.delta_uk, config.thresholds.delta_k)
    )
    save(figure, out)
    say(
        f"{len(found)} confidences, {share:.0%} of the labels lie within sampling noise of a threshold -> {out}"
    )
