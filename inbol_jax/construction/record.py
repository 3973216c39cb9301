"""The standard record of Figure 2, from a line of the confidence store."""

from inbol_jax.confidence.boundary import Thresholds, classify, question_type
from inbol_jax.confidence.estimators import Estimate, Estimator, sampled_accuracy
from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import Boundary, BoundaryRecord, Response, SampledQuestion
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal


def make_record(
    question: SampledQuestion, thresholds: Thresholds, estimator: Estimator = sampled_accuracy
) -> BoundaryRecord:
    """The standard record of a question. Confidence, interval and class are the estimator's; counts are the samples'.

    The first of `correct` is the dataset's own gold answer, unless the model gave a correct one more often. A gold answer that reads as
    a refusal ("unanswerable") is not among them. To a Type 3 question every response that is not a refusal is incorrect.

    Raises:
      InbolError: if the question lacks what the estimator needs.
    """
    example = question.example
    type3 = example.answerable is False
    generator = example.extra.get("generator")
    responses: dict[str, dict[str, Response]] = {"correct": {}, "wrong": {}, "refused": {}}
    for text, logprob, _, outcome in question.samples:
        same = responses["wrong" if type3 and outcome == "correct" else outcome]
        before = same.get(text)
        same[text] = (
            Response(text, before.count + 1, before.logprob)
            if before
            else Response(text, 1, logprob)
        )
    if not type3:
        for answer in dict.fromkeys(example.answers):
            # One annotator of ten may have said what the others deny.
            accepted = score(answer, example.answers, example.metric) >= CORRECT_AT
            if accepted and not is_refusal(answer):
                responses["correct"].setdefault(answer, Response(answer))
    n_correct, n_samples = (0 if type3 else question.n_correct), question.n_samples
    estimate = Estimate(0.0, *wilson_interval(0, n_samples)) if type3 else estimator(question)
    if estimate is None:
        raise InbolError(
            f"question {example.id}: its line in the store lacks what the estimator needs"
        )
    boundary = Boundary.UNKNOWN if type3 else classify(estimate.value, 1, thresholds)
    by_outcome = {
        name: tuple(sorted(same.values(), key=lambda r: (-r.count, r.text)))
        for name, same in responses.items()
    }
    return BoundaryRecord(
        id=example.id,
        image=example.image,
        question=example.question,
        answers=example.answers,
        type=question_type(boundary, answerable=example.answerable),
        boundary=boundary,
        confidence=estimate.value,
        n_correct=n_correct,
        n_samples=n_samples,
        wilson_low=estimate.low,
        wilson_high=estimate.high,
        correct=by_outcome["correct"],
        incorrect=by_outcome["wrong"],
        refusal=by_outcome["refused"],
        source=example.source,
        split=example.split,
        metric=example.metric,
        generator=generator,
        filters=tuple(map(str, example.extra.get("filters") or ())) if generator else (),
    )
