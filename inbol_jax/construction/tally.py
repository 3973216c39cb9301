"""What a construction gave, as numbers: by them shares are chosen, checked and counted."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inbol_jax.construction.balance import keep_shares
from inbol_jax.construction.config import PAIR_KINDS, BuildConfig
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary

# The rows of the table. Mixed has no type, in the arrays 0.
TYPES = {1: "Type 1, known", 0: "mixed", 2: "Type 2, unknown", 3: "Type 3"}


@dataclasses.dataclass(frozen=True)
class Tally:
    """One number per question, instruction or pair, in the order of the lines.

    Attributes:
      question_keys: u64[questions], random numbers that depend on the seed and the id.
      question_types: i8[questions], 1 to 3; 0 for Mixed.
      instruction_questions: u32[instructions], index of the question.
      pair_questions: u32[pairs], index of the question.
      pair_kinds: i8[pairs], a `PairKind`.
      pair_keys: u64[pairs], random numbers that depend on the seed and the pair.
      n_noisy: labels within sampling noise of a threshold.
      n_unanswered: Known questions that have no correct response.
      n_without_negatives: questions that the stores of `--negatives` do not have.
    """

    question_keys: np.ndarray
    question_types: np.ndarray
    instruction_questions: np.ndarray
    pair_questions: np.ndarray
    pair_kinds: np.ndarray
    pair_keys: np.ndarray
    n_noisy: int
    n_unanswered: int
    n_without_negatives: int

    @property
    def instruction_types(self) -> np.ndarray:
        """i8[instructions], types of the questions."""
        return self.question_types[self.instruction_questions]

    @property
    def pair_types(self) -> np.ndarray:
        """i8[pairs], types of the questions."""
        return self.question_types[self.pair_questions]


class Selection(NamedTuple):
    """Which instructions, bool[instructions], and which pairs, bool[pairs], are kept."""

    instructions: np.ndarray
    pairs: np.ndarray


def select(tally: Tally, config: BuildConfig) -> Selection:
    """What is kept for the shares: of the questions by type, then of their pairs by kind.

    Raises:
      InbolError: if nothing is left of a group that is to have a share, or no instruction is left
        of a class.
    """
    keep_question = np.ones(len(tally.question_types), bool)
    if config.type_shares:
        typed = tally.question_types != 0  # Mixed has no type and stays
        types, keys = tally.question_types[typed], tally.question_keys[typed]
        names = {type: str(type) for type in TYPES}
        shares = dict(config.type_shares)
        keep_question[typed] = keep_shares("--type-shares", shares, types, keys, names)
    keep_pair = keep_question[tally.pair_questions]
    if config.pair_shares:
        kinds, keys = tally.pair_kinds[keep_pair], tally.pair_keys[keep_pair]
        names = {kind: name for name, kind in PAIR_KINDS.items()}
        shares = {PAIR_KINDS[name]: share for name, share in config.pair_shares}
        keep_pair[keep_pair] = keep_shares("--pair-shares", shares, kinds, keys, names)
    selection = Selection(keep_question[tally.instruction_questions], keep_pair)
    types = tally.instruction_types[selection.instructions]
    for boundary, empty in (
        (Boundary.KNOWN, not (types == 1).any()),
        (Boundary.UNKNOWN, not (types > 1).any()),
    ):
        if empty:
            moved = " and the shares" if config.type_shares else ""
            raise InbolError(
                f"no question is {boundary}: nothing to teach; move the thresholds "
                f"{config.thresholds}{moved} or use more data"
            )
    return selection


def table(tally: Tally, selection: Selection) -> Iterator[str]:
    """Lines of a table: questions, instructions and pairs by type, and pairs by kind."""
    pair_types, pair_kinds = tally.pair_types[selection.pairs], tally.pair_kinds[selection.pairs]
    columns = {
        "questions": tally.question_types,
        "instructions": tally.instruction_types[selection.instructions],
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
