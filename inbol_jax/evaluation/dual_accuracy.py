"""Questions that count only together: accuracy of single questions, and of whole pairs.

MME asks two questions about a picture and calls the share of pictures with both right accuracy+; a
category's score is the sum of both, in points. MM-UPD pairs a question with one that has no answer,
and calls the share with both right dual accuracy. MMBench asks again with its options rotated.
"""

from collections.abc import Iterable

from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.pages.table import Table
from inbol_jax.questions import LETTERS
from inbol_jax.responses.choices import choice_score
from inbol_jax.responses.matching import CORRECT_AT

CAPTION = (
    "Questions in pairs. Right is a correct answer, and where there is none a refusal or what "
    "MM-UPD's scorer takes for one; Acc is over questions, Acc+ over pairs of which all are right "
    "(MM-UPD's dual accuracy)"
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
            right = [list(map(is_right, pair)) for pair in members]
            n = sum(map(len, right))
            single, whole = sum(map(sum, right)) / n, sum(map(all, right)) / len(right)
            name = ", ".join(filter(None, key))
            rows.append((name, str(len(right)), f"{single:.1%}", f"{whole:.1%}"))
    return Table(CAPTION, COLUMNS, rows) if rows else None


def is_right(prediction: Prediction) -> bool:
    """Whether a prediction is a correct answer, or on Type 3 a refusal.

    MM-UPD's scorer adds options to a question without a right one: the masked answer, if there is
    one, and that none is right. Who says one of these, also by its letter, is right. It asks a
    model which option a text means; here the text must hold it.
    """
    if prediction.user_value == 1 or not (prediction.type == 3 and prediction.options):
        return prediction.user_value == 1
    added = tuple(filter(None, (prediction.masked_answer, "None of the above")))
    offered = len(prediction.options)
    right = LETTERS[offered : offered + len(added)]
    return choice_score(prediction.prediction, right, (*prediction.options, *added)) >= CORRECT_AT
