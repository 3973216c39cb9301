"""The standard record of Figure 2, from a line of the confidence store."""

import math

from inbol_jax.confidence.boundary import Thresholds, classify, question_type
from inbol_jax.confidence.confidence import Estimator, sampled_accuracy
from inbol_jax.intervals import share
from inbol_jax.questions import WithOptions
from inbol_jax.records import Boundary, BoundaryRecord, Response, SampledQuestion
from inbol_jax.responses.outcome import outcome


def make_record(
    question: SampledQuestion, thresholds: Thresholds, estimator: Estimator = sampled_accuracy
) -> BoundaryRecord:
    """The standard record of a sampled question; Type 3 is Unknown with confidence 0.

    Confidence, interval and class are the estimator's; the counts are those of the samples.

    Raises:
      InbolError: as the estimator does.
    """
    example = question.example
    type3 = example.answerable is False
    estimate = share(0, question.n_samples) if type3 else estimator(question)
    boundary = Boundary.UNKNOWN if type3 else classify(estimate.value, 1, thresholds)
    responses = distinct_responses(question)
    # A dataset may have columns of its own that are called like those of `inbol extrinsic`.
    generator = example.extra.get("generator")
    generator = generator if isinstance(generator, str) else None
    about = {name: getattr(example, name) for name in WithOptions.__struct_fields__}
    return BoundaryRecord(
        **about,
        answers=example.answers,
        type=question_type(boundary, answerable=example.answerable),
        boundary=boundary,
        confidence=estimate.value,
        n_correct=0 if type3 else question.n_correct,
        n_samples=question.n_samples,
        wilson_low=estimate.low,
        wilson_high=estimate.high,
        correct=responses["correct"],
        incorrect=responses["wrong"],
        refusal=responses["refused"],
        generator=generator,
    )


def distinct_responses(question: SampledQuestion) -> dict[str, tuple[Response, ...]]:
    """The distinct responses of each outcome ("correct", "wrong", "refused"), most frequent first.

    On Type 3 every response that is no refusal is wrong. Otherwise the gold answers are correct
    responses as well, whether the model gave them or not. The first correct response is the one
    that is taught: the model's own most frequent one, of equally frequent ones the likeliest. A
    gold answer comes behind all that the model said, and what was cut, which would teach to break
    off, behind the gold answers.
    """
    example = question.example
    type3 = example.answerable is False
    outcomes: dict[str, dict[str, Response]] = {"correct": {}, "wrong": {}, "refused": {}}
    whole = {*example.answers, *(sample.text for sample in question.samples if not sample.cut)}
    for text, logprob, _, said, _ in question.samples:
        responses = outcomes["wrong" if type3 and said == "correct" else said]
        before = responses.get(text, Response(text, 0, logprob))
        responses[text] = Response(text, before.count + 1, before.logprob)
    for answer in dict.fromkeys(example.answers):
        # Nine annotators may deny the answer of the tenth, and a gold answer may be a refusal
        # ("unanswerable"): neither is a correct response.
        if outcome(example, answer) == "correct":
            outcomes["correct"].setdefault(answer, Response(answer))
    ordered = {
        name: sorted(responses.values(), key=lambda r: (-r.count, r.text))
        for name, responses in outcomes.items()
    }
    ordered["correct"].sort(
        key=lambda r: (r.text not in whole, -r.count, math.inf if r.logprob is None else -r.logprob)
    )
    return {name: tuple(responses) for name, responses in ordered.items()}
