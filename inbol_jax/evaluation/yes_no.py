"""Yes-no questions (POPE): outcomes first, and beside them the F1 of two usual scorers.

Refusals mislead both scorers. The first compares the whole response with "yes" and "no": a
refusal is neither, so it is no false answer either, and a model that refuses exactly what it does
not know has an F1 of 1. The second looks for "no" or "not" among the words of the first sentence
and takes anything else for a yes, including a refusal.
"""

from collections import Counter
from collections.abc import Iterable

from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.pages.table import Table
from inbol_jax.records import parse_metric
from inbol_jax.responses.yes_no import read_yes_no

CAPTION = (
    "Yes-no questions. The F1 of two usual scorers serves only to compare with published numbers: "
    "refusals mislead both"
)
COLUMNS = ("Set, model", "n", "Correct", "Wrong", "Refused")
COLUMNS += ("F1 of whole responses", "F1 of the word rule")


def whole_response(text: str) -> str:
    """As lmms-eval's POPE task compares it: anything but "yes" and "no" is neither."""
    return text.lower().strip()


def word_rule(text: str) -> str:
    """ "yes" or "no", as POPE's own evaluation reads it (Li et al. 2023, arXiv 2305.10355)."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def f1(pairs: Counter[tuple[str, str]]) -> float:
    """F1 of "yes" over counts of (gold, read); 0 if no "yes" was read where it is gold."""
    true, false, missed = pairs["yes", "yes"], pairs["no", "yes"], pairs["yes", "no"]
    return 2 * true / (2 * true + false + missed) if true else 0.0


def yes_no_table(predictions: Iterable[Prediction]) -> Table | None:
    """A row per yes-no dataset and model; None if there is no yes-no question."""
    answered: dict[tuple[str, str], list[tuple[str, Prediction]]] = {}
    for p in predictions:
        if p.answers and parse_metric(p.metric)[0] == "yes_no":
            gold = read_yes_no(p.answers[0])
            if gold is not None:
                answered.setdefault((p.dataset, p.model), []).append((gold, p))
    rows = []
    for key, pairs in answered.items():
        outcomes = Counter(p.outcome for _, p in pairs)
        shares = [f"{outcomes[o] / len(pairs):.1%}" for o in ("correct", "wrong", "refused")]
        f1s = [
            f1(Counter((gold, read(p.prediction)) for gold, p in pairs))
            for read in (whole_response, word_rule)
        ]
        rows.append((", ".join(key), str(len(pairs)), *shares, *(f"{score:.3f}" for score in f1s)))
    return Table(CAPTION, COLUMNS, rows) if rows else None
