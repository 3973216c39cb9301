"""Yes-no questions (POPE): correct, wrong and refused first, and beside them the F1 of two usual scorers, which refusals mislead.

One of them compares the whole response with "yes" and "no": a refusal is neither, so it is no false answer either, and a model that
refuses exactly what it does not know has an F1 of 1. The other looks for "no" or "not" among the words of the first sentence and takes
anything else as a yes, a refusal too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from inbol_jax.pages.table import Table
from inbol_jax.records import parse_metric
from inbol_jax.responses.matching import read_yes_no

COLUMNS = (
    "Set, model",
    "n",
    "Correct",
    "Wrong",
    "Refused",
    "F1 of whole responses",
    "F1 of the word rule",
)


def whole_response(text: str) -> str:
    """The response as lmms-eval's POPE task compares it; "yes" and "no" count, anything else is neither."""
    return text.lower().strip()


def word_rule(text: str) -> str:
    """ "yes" or "no", as POPE's own evaluation reads it (Li et al. 2023, arXiv 2305.10355)."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def f1(pairs: Counter[tuple[str, str]]) -> float:
    """F1 of "yes" over counts of (gold, read); 0 where nothing was a yes. What was read as neither is in no count."""
    true, false, missed = pairs["yes", "yes"], pairs["no", "yes"], pairs["yes", "no"]
    return 2 * true / (2 * true + false + missed) if true else 0.0


def yes_no_table(rows: Iterable[Mapping[str, Any]]) -> Table | None:
    """The yes-no sets among prediction rows, a line for each set and model; None where there are none."""
    outcomes: dict[tuple[str, str], Counter[str]] = {}
    whole: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    by_words: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for row in rows:
        gold = (
            read_yes_no(row["answers"][0])
            if row["answers"] and parse_metric(row.get("metric", "vqa"))[0] == "yes_no"
            else None
        )
        if gold is None:
            continue
        key = (row["dataset"], row["model"])
        outcomes.setdefault(key, Counter())[row["outcome"]] += 1
        whole.setdefault(key, Counter())[gold, whole_response(row["prediction"])] += 1
        by_words.setdefault(key, Counter())[gold, word_rule(row["prediction"])] += 1
    if not outcomes:
        return None
    body = []
    for key, counts in outcomes.items():
        n = counts.total()
        shares = [f"{counts[outcome] / n:.1%}" for outcome in ("correct", "wrong", "refused")]
        body.append(
            (", ".join(key), str(n), *shares, f"{f1(whole[key]):.3f}", f"{f1(by_words[key]):.3f}")
        )
    return Table(
        "Yes-no questions; the F1 of usual scorers for comparison with published numbers alone: refusals mislead both",
        COLUMNS,
        body,
    )
