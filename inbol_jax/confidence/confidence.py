"""`inbol confidence`: fill a store, say how full it is, draw what is in it, or try prompts."""

import array
from pathlib import Path

from inbol_jax.artifacts import read_meta
from inbol_jax.confidence.boundary import within_noise
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.doubts import Doubts, describe_cut
from inbol_jax.confidence.estimators import Estimator, describe_mean, estimates, get_estimator
from inbol_jax.confidence.store import (
    check_data,
    check_p_true,
    p_true_file,
    read_store,
    shards,
    store_file,
)
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset
from inbol_jax.errors import InbolError
from inbol_jax.progress import say


def confidence(config: ConfidenceConfig) -> None:
    """Samples, or reads what was sampled; reading loads neither JAX nor the model.

    Raises:
      InbolError: for what is wrong with the options, or if there is no store to read, or its
        dataset was changed since.
    """
    if config.try_prompts:
        from inbol_jax.confidence.try_prompts import try_prompts

        try_prompts(config)
        return
    if not (config.status or config.plot):
        from inbol_jax.confidence.estimate import estimate

        estimate(config)
        return
    estimator = get_estimator(config.estimator)
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    file = store_file(config.out, dataset.name)
    files = shards(file)
    if not files:
        raise InbolError(
            f"{file}: nothing was sampled yet; "
            "run `inbol confidence` without --status and --plot first"
        )
    for shard in files:
        check_data(shard)
        if config.estimator == "p-true":
            check_p_true(shard, finished=False)
    if config.status:
        say_status(config, estimator, dataset, files)
    if config.plot:
        plot(config, estimator, files, file.with_suffix(".png"))


def say_status(
    config: ConfidenceConfig, estimator: Estimator, dataset: VQADataset, files: list[Path]
) -> None:
    """Says one line on a store, which may be growing, with the rate of its latest run."""
    answered: set[str] = set()
    values, evaluated, doubts = array.array("d"), 0, Doubts()
    for file in files:
        for question in read_store(file):
            answered.add(question.example.id)
            doubts.add(question)
            evaluated += question.p_true is not None
            values.extend(e.value for e in estimates([question], estimator))
    headers = [read_meta(file) for file in files]
    not_asked = sum(header.get("set_aside", 0) for header in headers)
    pending = sum(e.id not in answered for e in dataset.examples) - not_asked
    line = (
        f"{dataset.name}: {len(answered)} answered, {pending} pending, "
        f"{len(dataset.rejected) + not_asked} set aside"
    )
    if any(p_true_file(file).is_file() for file in files):
        line += f", {evaluated} with P(True)"
    started = min(header.get("started", 0) for header in headers)
    seconds = max(file.stat().st_mtime for file in files) - started
    new = len(answered) - sum(header.get("started_with", 0) for header in headers)
    if new and seconds > 0:
        line += f", {new / seconds:,.1f} questions/s in the latest run"
    line += describe_mean(config.estimator, values)
    say(line + describe_cut(doubts.n_cut, doubts.n_samples))


def plot(config: ConfidenceConfig, estimator: Estimator, files: list[Path], out: Path) -> None:
    """Draws a histogram of the confidences of answerable questions, and says how many labels lie
    within noise of a threshold."""
    from inbol_jax.confidence.plot import confidence_histograms
    from inbol_jax.pages.figures import save

    thresholds = config.thresholds
    values, noisy = array.array("d"), 0
    for file in files:
        for value, low, high in estimates(read_store(file), estimator):
            values.append(value)
            noisy += within_noise(low, high, thresholds)
    if not values:
        raise InbolError(f"{files[0]}: no answerable question to draw")
    share = f"{noisy / len(values):.0%}"
    title = f"{config.estimator}; {share} of the labels within noise of a threshold"
    limits = (thresholds.delta_uk, thresholds.delta_k)
    save(confidence_histograms({title: values.tolist()}, limits), out)
    say(
        f"{len(values)} confidences, {share} of the labels lie within sampling noise "
        f"of a threshold -> {out}"
    )
