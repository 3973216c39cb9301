"""Packed rows of tokens: one prefix, and the branches that continue it, to be learnt or scored."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """Tokens that follow the prefix; those from `start` on are targets."""

    ids: Sequence[int]
    start: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class RowShape:
    """Static sizes of a packed row: the number of its tokens and of its target tokens."""

    tokens: int
    targets: int

    @classmethod
    def of(cls, prefix: Sequence[int], branches: Sequence[Branch]) -> "RowShape":
        """Returns the size of one row, without padding."""
        return cls(
            len(prefix) + sum(len(branch.ids) for branch in branches),
            sum(len(branch.ids) - branch.start for branch in branches),
        )

    @classmethod
    def fitting(
        cls, rows: Sequence[tuple[Sequence[int], Sequence[Branch]]], multiple: int = 8
    ) -> "RowShape":
        """Returns the smallest shape that holds every row.

        Tokens are rounded up to a multiple of `multiple`, targets to a multiple of 4.
        """
        sizes = [cls.of(*row) for row in rows]
        tokens, targets = max(s.tokens for s in sizes), max(s.targets for s in sizes)
        return cls(-(-tokens // multiple) * multiple, -(-targets // 4) * 4)

    def holds(self, size: "RowShape") -> bool:
        """Whether a row of that size fits."""
        return size.tokens <= self.tokens and size.targets <= self.targets


def pack_row(
    prefix: Sequence[int], branches: Sequence[Branch], shape: RowShape
) -> dict[str, np.ndarray]:
    """Returns one packed row: [prefix | branch 1 | branch 2 | ... | padding].

    The positions of each branch continue where the prefix ends.

    Returns: with t = shape.tokens and a = shape.targets
      input_ids, positions: i32[t].
      segments: i32[t], 0 for the prefix, 1, 2, ... for the branches, -1 for padding.
      target_index: i32[a], the place of the hidden state that predicts each target.
      targets: i32[a], the target tokens.
      target_segment: i32[a], the branch of each target, 0 for padding.
    Raises:
      ValueError: if the row does not fit: nothing is cut, and callers measure rows beforehand.
    """
    size = RowShape.of(prefix, branches)
    if not shape.holds(size):
        raise ValueError(
            f"a row of {size.tokens} tokens and {size.targets} targets does not fit {shape}"
        )
    row = {
        "input_ids": np.zeros(shape.tokens, np.int32),
        "positions": np.zeros(shape.tokens, np.int32),
        "segments": np.full(shape.tokens, -1, np.int32),
        "target_index": np.zeros(shape.targets, np.int32),
        "targets": np.zeros(shape.targets, np.int32),
        "target_segment": np.zeros(shape.targets, np.int32),
    }
    n = len(prefix)
    row["input_ids"][:n] = prefix
    row["positions"][:n] = np.arange(n)
    row["segments"][:n] = 0
    token, target = n, 0  # where the next branch begins
    for segment, branch in enumerate(branches, 1):
        length = len(branch.ids)
        place = slice(token, token + length)
        row["input_ids"][place] = branch.ids
        row["positions"][place] = n + np.arange(length)
        row["segments"][place] = segment
        predicting = token + np.arange(branch.start, length) - 1  # each token predicts the next
        if branch.start == 0:
            predicting[0] = n - 1  # the end of the prefix predicts a branch's first token
        place = slice(target, target + len(predicting))
        row["target_index"][place] = predicting
        row["targets"][place] = branch.ids[branch.start :]
        row["target_segment"][place] = segment
        token, target = token + length, target + len(predicting)
    return row


def collate(
    rows: Sequence[Mapping[str, np.ndarray]], size: int, *, valid: int | None = None
) -> dict[str, np.ndarray]:
    """Rows as one batch of exactly `size` rows: what is missing is padded with rows without
    targets, so that shapes stay static.

    Args:
      valid: how many of the rows count, by default all; at least one row is needed to pad with.
    """
    valid = len(rows) if valid is None else valid
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if missing := size - len(rows):
        batch = {
            name: np.concatenate([value, np.repeat(value[:1], missing, axis=0)])
            for name, value in batch.items()
        }
    if "target_segment" in batch:
        batch["target_segment"][valid:] = 0
    batch["valid"] = np.arange(size) < valid
    return batch
