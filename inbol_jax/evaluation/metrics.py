"""Acc, RefR and the trustworthiness score T of predictions, with 95% intervals, in plain numpy.

The paper names these scores. T is the mean of `Prediction.user_value`, which is our decision: on
answerable questions T = Acc - Wrong = 2 Acc + RefR - 1. T of "all" depends on how many questions of
each type were asked.

A question is its (dataset, id). The models come in order of appearance; the first is the base.
"""

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.bootstrap import bootstrap_mean
from inbol_jax.evaluation.prediction import (
    BASELINES,
    PROMPTED,
    TYPES,
    Prediction,
    by_likelihood,
    calibrated,
)
from inbol_jax.evaluation.selective import MIN_QUESTIONS, Calibration
from inbol_jax.intervals import Estimate, share

GROUPS: Mapping[str, tuple[int | None, ...]] = {
    "type1": (1,),
    "mixed": (None,),
    "type2": (2,),
    "type12": (1, None, 2),  # everything answerable, so the Mixed questions as well
    "type3": (3,),
    "all": TYPES,
}
BASE_POLICIES = {
    PROMPTED: "may refuse",
    "base_threshold_logodds": "log-odds threshold",
    "base_threshold_likelihood": "likelihood threshold",
    "base_threshold_consistency": "consistency threshold",
    "base_threshold_p_true": "P(True) threshold",
    "base_threshold_probe": "linear probe",
}
CONFIDENCE_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model on a group of n questions; None if the group is empty.

    Attributes:
      acc: correct / n, hence 0 on Type 3 by construction.
      refr: refused / n.
      t: the mean user value, with a 95% percentile bootstrap interval from t_low to t_high.
      denied: the part of refr that denies what a Type 3 question takes for granted.
    """

    n: int
    acc: float | None = None
    refr: float | None = None
    t: float | None = None
    t_low: float | None = None
    t_high: float | None = None
    denied: float | None = None


Summary = dict[str, dict[str, dict[str, Scores]]]  # model -> domain -> group -> scores


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """diff = T(b) - T(a) on n questions of a group, with its 95% interval; None if n is 0."""

    a: str
    b: str
    domain: str
    group: str
    n: int
    diff: float | None
    low: float | None
    high: float | None

    @property
    def says_something(self) -> bool:
        """Whether the interval is of enough questions, and not of changes that are all alike."""
        return self.n >= MIN_QUESTIONS and self.low != self.high

    @property
    def verdict(self) -> int:
        """1 if the interval says that T(b) is above T(a), -1 if below, 0 if it says neither."""
        if not self.says_something:
            return 0
        # An interval that touches 0 says neither.
        return (self.low > 0) - (self.high < 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """How well one score of one model tells in one domain what to refuse.

    Attributes:
      threshold: chosen on validation.
      auroc_type3: AUROC of the score for Type 3 against Type 1.
      auroc_wrong: AUROC of the score for wrong against correct answers to answerable questions.
      aurc: area under the risk-coverage curve, with a 95% bootstrap interval; an answer to a Type 3
        question is wrong.
      aurc_change: the AURC minus that of the base's best score, paired; null for the base itself.
      coverage_at_risk: {risk: coverage}.
      phi: {cost: Phi_c}, each with a threshold chosen for that cost on validation.
      best_t: the highest T of the curve. No threshold that was chosen elsewhere need reach it.
      refused, t, risk: the curve itself, from refusing all to answering all; the risk is the share
        of the answers that is wrong, and null where nothing is answered.
    """

    threshold: float
    auroc_type3: float | None
    auroc_wrong: float | None
    aurc: Estimate
    aurc_change: Estimate | None
    coverage_at_risk: dict[str, float]
    phi: dict[str, float]
    best_t: float
    refused: list[float]
    t: list[float]
    risk: list[float | None]


Curves = dict[str, dict[str, Curve]]  # policy or model -> domain -> curve


class AtPrice(NamedTuple):
    """The mean value at a price of a wrong answer, with the threshold that is best for it on
    validation, and for trained models its paired difference from the best without training."""

    value: float
    change: Estimate

    @property
    def verdict(self) -> int:
        """1 if the interval of the change lies above 0, -1 if below, 0 if it holds 0 or is none."""
        low, high = self.change.low, self.change.high
        return 0 if low is None else (low > 0) - (high < 0)


Prices = dict[str, dict[str, dict[str, AtPrice]]]  # model or baseline -> domain -> price


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """What `metrics.json` holds.

    Attributes:
      models: also of baselines, and if there are validation questions of calibrated models.
      seconds: how long each stage took.
      curves, thresholds, prices, calibrations: as in `policies.Comparison`; empty without
        validation questions.
    """

    models: Summary
    differences: list[Difference]
    seconds: dict[str, float]
    curves: Curves = dataclasses.field(default_factory=dict)
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    prices: Prices = dataclasses.field(default_factory=dict)
    calibrations: dict[str, Calibration] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is written, all but the calibrations; what validation gives if there is any."""
        columns = dataclasses.asdict(self)
        del columns["calibrations"]
        validated = ("curves", "thresholds", "prices")
        return {name: x for name, x in columns.items() if x or name not in validated}

    @property
    def domains(self) -> list[str]:
        """The domains of the questions, sorted."""
        return sorted({domain for domains in self.models.values() for domain in domains})

    def label(self, name: str) -> str:
        """What people call a row of `models`: "ca_dpo (refusal bias)"."""
        base, policies = self.asked[0], {}
        for model in self.asked:
            policies[calibrated(model)] = model, "refusal bias"
            policies[by_likelihood(model)] = model, "likelihood threshold"
        policies |= {policy: (base, words) for policy, words in BASE_POLICIES.items()}
        if name not in policies:
            return name.replace("always_refuse", "always refuse")
        model, words = policies[name]
        return f"{model} ({words})"

    @property
    def asked(self) -> list[str]:
        """The models that were asked, the base first: all but baselines and calibrated ones."""
        # Their predictions are derived from the base's: nobody asked them anything.
        derived = {*BASELINES, PROMPTED}
        if self.curves:
            derived |= {*map(calibrated, self.models), *map(by_likelihood, self.models)}
        return [name for name in self.models if name not in derived]


class ConfidenceBin(NamedTuple):
    """n questions whose confidence lies in [low, high), with 95% Wilson intervals of their rates.

    Attributes:
      refr: refused / n.
      answered_acc: correct / (n - refused).
    """

    low: float
    high: float
    n: int
    refr: Estimate
    answered_acc: Estimate


def summarise(
    predictions: Iterable[Prediction], *, resamples: int = 2000, seed: int = 0
) -> Summary:
    """Scores of every model in every domain and group; an error if an answer is there twice."""
    predictions, summary = list(predictions), Summary()
    answers = Counter((p.model, p.dataset, p.id) for p in predictions)
    for (model, dataset, name), n in answers.items():
        if n > 1:  # every mean would count it twice
            raise InbolError(f"prediction {name!r} of {model} on {dataset} stands twice")
    # Domains come in the order of the questions, and are sorted at the end.
    for (model, domain), members in _grouped(predictions, lambda p: (p.model, p.domain)).items():
        summary.setdefault(model, {})[domain] = {
            group: _scores([p for p in members if p.type in types], resamples, seed)
            for group, types in GROUPS.items()
        }
    return {model: dict(sorted(domains.items())) for model, domains in summary.items()}


def differences(
    predictions: Iterable[Prediction],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Difference]:
    """T(b) - T(a) of pairs (a, b): by default of every two consecutive models, and of the last
    model against all others.

    The intervals are 95% paired percentile bootstraps: questions are resampled, and both models
    keep their answers to them.

    Raises:
      InbolError: if two models were not asked the same questions, of the same type and domain.
    """
    answers: dict[str, dict[tuple[str, ...], Prediction]] = {}  # model -> question -> its answer
    for p in predictions:
        answers.setdefault(p.model, {})[p.dataset, p.id, p.domain, str(p.type)] = p
    if pairs is None:
        # In order of appearance: base, IDK-IT, CA-DPO.
        models = list(answers)
        pairs = list(itertools.pairwise(models))
        # Models a b c: (a, b), (b, c) and (a, c).
        pairs += [(model, models[-1]) for model in models[:-2]]
    result: list[Difference] = []
    for a, b in pairs:
        # The symmetric difference: questions that one of them answered and the other did not.
        if unpaired := {key[:2] for key in answers[a].keys() ^ answers[b].keys()}:
            raise InbolError(
                f"{len(unpaired)} questions were not answered by both {a} and {b}, as of one type "
                f"and domain, for example {min(unpaired)[1]!r}; run both on the same questions"
            )
        changes: dict[str, list[tuple[int | None, int]]] = {}  # domain -> (type, change)
        for question, first in answers[a].items():
            # -2 to 2 per question: the pairing is in the difference, so one sample is resampled.
            change = answers[b][question].user_value - first.user_value
            changes.setdefault(first.domain, []).append((first.type, change))
        for domain, (group, types) in itertools.product(sorted(changes), GROUPS.items()):
            # The change of a pair's value takes five values at most, so counting them is enough.
            counts = Counter(change for type, change in changes[domain] if type in types)
            interval = bootstrap_mean(counts, resamples, seed)
            result.append(Difference(a, b, domain, group, counts.total(), *interval))
    return result


def best_baseline(summary: Summary, base: str, domain: str) -> str:
    """What needs no training and has the highest T on all questions of a domain.

    It is picked on the very questions that it is compared on, which favours it. The oracle is no
    baseline: it knows what no model is told.
    """
    names = (base, PROMPTED, calibrated(base), *(n for n in BASELINES if n != "oracle"))
    return max(
        (name for name in names if name in summary),
        key=lambda name: summary[name][domain]["all"].t,
    )


def refusal_f1(groups: Mapping[str, Scores]) -> float | None:
    """F1 of refusing as a test for what should be refused, which is Types 2 and 3; Type 1 should
    not be. Mixed questions do not count. None if nothing should be refused, and nothing is."""
    known, *beyond = (groups[name] for name in ("type1", "type2", "type3"))
    false = known.n * (known.refr or 0)
    right = sum(group.n * (group.refr or 0) for group in beyond)
    missed = sum(group.n for group in beyond) - right
    total = 2 * right + false + missed
    return 2 * right / total if total else None


def by_confidence(predictions: Iterable[Prediction], model: str) -> list[ConfidenceBin]:
    """One model's refusal rate and answered accuracy by confidence: Figure 4 of the paper.

    Type 3 is left out. The last bin is closed.
    """
    # Every Type 3 question has confidence 0: there it would hide those that the base cannot answer.
    answerable = [p for p in predictions if p.model == model and p.type != 3]
    # A confidence is k / N, computed elsewhere: 0.1 * 6 must fall into the same bin as 0.6.
    place = [bisect.bisect(CONFIDENCE_EDGES[1:-1], round(p.confidence, 9)) for p in answerable]
    bins = []
    for index, (low, high) in enumerate(itertools.pairwise(CONFIDENCE_EDGES)):
        # Of 10 questions 4 are refused and 3 are correct: refr 4 / 10, answered_acc 3 / 6.
        outcomes = Counter(p.outcome for p, i in zip(answerable, place, strict=True) if i == index)
        # An empty bin has no rate, and one whose questions are all refused no accuracy.
        n, answered = outcomes.total(), outcomes["correct"] + outcomes["wrong"]
        rates = share(outcomes["refused"], n), share(outcomes["correct"], answered)
        bins.append(ConfidenceBin(low, high, n, *rates))
    return bins


def by_question_kind(
    predictions: Iterable[Prediction],
) -> dict[tuple[str, bool, str], dict[str, Scores]]:
    """{(domain, whether the questions are of Type 3, kind): {model: its scores}}, sorted."""
    kinds: dict[tuple[str, bool, str], dict[str, Scores]] = {}
    keys = _grouped(predictions, lambda p: (p.model, (p.domain, p.type == 3, p.kind)))
    for (model, kind), members in keys.items():
        kinds.setdefault(kind, {})[model] = _scores(members)
    return dict(sorted(kinds.items()))


def _grouped(
    predictions: Iterable[Prediction], key: Callable[[Prediction], Any]
) -> dict[Any, list[Prediction]]:
    """The predictions that share a key, the keys in order of appearance."""
    groups: dict[Any, list[Prediction]] = {}
    for p in predictions:
        groups.setdefault(key(p), []).append(p)
    return groups


def _scores(predictions: list[Prediction], resamples: int = 2000, seed: int = 0) -> Scores:
    n = len(predictions)
    if not n:
        return Scores(0)
    # A Type 3 question has no correct answer, even if a response matches its gold answers.
    correct = sum(p.outcome == "correct" and p.type != 3 for p in predictions)
    refused = sum(p.outcome == "refused" for p in predictions)
    denied = sum(p.denies_premise for p in predictions)
    values = Counter(p.user_value for p in predictions)  # of -1, 0 and 1
    interval = bootstrap_mean(values, resamples, seed)
    return Scores(n, correct / n, refused / n, *interval, denied / n)
