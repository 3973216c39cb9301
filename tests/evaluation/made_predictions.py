"""Predictions that the tests of this folder make up."""

import msgspec
import numpy as np

from inbol_jax.evaluation.metrics import Metrics, differences, summarise
from inbol_jax.evaluation.policies import measure
from inbol_jax.evaluation.prediction import VALIDATION, Forced, Prediction

HOSTILE = (
    "<script>alert('q')</script> \"quoted\" | a\npipe & "
    "<img src=http://evil/x.png onerror=alert(1)> ![i](http://evil/y.png) `"
)
MODELS = ("base", "idk_it", "ca_dpo")
TYPES = (1, None, 2, 3)


def prediction(i, outcome, type=1, **fields):
    """The prediction of question i."""
    domain = fields.get("domain", "in_domain")
    defaults = {
        "id": f"q{i}",
        "dataset": domain,
        "domain": domain,
        "model": "base",
        "images": (f"{i}.png",),
        "question": "What colour is it?",
        "answers": () if type == 3 else ("red",),
        "kind": "colour",
        "confidence": 0.0 if type == 3 else 0.5,
        "prediction": "red",
    }
    return Prediction(**(defaults | fields), type=type, outcome=outcome)


def good_and_bad(n=48, models=MODELS):
    """Predictions that get better from model to model, on every type and in both domains.

    Question 0 is hostile throughout.
    """
    random = np.random.default_rng(0)
    predictions = []
    for i in range(n):
        type = TYPES[i % 4]
        fields = {
            "dataset": "worlds",
            "domain": "in_domain" if i < n // 2 else "out_of_domain",
            "images": (f"{i % 3}.png" if i else 'a"><b>.png',),
            "question": f"What is number {i}?" if i else HOSTILE,
            "answers": () if type == 3 else ("red", "red", "blue") if i else (HOSTILE,),
            "kind": "" if i % 3 else "colour" if i else HOSTILE,
            "confidence": {1: 0.9, None: 0.5, 2: 0.1, 3: 0.0}[type],
            "prediction": f"answer {i}" if i else HOSTILE,
        }
        right = "correct" if type == 1 else "refused"
        for skill, model in enumerate(models):
            good = random.random() < 0.3 + 0.6 * skill / max(len(models) - 1, 1)
            outcome = right if good else "wrong"
            predictions.append(prediction(i, outcome, type, model=model, **fields))
    return predictions


def with_validation(predictions, seed=0):
    """The same with forced answers, and as many predictions of validation questions.

    What a model is asked to refuse has mostly the higher scores. Some forced answers refuse.
    """
    random, made = np.random.default_rng(seed), []
    for p in predictions:
        for domain in (p.domain, VALIDATION):
            hard = p.type in (2, 3)
            outcome = "refused" if random.random() < 0.05 else "wrong" if hard else "correct"
            margin, noise = 2.0 * hard - 1 + random.normal(size=2)
            said = "red" if p.outcome == "refused" else p.prediction
            forced = Forced(said, outcome, -abs(margin + noise), margin + 0.3, margin)
            tenths = random.integers(1, 11, size=2) / 10 - 0.05 * hard
            scores = dict(zip(("consistency", "p_true"), map(float, tenths), strict=True))
            scores["probe"] = margin + noise / 2
            # The same questions are in both domains, as questions of two datasets.
            dataset = p.dataset if domain == p.domain else f"{p.domain} {domain}"
            about = {"domain": domain, "dataset": dataset, "forced": forced}
            made.append(msgspec.structs.replace(p, **about, **scores))
    return made


def measured(predictions):
    """Those of them that are not of validation, and the metrics of all."""
    tested = [p for p in predictions if p.domain != VALIDATION]
    return tested, measure(predictions, tested, 0, {})


def metrics_of(predictions):
    """What `metrics.json` would hold of them."""
    return Metrics(summarise(predictions), differences(predictions), {})
