"""From the lines of a stage's file to batches: packed rows in a shuffled order, padded to a few lengths, read by each process for itself.

Batch i of a run is a function of i (grain's random access), so a run resumes from a checkpoint exactly.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jax.sharding import Mesh

from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch, RowShape, pack_row, stack
from inbol_jax.models.processor import load_pixels
from inbol_jax.sharding import local_rows, round_batch

Host = dict[str, np.ndarray]
Packed = tuple[Sequence[int], Sequence[Branch]]  # token ids of the prompt, and what may follow

WINDOW = 16  # batches that rows of like length are looked for in


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a stage trains on, or scores.

    Attributes:
      prompts, branches: token ids of each row.
      shapes: that rows are padded to, by rising length; each is a program of its own.
      images: path of each row's image.
      extra: further arrays of row i, such as a pair's confidence.
    """

    loaded: Checkpoint
    packed: Sequence[Packed]
    images: Sequence[Path]
    shapes: Sequence[RowShape]
    extra: Callable[[int], Host] = lambda index: {}

    @classmethod
    def of(
        cls,
        loaded: Checkpoint,
        packed: Sequence[Packed],
        images: Sequence[Path],
        buckets: int,
        **options: Any,
    ) -> "Rows":
        """Rows padded to as many lengths as `buckets` says."""
        return cls(loaded, packed, images, bucket_shapes(packed, buckets), **options)

    def __len__(self) -> int:
        return len(self.packed)

    @functools.cached_property
    def sizes(self) -> list[RowShape]:
        """Of each row, without padding."""
        return [RowShape.of(*row) for row in self.packed]

    def make(self, index: int, shape: RowShape) -> Host:
        """One row of a batch."""
        pixels = load_pixels(self.loaded, self.images[index])[None]
        return pack_row(*self.packed[index], shape) | {"pixel_values": pixels} | self.extra(index)

    def batch(self, indices: np.ndarray, mine: np.ndarray) -> Host:
        """Those rows of a batch that are this process's, padded to the shape that all rows of the batch fit in.

        Args:
          indices: of the rows of the whole batch; fewer than its size where the data end.
          mine: positions in the batch, see `sharding.local_rows`.
        """
        shape = next(s for s in self.shapes if all(s.holds(self.sizes[i]) for i in indices))
        own = [int(indices[i]) for i in mine if i < len(indices)]
        return stack([self.make(i, shape) for i in own or indices[:1]], len(mine), valid=len(own))


def bucket_shapes(packed: Sequence[Packed], count: int) -> list[RowShape]:
    """At most `count` shapes that every row fits in one of, each for as many rows as the others, the longest last."""
    by_length = sorted(packed, key=lambda row: RowShape.of(*row).tokens)
    shapes = [
        RowShape.fitting(by_length[: -(-len(by_length) * (i + 1) // count)]) for i in range(count)
    ]
    return list(dict.fromkeys(shapes))


def training_order(
    lengths: Sequence[int], size: int, epochs: int, seed: int, *, grouped: bool
) -> Callable[[int], np.ndarray]:
    """The rows of batch i: shuffled passes over all, cut into batches; the last one may be shorter.

    Args:
      lengths: in tokens, of every row.
      grouped: within each `WINDOW` of batches rows of like length come together, and these batches in a random order.
    """
    order = grain.MapDataset.range(len(lengths)).shuffle(seed=seed).repeat(epochs)
    if not grouped:
        batches = order.batch(size, drop_remainder=False)
        return lambda i: batches[i]
    windows = order.batch(size * WINDOW, drop_remainder=False)

    def batch(i: int) -> np.ndarray:
        number, part = divmod(i, WINDOW)
        rows = windows[number]
        rows = rows[np.argsort([lengths[row] for row in rows], kind="stable")]
        whole = len(rows) // size  # a shorter last batch stays the last one
        places = [*np.random.default_rng((seed, number)).permutation(whole).tolist(), whole]
        return rows[places[part] * size : (places[part] + 1) * size]

    return batch


def stream(
    rows: Rows, order: Callable[[int], np.ndarray], mine: np.ndarray, start: int, stop: int
) -> Iterable[Host]:
    """Batches `start` to `stop`, made ahead in a thread."""
    dataset = grain.MapDataset.range(start, stop).map(lambda i: rows.batch(order(i), mine))
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def in_order(rows: Rows, mesh: Mesh, size: int) -> Iterable[Host]:
    """All rows once, in their order, in batches of `size` or, where the devices want that, a few more."""
    size = round_batch(min(size, len(rows)), mesh)
    stops = -(-len(rows) // size)
    return stream(
        rows,
        lambda i: np.arange(i * size, min((i + 1) * size, len(rows))),
        local_rows(mesh, size),
        0,
        stops,
    )
