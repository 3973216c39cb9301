"""What a construction gave, as numbers: by them shares are chosen, checked and counted."""

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from inbol_jax.construction.config import PAIR_KINDS, BuildConfig
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, PairKind

# The rows of the table. Mixed has no type, in the arrays 0.
TYPES = {1: "Type 1, known", 0: "mixed", 2: "Type 2, unknown", 3: "Type 3"}
# The kinds whose chosen response is a refusal.
REFUSED = (PairKind.REFUSAL_OVER_INCORRECT.number, PairKind.REFUSAL_OVER_ANSWER.number)
MAX_SIDE = 0.8  # share of refusals, or of answers, above which a warning is given
MIN_ANSWERS = 50  # instructions that answer, below which a warning is given
_OTHERS = -1  # group of all items whose group has no share of its own


class Tally:
    """One number per question, instruction or pair, in the order of the lines.

    Attributes:
      question_keys: u64[questions], random numbers that depend on the seed and the id.
      question_types: i8[questions], 1 to 3; 0 for Mixed.
      instruction_questions: u32[instructions], index of the question.
      pair_questions: u32[pairs], index of the question.
      pair_kinds: i8[pairs], the number of a `PairKind`.
      pair_keys: u64[pairs], random numbers that depend on the seed and the pair.
      n_noisy: labels within sampling noise of a threshold.
      n_unanswered: Known questions that have no correct response.
      n_without_estimate: questions that the estimator gives nothing for, which are left out.
      n_without_negatives: questions that the stores of `--negatives` do not have.
    """

    def __init__(self) -> None:
        self.question_keys, self.question_types = array("Q"), array("b")
        self.instruction_questions, self.pair_questions = array("I"), array("I")
        self.pair_kinds, self.pair_keys = array("b"), array("Q")
        self.n_noisy = self.n_unanswered = self.n_without_negatives = 0
        self.n_without_estimate = 0

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


def select(tally: Tally, config: BuildConfig) -> Selection:
    """What is kept: of the questions by --max-refusals or by type, then of their pairs by kind.

    Raises:
      InbolError: if nothing is left of a group that is to have a share, or no instruction is left
        of a class.
    """
    keep_question = np.ones(len(tally.question_types), bool)
    if config.type_shares:
        typed = tally.question_types != 0  # Mixed has no type and stays
        types, keys = tally.question_types[typed], tally.question_keys[typed]
        shares = dict(config.type_shares)
        keep_question[typed] = _keep_shares("--type-shares", shares, types, keys)
    else:
        taught = tally.instruction_questions
        types, keys = tally.question_types[taught], tally.question_keys[taught]
        keep_question[taught] = _keep_refusals(config.max_refusals, types, keys)
    keep_pair = keep_question[tally.pair_questions]
    if config.pair_shares:
        kinds, keys = tally.pair_kinds[keep_pair], tally.pair_keys[keep_pair]
        shares = {PAIR_KINDS[name]: share for name, share in config.pair_shares}
        keep_pair[keep_pair] = _keep_shares("--pair-shares", shares, kinds, keys)
    keep_instruction = keep_question[tally.instruction_questions]
    types = tally.question_types[tally.instruction_questions[keep_instruction]]
    for boundary, taught in ((Boundary.KNOWN, types == 1), (Boundary.UNKNOWN, types > 1)):
        if not taught.any():
            moved = " and the shares" if config.type_shares else ""
            raise InbolError(
                f"no question is {boundary}: nothing to teach; move the thresholds "
                f"{config.thresholds}{moved} or use more data"
            )
    return Selection(keep_instruction, keep_pair)


def _keep_refusals(most: float, types: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool[n]: the instructions to keep so that at most the share `most` of them are refusals.

    Args:
      types: i8[n], 1 to 3.
      keys: as in `_keep_shares`.
    """
    mask = np.ones(len(types), bool)
    if most == 1:
        return mask
    n = math.floor((types == 1).sum() * most / (1 - most) + 1e-6)
    place = np.zeros(len(types))  # of a refusal among those of its type, from 0 to 1
    for type in (2, 3):
        (items,) = np.nonzero(types == type)
        order = np.argsort(keys[items], kind="stable")
        place[items[order]] = (np.arange(len(items)) + 0.5) / max(1, len(items))
    (refusals,) = np.nonzero(types > 1)
    mask[refusals[np.lexsort((keys[refusals], place[refusals]))[n:]]] = False
    return mask


def _keep_shares(
    option: str, shares: Mapping[int, float], groups: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """bool[n]: the items to keep so that the shares hold and no more is left out than that takes.

    Args:
      shares: by group; the groups that it does not name get what is left of 1, in any proportion.
      groups: i8[n], the group of each item, at least 0.
      keys: u64[n], a random number of each item, on which alone the choice depends: those with the
        smallest keys are kept.
    """
    groups = np.where(np.isin(groups, list(shares)), groups, _OTHERS)
    rest = 1 - math.fsum(shares.values())
    wanted = {**shares, _OTHERS: rest if rest >= 1e-6 else 0.0}
    counts = {group: int((groups == group).sum()) for group in wanted}
    # The largest total of which every group can fill its share.
    total = min(counts[group] / share for group, share in wanted.items() if share)
    mask = np.ones(len(keys), bool)
    for group, share in wanted.items():
        n = min(counts[group], math.floor(total * share + 1e-6))
        if share and not n:
            names = {_OTHERS: "what is not named"}
            names |= dict(enumerate(PAIR_KINDS)) if option == "--pair-shares" else {}
            name = names.get(group, group)
            raise InbolError(
                f"{option}: nothing is left of {name} (there are {counts[group]}); "
                "lower its share, or use more data"
            )
        (items,) = np.nonzero(groups == group)
        mask[items[np.argsort(keys[items], kind="stable")[n:]]] = False
    return mask


def warnings(tally: Tally, selection: Selection) -> Iterator[str]:
    """Lines on what was left out for --max-refusals, and on what is too one-sided to be learnt."""
    taught = tally.question_types[tally.instruction_questions]
    kept, kinds = taught[selection.instructions], tally.pair_kinds[selection.pairs]
    if left_out := len(taught) - len(kept):
        yield (
            f"{left_out} of {len(taught)} instructions are left out for --max-refusals or "
            "--type-shares"
        )
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


def table(tally: Tally, selection: Selection) -> Iterator[str]:
    """Lines of a table: questions, instructions and pairs by type, and pairs by kind."""
    pair_types, pair_kinds = tally.pair_types[selection.pairs], tally.pair_kinds[selection.pairs]
    taught = tally.instruction_questions[selection.instructions]
    columns = {
        "questions": tally.question_types,
        "instructions": tally.question_types[taught],
        "pairs": pair_types,
    }
    for name, kind in PAIR_KINDS.items():
        columns[name.replace("_over_", " > ")] = pair_types[pair_kinds == kind]
    rows = [("", list(columns))]
    for type, name in TYPES.items():
        rows.append((name, [str((column == type).sum()) for column in columns.values()]))
    rows.append(("all", [str(len(column)) for column in columns.values()]))
    width = max(len(name) for name, _ in rows)
    for name, cells in rows:
        aligned = [cell.rjust(len(title)) for cell, title in zip(cells, columns, strict=True)]
        yield "  ".join([name.ljust(width), *aligned])
