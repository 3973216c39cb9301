"""Acc, RefR and the trustworthiness score T of prediction rows, with bootstrap intervals. Plain Python and numpy.

The paper names Acc, RefR and a model-agnostic trustworthiness score; the user value below, which T is the mean of, is our
decision. On answerable questions T = Acc - Wrong = 2 Acc + RefR - 1. T of "all" depends on how many questions of each type
were asked: it stands beside the types, never alone.

A prediction row is one question and model; `evaluation.predict` documents its fields. A question is its (dataset, id), the
models come in order of appearance, and the first one is the base.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval

Row = Mapping[str, Any]

DOMAINS = ("in_domain", "out_of_domain")
OUTCOMES = ("correct", "refused", "wrong")
GROUPS: Mapping[str, tuple[int | None, ...]] = {
    "type1": (1,),
    "mixed": (None,),
    "type2": (2,),
    "type12": (
        1,
        None,
        2,
    ),  # "Types 1+2": everything answerable, so the Mixed ones between them as well
    "type3": (3,),
    "all": (1, None, 2, 3),
}
CONFIDENCE_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def value(outcome: str, type: int | None) -> int:
    """What a response is worth to the user: our definition, not the paper's.

    Answerable (types 1, 2 and None): correct +1, refused 0, wrong -1. Type 3: refused +1, anything else -1.
    """
    if outcome not in OUTCOMES:
        raise InbolError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
    if type == 3:
        return 1 if outcome == "refused" else -1
    return {"correct": 1, "refused": 0, "wrong": -1}[outcome]


def summarise(
    rows: Iterable[Row], *, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, dict[str, dict[str, int | float | None]]]]:
    """Acc, RefR and T for every model, domain and group of `GROUPS`.

    Returns: {model: {domain: {group: {"n", "acc", "refr", "t", "t_low", "t_high"}}}}. acc is correct / n, hence 0 on Type 3 by
      construction; t_low and t_high are a 95% percentile bootstrap over questions. With n = 0 the others are None.
    Raises:
      InbolError: where a row is not possible, or a model has answered a question twice.
    """
    cells: dict[str, dict[str, Counter[tuple[int | None, str]]]] = {}
    for row in _checked(rows):
        cells.setdefault(row["model"], {}).setdefault(row["domain"], Counter())[
            row["type"], row["outcome"]
        ] += 1
    return {
        model: {
            domain: {
                group: _summary(domains[domain], types, resamples, seed)
                for group, types in GROUPS.items()
            }
            for domain in sorted(domains)
        }
        for model, domains in cells.items()
    }


def differences(
    rows: Iterable[Row], *, resamples: int = 2000, seed: int = 0
) -> list[dict[str, str | float | None]]:
    """T(b) - T(a) over the same questions, for every two consecutive models and for the last against the first.

    Returns: [{"a", "b", "domain", "group", "diff", "low", "high"}], the interval a 95% paired percentile bootstrap: questions are
      resampled, and both models keep their answers to them. diff, low and high are None where the group is empty.
    Raises:
      InbolError: where a question has not been answered by both models, or not under the same type and domain.
    """
    asked: dict[str, dict[tuple[str, str], Row]] = {}
    for row in _checked(rows):
        asked.setdefault(row["model"], {})[row["dataset"], row["id"]] = row
    names = list(asked)
    pairs = list(itertools.pairwise(names))
    if len(names) > 2:
        pairs.append((names[0], names[-1]))
    result: list[dict[str, str | float | None]] = []
    for a, b in pairs:
        unpaired = asked[a].keys() ^ asked[b].keys()
        if unpaired:
            raise InbolError(
                f"{len(unpaired)} questions were not answered by both {a} and {b}, for example {min(unpaired)[1]!r}; "
                "run both on the same questions"
            )
        cells: dict[str, Counter[tuple[int | None, int]]] = {}
        for question, first in asked[a].items():
            second = asked[b][question]
            if (first["type"], first["domain"]) != (second["type"], second["domain"]):
                raise InbolError(
                    f"question {question[1]!r}: {a} and {b} were given another type or domain; predict both again"
                )
            change = value(second["outcome"], second["type"]) - value(
                first["outcome"], first["type"]
            )
            cells.setdefault(first["domain"], Counter())[first["type"], change] += 1
        for domain, group in itertools.product(sorted(cells), GROUPS):
            changes: Counter[int] = Counter()
            for (kind, change), count in cells[domain].items():
                if kind in GROUPS[group]:
                    changes[change] += count
            mean, low, high = _mean_and_interval(changes, resamples, seed)
            result.append(
                {
                    "a": a,
                    "b": b,
                    "domain": domain,
                    "group": group,
                    "diff": mean,
                    "low": low,
                    "high": high,
                }
            )
    return result


def by_confidence(
    rows: Iterable[Row], model: str, edges: Sequence[float | int] = CONFIDENCE_EDGES
) -> list[dict[str, int | float | None]]:
    """Refusal rate and answered accuracy of one model by confidence: Figure 4 of the paper. Answerable questions only.

    Args:
      edges: increasing; a bin is [low, high), and the last one is closed.
    Returns: a dict a bin: "low", "high", "n", "refr", "answered_acc" = correct / (n - refused), and 95% Wilson intervals
      "refr_low", "refr_high", "acc_low", "acc_high". None where nothing was asked, or nothing answered.
    Raises:
      InbolError: where a confidence lies outside the edges.
    """
    # a confidence is k / N computed somewhere else: 0.1 * 6 must fall where 0.6 does
    limits = np.round(np.asarray(edges, np.float64), 9)
    bins = [Counter[str]() for _ in limits[1:]]
    for row in _checked(rows):
        if row["model"] != model or row["type"] == 3:
            continue
        confidence = round(float(row["confidence"]), 9)
        if not limits[0] <= confidence <= limits[-1]:
            raise InbolError(
                f"question {row['id']!r}: confidence {confidence} lies outside {limits[0]} to {limits[-1]}"
            )
        index = int(np.searchsorted(limits, confidence, side="right")) - 1
        bins[min(index, len(bins) - 1)][row["outcome"]] += 1
    result = []
    for low, high, counts in zip(limits, limits[1:], bins, strict=False):
        refr, refr_low, refr_high = _rate(counts["refused"], counts.total())
        acc, acc_low, acc_high = _rate(counts["correct"], counts["correct"] + counts["wrong"])
        entry = {
            "low": float(low),
            "high": float(high),
            "n": counts.total(),
            "refr": refr,
            "answered_acc": acc,
        }
        result.append(
            entry
            | {
                "refr_low": refr_low,
                "refr_high": refr_high,
                "acc_low": acc_low,
                "acc_high": acc_high,
            }
        )
    return result


def by_kind(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Acc, RefR and T by kind of question.

    Returns: [{"model", "domain", "type3": bool, "kind", "n", "acc", "refr", "t"}], models in order of appearance, then sorted.
    """
    cells: dict[str, dict[tuple[str, bool, str], Counter[tuple[int | None, str]]]] = {}
    for row in _checked(rows):
        key = (row["domain"], row["type"] == 3, row["kind"])
        cells.setdefault(row["model"], {}).setdefault(key, Counter())[
            row["type"], row["outcome"]
        ] += 1
    return [
        {"model": model, "domain": domain, "type3": type3, "kind": kind}
        | _rates(kinds[domain, type3, kind])
        for model, kinds in cells.items()
        for domain, type3, kind in sorted(kinds)
    ]


def _checked(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, each one possible and no (model, question) twice: a repeated question would count twice in every mean."""
    seen = set()
    for row in rows:
        if row["type"] not in GROUPS["all"] or row["outcome"] not in OUTCOMES:
            raise InbolError(
                f"prediction {row['id']!r} of {row['model']}: no such type and outcome: {row['type']!r}, {row['outcome']!r}"
            )
        if row["domain"] not in DOMAINS:
            raise InbolError(
                f"prediction {row['id']!r} of {row['model']}: domain {row['domain']!r} is none of {', '.join(DOMAINS)}"
            )
        key = (row["model"], row["dataset"], row["id"])
        if key in seen:
            raise InbolError(
                f"prediction {row['id']!r} of {row['model']} on {row['dataset']} stands twice; predict again"
            )
        seen.add(key)
        yield row


def _rates(outcomes: Counter[tuple[int | None, str]]) -> dict[str, Any]:
    """{"n", "acc", "refr", "t"} from counts of (type, outcome), at least one of them positive."""
    n = outcomes.total()
    correct = sum(
        count for (kind, outcome), count in outcomes.items() if outcome == "correct" and kind != 3
    )
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused")
    total = sum(count * value(outcome, kind) for (kind, outcome), count in outcomes.items())
    return {"n": n, "acc": correct / n, "refr": refused / n, "t": total / n}


def _summary(
    outcomes: Counter[tuple[int | None, str]],
    types: tuple[int | None, ...],
    resamples: int,
    seed: int,
) -> dict[str, int | float | None]:
    chosen = Counter({key: count for key, count in outcomes.items() if key[0] in types})
    if not chosen.total():
        return {"n": 0, "acc": None, "refr": None, "t": None, "t_low": None, "t_high": None}
    values: Counter[int] = Counter()
    for (kind, outcome), count in chosen.items():
        values[value(outcome, kind)] += count
    _, low, high = _mean_and_interval(values, resamples, seed)
    return _rates(chosen) | {"t_low": low, "t_high": high}


def _mean_and_interval(
    values: Counter[int], resamples: int, seed: int
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Mean and 95% percentile bootstrap interval of integers, held as how often each occurs.

    Drawing n of n questions with replacement and counting their values is one multinomial draw over the few distinct values:
    no index is ever drawn, the cost does not grow with n, and the order of the rows cannot matter.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    n = values.total()
    if not n:
        return None, None, None
    numbers = np.array(sorted(number for number in values if values[number]))
    counts = np.array([values[int(number)] for number in numbers])
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ numbers / n
    low, high = np.percentile(means, (2.5, 97.5))
    return float(counts @ numbers / n), float(low), float(high)


def _rate(successes: int, n: int) -> tuple[float, float, float] | tuple[None, None, None]:
    return (successes / n, *wilson_interval(successes, n)) if n else (None, None, None)
