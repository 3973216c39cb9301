"""`inbol confidence`: fill a store, draw what is in it, or try prompts."""

import array
from pathlib import Path

from inbol_jax.confidence.boundary import within_noise
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimators import Estimator, estimates, get_estimator
from inbol_jax.confidence.samples import Samples, store_file
from inbol_jax.data.importing import open_dataset
from inbol_jax.errors import InbolError
from inbol_jax.progress import say


def confidence(config: ConfidenceConfig) -> None:
    """Samples, or reads what was sampled; reading loads neither JAX nor the model.

    Raises:
      InbolError: for what is wrong with the options, or if there is no store to read.
    """
    if config.try_prompts:
        from inbol_jax.confidence.try_prompts import try_prompts

        try_prompts(config)
    elif config.plot:
        dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
        plot(config, get_estimator(config.estimator), store_file(config.out, dataset.name))
    else:
        from inbol_jax.confidence.estimate import estimate

        estimate(config)


def plot(config: ConfidenceConfig, estimator: Estimator, file: Path) -> None:
    """Draws a histogram of the confidences of answerable questions, and says how many labels lie
    within noise of a threshold."""
    from inbol_jax.confidence.plot import confidence_histograms
    from inbol_jax.pages.figures import save

    if not file.is_file():
        raise InbolError(f"{file}: nothing was sampled yet; run `inbol confidence` without --plot")
    thresholds, out = config.thresholds, file.with_suffix(".png")
    values, noisy = array.array("d"), 0
    for value, low, high in estimates(Samples.open(file), estimator):
        values.append(value)
        noisy += within_noise(low, high, thresholds)
    if not values:
        raise InbolError(f"{file}: no answerable question to draw by {config.estimator}")
    share = f"{noisy / len(values):.0%}"
    title = f"{config.estimator}; {share} of the labels within noise of a threshold"
    limits = (thresholds.delta_uk, thresholds.delta_k)
    save(confidence_histograms({title: values.tolist()}, limits), out)
    say(
        f"{len(values)} confidences, {share} of the labels lie within sampling noise "
        f"of a threshold -> {out}"
    )
