"""Is the risk that `inbol calibrate --risk` promises kept, and how much is answered?

    python benchmarks/risk_guarantee.py --predictions runs/demo/evaluation/predictions.jsonl

Questions of validation and test in domain are dealt anew into both, 1,000 times. Each time a
threshold is chosen on validation, for the likelihood of each model's own answer and for a probe,
and judged on the others. A promise may be broken in a share delta of the splits.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from inbol_jax.evaluation.policies import SCORES, columns
from inbol_jax.evaluation.prediction import PROMPTED, VALIDATION, read_predictions
from inbol_jax.evaluation.selective import coverage_at_risk, safe_threshold


@dataclasses.dataclass(frozen=True)
class Config:
    """Deal the questions anew, and count broken promises."""

    predictions: Path
    """File of `inbol evaluate` with --validation."""
    risks: tuple[float, ...] = (0.05, 0.1, 0.2)
    delta: float = 0.1
    n: int = 0
    """Validation questions; by default as many as there were."""
    splits: int = 1000
    seed: int = 0


def main(config: Config) -> None:
    predicted = [p for p in read_predictions(config.predictions) if p.model != PROMPTED]
    pooled = [p for p in predicted if p.domain in (VALIDATION, "in_domain")]
    base, *trained = dict.fromkeys(p.model for p in pooled)
    scores = {model: (model, SCORES["likelihood"]) for model in (base, *trained)}
    if pooled[0].probe is not None:
        scores["probe"] = base, SCORES["probe"]
    print("| model | risk | promises broken | nothing promised | answered | could be answered |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (model, by) in scores.items():
        some = [p for p in pooled if p.model == model]
        table = columns(some, by)
        score, correct = table["score"], table["correct"]
        n = config.n or sum(p.domain == VALIDATION for p in some)
        for risk in config.risks:
            random = np.random.default_rng(config.seed)
            broken, silent, coverage = 0, 0, []
            for _ in range(config.splits):
                order = random.permutation(len(score))
                validation, test = order[:n], order[n:]
                threshold = safe_threshold(
                    score[validation], correct[validation], risk, config.delta
                )
                answered = test[score[test] <= threshold] if threshold is not None else test[:0]
                coverage.append(len(answered) / len(test))
                silent += threshold is None
                broken += bool(len(answered)) and float((~correct[answered]).mean()) > risk
            shares = [broken / config.splits, silent / config.splits, np.mean(coverage)]
            possible = coverage_at_risk(score, correct, risk)
            cells = [f"{share:.3f}" for share in (*shares, possible)]
            print(f"| {name} | {risk:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
