"""Questions that count only together: accuracy of single questions, and of whole pairs.

MME asks two questions about a picture and calls the share of pictures with both right accuracy+; a
category's score is the sum of both, in points. MM-UPD pairs a question with one that has no answer,
and calls the share with both right dual accuracy. MMBench asks again with its options rotated.
"""

from collections.abc import Iterable

from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.pages.table import Table

CAPTION = (
    "Questions in pairs. Right is a correct answer, and a refusal where there is none; Acc is over "
    "questions, Acc+ over pairs of which all are right (MM-UPD's dual accuracy)"
)
COLUMNS = ("Set, model, kind", "Pairs", "Acc", "Acc+")
ALL = "all"


def pair_table(predictions: Iterable[Prediction]) -> Table | None:
    """A row per set and model, and per kind if there are several; None without pairs.

    Questions whose partner is not among the predictions are left out.
    """
    pairs: dict[tuple[str, str, str], list[Prediction]] = {}
    for p in predictions:
        if p.pair:
            pairs.setdefault((p.dataset, p.model, p.pair), []).append(p)
    groups: dict[tuple[str, str, str], list[list[Prediction]]] = {}
    for (dataset, model, _), members in pairs.items():
        if len(members) > 1:
            kinds = {p.kind for p in members}
            groups.setdefault((dataset, model, ALL), []).append(members)
            groups.setdefault((dataset, model, " and ".join(sorted(kinds))), []).append(members)
    several = {key[:2] for key in groups if sum(key[:2] == k[:2] for k in groups) > 2}
    rows = []
    for key, members in sorted(groups.items(), key=lambda item: (item[0][:2], item[0][2] != ALL)):
        if key[2] == ALL or key[:2] in several:
            right = [[p.user_value == 1 for p in pair] for pair in members]
            n = sum(map(len, right))
            single, whole = sum(map(sum, right)) / n, sum(map(all, right)) / len(right)
            name = ", ".join(filter(None, key))
            rows.append((name, str(len(right)), f"{single:.1%}", f"{whole:.1%}"))
    return Table(CAPTION, COLUMNS, rows) if rows else None
