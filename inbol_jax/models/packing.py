"""Rows of tokens for the model: a prefix that branches share, each branch with the tokens that are to be learnt or scored."""

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
    """Static sizes of a packed row: tokens, and target tokens."""

    tokens: int
    targets: int

    @classmethod
    def of(cls, prefix: Sequence[int], branches: Sequence[Branch]) -> "RowShape":
        """The size of one row, without padding."""
        return cls(
            len(prefix) + sum(len(b.ids) for b in branches),
            sum(len(b.ids) - b.start for b in branches),
        )

    @classmethod
    def fitting(
        cls, rows: Sequence[tuple[Sequence[int], Sequence[Branch]]], multiple: int = 8
    ) -> "RowShape":
        """The smallest shape, in multiples, that holds every row."""
        sizes = [cls.of(*row) for row in rows]
        tokens, targets = (
            max(getattr(size, name) for size in sizes) for name in ("tokens", "targets")
        )
        return cls(-(-tokens // multiple) * multiple, -(-targets // 4) * 4)

    def holds(self, size: "RowShape") -> bool:
        """Whether a row of that size fits."""
        return size.tokens <= self.tokens and size.targets <= self.targets


def pack_row(
    prefix: Sequence[int], branches: Sequence[Branch], shape: RowShape
) -> dict[str, np.ndarray]:
    """One packed row: [prefix | branch 1 | branch 2 | ... | padding], positions of each branch going on where the prefix ends.

    Returns:
      input_ids, positions: i32[t]. segments: i32[t], 0 for the prefix, 1, 2, ... for the branches, -1 for padding.
      target_index: i32[a], where the hidden state stands that predicts the target. targets: i32[a].
      target_segment: i32[a], the target's branch, 0 for padding.
    Raises:
      ValueError: when the row does not fit: rows are measured before batches are made, and nothing is cut.
    """
    row = {
        "input_ids": np.zeros(shape.tokens, np.int32),
        "positions": np.zeros(shape.tokens, np.int32),
        "segments": np.full(shape.tokens, -1, np.int32),
        "target_index": np.zeros(shape.targets, np.int32),
        "targets": np.zeros(shape.targets, np.int32),
        "target_segment": np.zeros(shape.targets, np.int32),
    }
    n, end, target = len(prefix), len(prefix), 0
    row["input_ids"][:n], row["positions"][:n], row["segments"][:n] = prefix, np.arange(n), 0
    for segment, branch in enumerate(branches, 1):
        length, wanted = len(branch.ids), len(branch.ids) - branch.start
        if end + length > shape.tokens or target + wanted > shape.targets:
            raise ValueError(
                f"a row of {end + length} tokens and {target + wanted} targets does not fit {shape}"
            )
        row["input_ids"][end : end + length] = branch.ids
        row["positions"][end : end + length] = n + np.arange(length)
        row["segments"][end : end + length] = segment
        index = end + np.arange(branch.start, length) - 1
        if branch.start == 0:
            index[0] = n - 1  # a branch's first token is predicted from the end of the prefix
        row["target_index"][target : target + wanted] = index
        row["targets"][target : target + wanted] = branch.ids[branch.start :]
        row["target_segment"][target : target + wanted] = segment
        end, target = end + length, target + wanted
    return row


def collate(
    rows: Sequence[Mapping[str, np.ndarray]], size: int, *, valid: int | None = None
) -> dict[str, np.ndarray]:
    """Rows as one batch of exactly `size` rows: what is missing is padded with rows without targets, so that shapes stay static.

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
