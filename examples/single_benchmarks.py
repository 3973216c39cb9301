"""Scores by which single benchmarks are known, from the predictions of an evaluation.

    python examples/single_benchmarks.py run/eval/predictions.jsonl

Yes-no sets (POPE): outcomes, and beside them the F1 of two usual scorers, which refusals mislead.
The first compares the whole response with "yes" and "no": a refusal is neither, so it is no false
answer either, and a model that refuses exactly what it does not know has an F1 of 1. The second
looks for "no" or "not" among the words of the first sentence and takes anything else for a yes,
including a refusal.

Sets whose questions count only together: accuracy of single questions (Acc), and of pairs of which
all are right (Acc+). MME asks two questions about a picture and calls Acc+ accuracy+; a category's
score is the sum of both, in points. MM-UPD pairs a question with one that has no answer, and calls
Acc+ dual accuracy. MMBench asks again with its options rotated.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from inbol_jax.evaluation.prediction import Prediction, read_predictions
from inbol_jax.questions import LETTERS
from inbol_jax.responses.choices import choice_score
from inbol_jax.responses.matching import CORRECT_AT
from inbol_jax.responses.yes_no import read_yes_no

Row = tuple[str, ...]
YES_NO_COLUMNS = ("Set, model", "n", "Correct", "Wrong", "Refused", "F1 whole", "F1 word rule")
PAIR_COLUMNS = ("Set, model, kind", "Pairs", "Acc", "Acc+")
ALL = "all"


def whole_response(text: str) -> str:
    """As lmms-eval's POPE task compares it: anything but "yes" and "no" is neither."""
    return text.lower().strip()


def word_rule(text: str) -> str:
    """ "yes" or "no", as POPE's own evaluation reads it (Li et al. 2023, arXiv 2305.10355)."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def f1(pairs: list[tuple[str, Prediction]], read: Callable[[str], str]) -> float:
    """F1 of "yes" over (gold, prediction); 0 if no "yes" was read where it is gold."""
    counts = Counter((gold, read(p.prediction)) for gold, p in pairs)
    true, false, missed = counts["yes", "yes"], counts["no", "yes"], counts["yes", "no"]
    return 2 * true / (2 * true + false + missed) if true else 0.0


def yes_no_rows(predictions: Iterable[Prediction]) -> list[Row]:
    """A row per yes-no dataset and model."""
    answered: dict[tuple[str, str], list[tuple[str, Prediction]]] = {}
    for p in predictions:
        if p.answers and p.metric == "yes_no":
            gold = read_yes_no(p.answers[0])
            if gold is not None:
                answered.setdefault((p.dataset, p.model), []).append((gold, p))
    rows = []
    for key, pairs in answered.items():
        outcomes = Counter(p.outcome for _, p in pairs)
        shares = [f"{outcomes[o] / len(pairs):.1%}" for o in ("correct", "wrong", "refused")]
        f1s = [f"{f1(pairs, read):.3f}" for read in (whole_response, word_rule)]
        rows.append((", ".join(key), str(len(pairs)), *shares, *f1s))
    return rows


def pair_rows(predictions: Iterable[Prediction]) -> list[Row]:
    """A row per set and model, and per kind if there are several.

    Questions whose partner is not among the predictions are left out.
    """
    pairs: dict[tuple[str, str, str], list[Prediction]] = {}
    for p in predictions:
        if p.pair:
            pairs.setdefault((p.dataset, p.model, p.pair), []).append(p)
    groups: dict[tuple[str, str], dict[str, list[list[bool]]]] = {}
    for (dataset, model, _), members in pairs.items():
        if len(members) > 1:
            kind = " and ".join(sorted({p.kind for p in members}))
            for name in (ALL, kind):
                of_set = groups.setdefault((dataset, model), {})
                of_set.setdefault(name, []).append(list(map(is_right, members)))
    rows = []
    for key, kinds in sorted(groups.items()):
        for kind, right in kinds.items():
            if kind == ALL or len(kinds) > 2:
                single = sum(map(sum, right)) / sum(map(len, right))
                whole = sum(map(all, right)) / len(right)
                name = ", ".join(filter(None, (*key, kind)))
                rows.append((name, str(len(right)), f"{single:.1%}", f"{whole:.1%}"))
    return rows


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


def main(file: Path) -> None:
    """Prints the tables, tab-separated; none that is empty."""
    predictions = read_predictions(file)
    for columns, rows in (
        (YES_NO_COLUMNS, yes_no_rows(predictions)),
        (PAIR_COLUMNS, pair_rows(predictions)),
    ):
        if rows:
            print(*("\t".join(row) for row in (columns, *rows)), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
