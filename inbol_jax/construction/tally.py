"""What a construction gave, as numbers: by them is chosen what is kept, warned of, and counted."""

import math
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, PairKind

# The rows of the table. Mixed has no type, in the arrays 0.
TYPES = {1: "Type 1, known", 0: "mixed", 2: "Type 2, unknown", 3: "Type 3"}
# The kinds whose chosen response is a refusal.
REFUSED = (PairKind.REFUSAL_OVER_INCORRECT.number, PairKind.REFUSAL_OVER_ANSWER.number)
MAX_SIDE = 0.8  # share of refusals, or of answers, above which a warning is given
MIN_ANSWERS = 50  # instructions that answer, below which a warning is given


class Tally:
    """One number per question, instruction or pair, in the order of the lines.

    Attributes:
      question_keys: u64[questions], random numbers that depend on the seed and the id.
      question_types: i8[questions], 1 to 3; 0 for Mixed.
      instruction_questions: u32[instructions], index of the question.
      pair_questions: u32[pairs], index of the question.
      pair_kinds: i8[pairs], the number of a `PairKind`.
      n_noisy: labels within sampling noise of a threshold.
      n_unanswered: Known questions that have no correct response.
      n_without_estimate: questions that the estimator gives nothing for, which are left out.
      n_not_asked: those of them of which nobody has asked yet.
      n_without_negatives: questions that the stores of `--negatives` do not have.
    """

    def __init__(self) -> None:
        self.question_keys, self.question_types = array("Q"), array("b")
        self.instruction_questions, self.pair_questions = array("I"), array("I")
        self.pair_kinds = array("b")
        self.n_noisy = self.n_unanswered = self.n_without_negatives = 0
        self.n_without_estimate = self.n_not_asked = 0

    def close(self) -> None:
        """Turns the growing arrays into numpy's, without copying them."""
        for name, value in vars(self).items():
            if isinstance(value, array):
                setattr(self, name, np.asarray(value))

    @property
    def pair_types(self) -> np.ndarray:
        """i8[pairs], types of the questions."""
        return self.question_types[self.pair_questions]


class Selection(NamedTuple):
    """Which instructions, bool[instructions], and which pairs, bool[pairs], are kept."""

    instructions: np.ndarray
    pairs: np.ndarray


def select(tally: Tally, max_refusals: float, thresholds: Thresholds) -> Selection:
    """What is kept: with an instruction that is left out go the pairs of its question.

    Raises:
      InbolError: if no instruction is left of a class.
    """
    taught = tally.instruction_questions
    types, keys = tally.question_types[taught], tally.question_keys[taught]
    keep_question = np.ones(len(tally.question_types), bool)
    keep_question[taught] = kept = _keep_refusals(max_refusals, types, keys)
    left = types[kept]
    for boundary, n in ((Boundary.KNOWN, (left == 1).sum()), (Boundary.UNKNOWN, (left > 1).sum())):
        if not n:
            raise InbolError(
                f"no question is {boundary}: nothing to teach; move the thresholds {thresholds} or "
                "use more data"
            )
    return Selection(kept, keep_question[tally.pair_questions])


def _keep_refusals(most: float, types: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool[n]: the instructions to keep so that at most the share `most` of them are refusals.

    Args:
      types: i8[n], 1 to 3.
      keys: u64[n], a random number of each: of each type those with the smallest are kept.
    """
    mask = np.ones(len(types), bool)
    if most == 1:
        return mask
    # 60 answers with at most 60% refusals: n / (n + 60) = 0.6, so n = 60 * 0.6 / 0.4 = 90.
    n = math.floor((types == 1).sum() * most / (1 - most) + 1e-6)
    place = np.zeros(len(types))  # of a refusal among those of its type, from 0 to 1
    for type in (2, 3):
        (items,) = np.nonzero(types == type)
        order = np.argsort(keys[items], kind="stable")
        place[items[order]] = (np.arange(len(items)) + 0.5) / max(1, len(items))
    (refusals,) = np.nonzero(types > 1)
    mask[refusals[np.lexsort((keys[refusals], place[refusals]))[n:]]] = False
    return mask


def table(tally: Tally, selection: Selection) -> Iterator[str]:
    """Lines of a table: questions, instructions and pairs by type, and pairs by kind."""
    pair_types, pair_kinds = tally.pair_types[selection.pairs], tally.pair_kinds[selection.pairs]
    taught = tally.instruction_questions[selection.instructions]
    columns = {
        "questions": tally.question_types,
        "instructions": tally.question_types[taught],
        "pairs": pair_types,
    }
    for kind in PairKind:
        columns[kind.replace("_over_", " > ")] = pair_types[pair_kinds == kind.number]
    rows = [("", list(columns))]
    for type, name in TYPES.items():
        rows.append((name, [str((column == type).sum()) for column in columns.values()]))
    rows.append(("all", [str(len(column)) for column in columns.values()]))
    width = max(len(name) for name, _ in rows)
    for name, cells in rows:
        aligned = [cell.rjust(len(title)) for cell, title in zip(cells, columns, strict=True)]
        yield "  ".join([name.ljust(width), *aligned])


def warnings(tally: Tally, selection: Selection) -> Iterator[str]:
    """Lines on what was left out, and on what is too one-sided to be learnt."""
    taught = tally.question_types[tally.instruction_questions]
    kept, kinds = taught[selection.instructions], tally.pair_kinds[selection.pairs]
    if left_out := len(taught) - len(kept):
        yield f"{left_out} of {len(taught)} instructions are left out for --max-refusals"
    answers = int((kept == 1).sum())
    if answers < MIN_ANSWERS:
        yield (
            f"Warning: only {answers} instructions teach an answer; fewer than {MIN_ANSWERS} teach "
            "little but to refuse. Use more data, or data that the model knows better"
        )
    for name, refused in (("instructions", kept > 1), ("pairs", np.isin(kinds, REFUSED))):
        refusals = float(refused.mean()) if len(refused) else 0.5
        if refusals > MAX_SIDE:
            yield (
                f"Warning: {refusals:.0%} of the {name} teach a refusal, and always refusing will "
                "do nearly as well. Add questions that the model knows, or lower --max-refusals"
            )
        if refusals < 1 - MAX_SIDE:
            yield (
                f"Warning: {1 - refusals:.0%} of the {name} teach an answer, and never refusing "
                "will do nearly as well. Add questions that the model does not know, or Type 3 "
                "ones by `inbol extrinsic`"
            )
    noisy = tally.n_noisy / max(1, (tally.question_types != 3).sum())
    yield f"{noisy:.0%} of the labels lie within sampling noise of a threshold"
    if tally.n_unanswered:
        yield (
            f"{tally.n_unanswered} Known questions have no correct response to teach, as nothing "
            "was judged against gold answers"
        )
