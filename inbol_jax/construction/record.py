"""The standard record of Figure 2, from a line of the confidence store."""

from collections.abc import Mapping
from typing import Any

from inbol_jax.confidence.boundary import Thresholds, classify, question_type
from inbol_jax.confidence.estimators import Estimate, Estimator, sampled_accuracy
from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import METRICS, Boundary, BoundaryRecord, Response
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal


def make_record(
    row: Mapping[str, Any], thresholds: Thresholds, estimator: Estimator = sampled_accuracy
) -> BoundaryRecord:
    """The standard record of a line of the confidence store. Confidence, interval and class are the estimator's; counts are the samples'.

    Of `correct`, the first is the dataset's own gold answer, unless the model gave a correct one more often. A gold answer that reads as a
    refusal ("unanswerable") is none of them. On Type 3 whatever is not a refusal is incorrect.

    Raises:
      InbolError: where the line lacks what the estimator needs.
    """
    type3 = row["answerable"] is False
    generator = row.get("generator")
    metric = row.get("metric") or METRICS[0]
    found: dict[str, dict[str, Response]] = {"correct": {}, "wrong": {}, "refused": {}}
    for text, logprob, outcome in zip(
        row["samples"], row["logprobs"], row["outcomes"], strict=True
    ):
        if type3 and outcome == "correct":
            outcome = "wrong"
        before = found[outcome].get(text)
        found[outcome][text] = (
            Response(text, before.count + 1, before.logprob)
            if before
            else Response(text, 1, logprob)
        )
    if not type3:
        for answer in dict.fromkeys(row["answers"]):
            # One annotator of ten may have said what the others deny.
            if score(answer, row["answers"], metric) >= CORRECT_AT and not is_refusal(answer):
                found["correct"].setdefault(answer, Response(answer))
    n_correct, n_samples = (0 if type3 else row["n_correct"]), row["n_samples"]
    estimate = Estimate(0 / n_samples, *wilson_interval(0, n_samples)) if type3 else estimator(row)
    if estimate is None:
        raise InbolError(
            f"question {row['id']}: its line in the store lacks what the estimator needs"
        )
    boundary = Boundary.UNKNOWN if type3 else classify(estimate.value, 1, thresholds)
    by_outcome = {
        name: tuple(sorted(responses.values(), key=lambda r: (-r.count, r.text)))
        for name, responses in found.items()
    }
    return BoundaryRecord(
        id=row["id"],
        image=row["image"],
        question=row["question"],
        answers=tuple(row["answers"]),
        type=question_type(boundary, answerable=row["answerable"]),
        boundary=boundary,
        confidence=estimate.value,
        n_correct=n_correct,
        n_samples=n_samples,
        wilson_low=estimate.low,
        wilson_high=estimate.high,
        correct=by_outcome["correct"],
        incorrect=by_outcome["wrong"],
        refusal=by_outcome["refused"],
        source=row.get("source") or "",
        split=row.get("split") or "",
        metric=metric,
        generator=generator,
        filters=tuple(map(str, row.get("filters") or ())) if generator else (),
    )
