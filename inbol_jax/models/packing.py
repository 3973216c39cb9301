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
        tokens = sum(len(branch.ids) for branch in branches)
        return cls(len(prefix) + tokens, tokens - sum(branch.start for branch in branches))

    @classmethod
    def fitting(cls, rows: Sequence[tuple[Sequence[int], Sequence[Branch]]]) -> "RowShape":
        """Returns the shape that holds every row.

        Tokens are rounded up to a multiple of 8, targets to a multiple of 4.
        """
        sizes = [cls.of(*row) for row in rows]
        tokens, targets = max(s.tokens for s in sizes), max(s.targets for s in sizes)
        return cls(-(-tokens // 8) * 8, -(-targets // 4) * 4)

    def holds(self, size: "RowShape") -> bool:
        """Whether a row of that size fits."""
        return size.tokens <= self.tokens and size.targets <= self.targets


def pack_row(
    prefix: Sequence[int], branches: Sequence[Branch], shape: RowShape
) -> dict[str, np.ndarray]:
    """Returns one packed row: [prefix | branch 1 | branch 2 | ... | padding].

    The positions of each branch continue where the prefix ends.

    Returns:
      with t = shape.tokens and a = shape.targets
      input_ids, positions: i32[t].
      segments: i32[t], 0 for the prefix, 1, 2, ... for the branches, -1 for padding.
      target_index: i32[a], the place of the hidden state that predicts each target.
      targets: i32[a], the target tokens.
      target_segment: i32[a], the branch of each target, 0 for padding.
    Raises:
      ValueError: if the row does not fit: nothing is cut, and callers measure rows beforehand.
    """
    # The prefix p q with the branches a b and c, in 8 tokens and 4 targets:
    #     index            0  1  2  3  4  5  6  7
    #     input_ids        p  q  a  b  c  0  0  0     targets          a  b  c  0
    #     positions        0  1  2  3  2  0  0  0     target_index     1  2  1  0
    #     segments         0  0  1  1  2 -1 -1 -1     target_segment   1  1  2  0
    # The state of q predicts a and c, that of a predicts b.
    size = RowShape.of(prefix, branches)
    if not shape.holds(size):
        raise ValueError(
            f"a row of {size.tokens} tokens and {size.targets} targets does not fit {shape}"
        )
    n = len(prefix)
    ids, positions, segments = [*prefix], [*range(n)], [0] * n
    target_index: list[int] = []
    targets: list[int] = []
    target_segment: list[int] = []
    for segment, branch in enumerate(branches, 1):
        start, length = len(ids), len(branch.ids)
        # Each token predicts the next; the end of the prefix predicts a branch's first token.
        target_index += [start + i - 1 if i else n - 1 for i in range(branch.start, length)]
        targets.extend(branch.ids[branch.start :])
        target_segment += [segment] * (length - branch.start)
        ids.extend(branch.ids)
        positions.extend(range(n, n + length))
        segments += [segment] * length

    def padded(values: list[int], size: int, fill: int = 0) -> np.ndarray:
        return np.array(values + [fill] * (size - len(values)), np.int32)

    return {
        "input_ids": padded(ids, shape.tokens),
        "positions": padded(positions, shape.tokens),
        "segments": padded(segments, shape.tokens, -1),
        "target_index": padded(target_index, shape.targets),
        "targets": padded(targets, shape.targets),
        "target_segment": padded(target_segment, shape.targets),
    }


def collate(
    rows: Sequence[Mapping[str, np.ndarray]], size: int, *, valid: int | None = None
) -> dict[str, np.ndarray]:
    """Returns the rows as a batch of exactly `size` rows, filled up with rows without targets.

    Args:
      valid: how many of the rows count, by default all; at least one row is needed to fill up with.
    """
    valid = len(rows) if valid is None else valid
    # A copy of a sound row cannot give NaN; without targets and not valid, it counts nowhere.
    rows = [*rows, *[rows[0]] * (size - len(rows))]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if "target_segment" in batch:
        batch["target_segment"][valid:] = 0
    return batch | {"valid": np.arange(size) < valid}
