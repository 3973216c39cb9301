"""From the lines of a file to batches: packed rows in a shuffled order, padded to a few lengths,
read by each process for itself.

Batch i of a run is a function of i (grain's random access), so a run resumes from a checkpoint
exactly.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import is_finished, meta_path, read_jsonl, read_meta
from inbol_jax.data.folder import Unusable, image_check, image_folder
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import READERS, load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import Grid, padded_tiles
from inbol_jax.processes import from_all, is_main
from inbol_jax.progress import say
from inbol_jax.records import Instruction, Preference
from inbol_jax.sharding import local_rows, round_batch
from inbol_jax.training.config import TrainConfig
from inbol_jax.training.settings import Schedule

HostBatch = dict[str, np.ndarray]
# Token ids of a prompt, and the branches that may follow it.
PackedRow = tuple[Sequence[int], Sequence[Branch]]

Line = TypeVar("Line", Instruction, Preference)

WINDOW = 32  # batches among which rows of similar length are grouped
MAX_WASTE = 0.04  # of the tokens; batches between two lengths add about one per cent
MAX_BUCKETS = 8  # that are made by themselves


@dataclasses.dataclass(frozen=True)
class DataFile(Generic[Line]):
    """What a file that is trained on held when it was read."""

    lines: list[Line]
    images: list[list[Path]]
    """The paths of each line's images."""
    fingerprint: str = ""
    """Of the bytes that were read, as `artifacts.file_fingerprint` of the file."""

    @functools.cached_property
    def pictures(self) -> str:
        """The fingerprint of the images' bytes, which reads each of them once."""
        return picture_fingerprint(path for paths in self.images for path in paths)


@dataclasses.dataclass(frozen=True)
class PackedDataset:
    """Tokenized rows with their images, packed into batches when they are asked for."""

    checkpoint: Checkpoint
    """The model, whose processor prepares the images."""
    file: DataFile
    """What the rows are made of, one per line."""
    rows: Sequence[PackedRow]
    grids: Sequence[tuple[Grid, ...]]
    """How each row's images are cut, whose tokens are in its prompt."""
    shapes: Sequence[RowShape]
    """The shapes that rows are padded to, by rising length. Each is a program of its own."""
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Further arrays with one value per row, such as a pair's confidence."""

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def sizes(self) -> list[RowShape]:
        """The size of each row, without padding."""
        return [RowShape.of(*row) for row in self.rows]

    def pack(self, index: int, shape: RowShape, tiles: int) -> HostBatch:
        """One row of a batch, its images padded to so many tiles."""
        row, images = pack_row(*self.rows[index], shape), self.file.images[index]
        row |= load_image_inputs(self.checkpoint, images, self.grids[index], tiles)
        return row | {name: values[index] for name, values in self.columns.items()}

    def batch(self, indices: np.ndarray, mine: np.ndarray) -> HostBatch:
        """This process's rows of a batch, padded to the smallest shape, and to the smallest static
        number of tiles, that all rows of the batch fit in. Args: as of `read_batch`.
        """
        sizes = [self.sizes[i] for i in indices]
        # All processes decide by the rows of the whole batch, so that all run the same program.
        shape = next(s for s in self.shapes if all(s.holds(size) for size in sizes))
        tiles = padded_tiles(max(sum(grid.tiles for grid in self.grids[i]) for i in indices))
        return read_batch(lambda i: self.pack(i, shape, tiles), indices, mine)


def read_batch(
    read: Callable[[int], HostBatch], indices: np.ndarray, mine: np.ndarray
) -> HostBatch:
    """This process's rows of a batch, read in threads.

    Args:
      read: makes the arrays of a row from its index.
      indices: the rows of the whole batch. At the end of the data there may be too few.
      mine: positions in the batch, see `sharding.local_rows`.
    """
    local = [int(indices[i]) for i in mine if i < len(indices)]
    # A process without rows reads one to take the shapes from; it does not count.
    rows = list(READERS.map(read, local or [int(indices[0])]))
    return collate(rows, len(mine), valid=len(local))


def tokenize(
    checkpoint: Checkpoint,
    file: DataFile,
    texts: Sequence[tuple[str, Sequence[str]]],
    columns: Mapping[str, np.ndarray] | None = None,
    *,
    buckets: int = 0,
) -> PackedDataset:
    """Images and prompt once per row, then each response as a branch, whose tokens are targets.

    Args:
      file: the lines that the rows are made of.
      texts: question and responses of each row.
      columns: see `PackedDataset`.
      buckets: as in `bucket_shapes`.
    """
    encoder, rows = make_text_encoder(checkpoint), []
    grids = [encoder.grids(paths) for paths in file.images]
    for (question, responses), cut in zip(texts, grids, strict=True):
        # start = 0: every token of a response is a target, its end included.
        branches = [Branch(encoder.response(question, text, cut)) for text in responses]
        rows.append((encoder.prompt(question, cut), branches))
    shapes = bucket_shapes(rows, buckets)
    return PackedDataset(checkpoint, file, rows, grids, shapes, columns or {})


def bucket_shapes(rows: Sequence[PackedRow], count: int = 0) -> list[RowShape]:
    """At most `count` shapes, the longest last, each for about as many rows as the others.

    Args:
      count: with 0 there are as few shapes as leave less than `MAX_WASTE` of padding beside what
        rounding their lengths makes, and at most `MAX_BUCKETS`.
    """
    fitted = [RowShape.fitting([row]) for row in rows]
    lengths, targets = np.array([(shape.tokens, shape.targets) for shape in fitted]).T
    ordered = np.sort(lengths)
    for k in [count] if count else range(1, MAX_BUCKETS + 1):
        # The longest rows of k parts: of ten rows in three parts, those with indices 3, 6 and 9.
        longest = np.unique(ordered[[-(-len(rows) * i // k) - 1 for i in range(1, k + 1)]])
        padded = longest[np.searchsorted(longest, ordered)]
        if 1 - ordered.sum() / padded.sum() < MAX_WASTE:
            break
    # Shorter rows may be padded to a longer shape, which so needs the targets of all of them.
    return [RowShape(int(n), int(targets[lengths <= n].max())) for n in longest]


def training_order(
    lengths: Sequence[int], size: int, epochs: int, seed: int, *, grouped: bool
) -> Callable[[int], np.ndarray]:
    """The rows of batch i: shuffled passes over all rows, cut into batches. The last may be
    shorter.

    Args:
      lengths: tokens of each row.
      grouped: within each `WINDOW` of batches, rows of similar length are batched together. The
        order of these batches is random.
    """
    # A function of the index alone: row i of all epochs is known without those before it.
    order = grain.MapDataset.range(len(lengths)).shuffle(seed=seed).repeat(epochs)
    if not grouped:
        batches = order.batch(size, drop_remainder=False)
        return lambda i: batches[i]
    windows = order.batch(size * WINDOW, drop_remainder=False)

    @functools.lru_cache(maxsize=2)  # a window over several passes costs grain 0.3 s
    def window(number: int) -> np.ndarray:
        # 32 batches of 8: 256 random rows, sorted by length, then cut into batches of 8 neighbours.
        rows = windows[number]
        return rows[np.argsort([lengths[row] for row in rows], kind="stable")]

    def batch(i: int) -> np.ndarray:
        number, part = divmod(i, WINDOW)
        rows = window(number)
        whole = len(rows) // size  # a shorter last batch stays the last one
        # A short batch has another shape of its own, so it comes last whatever its lengths are.
        places = [*np.random.default_rng((seed, number)).permutation(whole).tolist(), whole]
        return rows[places[part] * size : (places[part] + 1) * size]

    return batch


def stream_batches(make: Callable[[int], HostBatch], start: int, stop: int) -> Iterable[HostBatch]:
    """The batches `start` to `stop`, made ahead in a thread by a function of their number."""
    batches = grain.MapDataset.range(start, stop).map(make)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def training_batches(
    dataset: PackedDataset, schedule: Schedule, seed: int, mesh: Mesh
) -> Callable[[int], Iterable[HostBatch]]:
    """The batches of a run from any step on."""
    size, grouped = schedule.batch_size, len(dataset.shapes) > 1
    lengths = [row.tokens for row in dataset.sizes]
    order = training_order(lengths, size, schedule.epochs, seed, grouped=grouped)
    mine = local_rows(mesh, size)
    make = lambda i: dataset.batch(order(i), mine)  # noqa: E731
    return lambda start: stream_batches(make, start, schedule.steps)


def in_order(dataset: PackedDataset, mesh: Mesh, size: int) -> Iterable[HostBatch]:
    """All rows once, in their order, in batches of `size`, or a few more if the devices need it."""
    n = len(dataset)
    # 3 rows on 4 devices: one batch of 4 rows, of which the last does not count.
    size = round_batch(min(size, n), mesh)
    mine = local_rows(mesh, size)

    def make(i: int) -> HostBatch:
        return dataset.batch(np.arange(i * size, min((i + 1) * size, n)), mine)

    return stream_batches(make, 0, -(-n // size))


def read_data(
    config: TrainConfig, parse: Callable[[dict[str, Any]], Line], unit: str
) -> list[DataFile[Line]]:
    """What --data holds, and --eval-data if it is given.

    Args:
      unit: what messages call a line.
    Raises:
      InbolError: if a file holds no line, one that `parse` refuses, or another number of lines
        than its header says; or images are missing or outside their folder: they are looked for
        before training, not in its midst.
    """
    files = []
    for file in filter(None, (config.data, config.eval_data)):
        lines, fingerprint = _read_lines(file, parse, unit)
        data = DataFile(lines, _image_paths(file, config.images, lines), fingerprint)
        _warn_of_changes(file, data)
        files.append(data)
    return files


def _read_lines(
    file: Path, parse: Callable[[dict[str, Any]], Line], unit: str
) -> tuple[list[Line], str]:
    """All lines of a file, as many as its header says, and the fingerprint of its bytes."""
    if not file.exists():
        raise InbolError(f"{file}: no such file; `inbol build` makes what is trained on")
    digest = hashlib.sha256(file.name.encode() + b"\0")
    lines = list(read_jsonl(file, parse, digest))
    if not lines:
        raise InbolError(f"{file} holds no {unit}")
    if not is_finished(file) and meta_path(file).exists() and not read_meta(file):
        raise InbolError(f"{file}: it was not written to its end; give its command again")
    return lines, digest.hexdigest()[:16]


def _warn_of_changes(file: Path, data: DataFile) -> None:
    """Says so if what a file was built of is not there as it was. All processes must call this."""
    from inbol_jax.confidence.samples import inputs_fingerprint, stores_in

    header = read_meta(file)
    changed = header.get("pictures", data.pictures) != data.pictures
    made = header.get("inputs", {}).get("confidence")
    stores = stores_in(file.parent / "confidence") if made and is_main() else []
    if is_main() and (changed or (stores and inputs_fingerprint(stores) != made)):
        what = "pictures" if changed else "answers or questions"
        say(f"Warning: {what} changed after {file} was built; build it anew")


def _image_paths(data: Path, images: Path | None, lines: Sequence[Line]) -> list[list[Path]]:
    """The images of each line, in the folder that the file's header names by default."""
    folder = image_folder(data, images)
    check_image, faults = image_check(folder), {}
    for image in dict.fromkeys(image for line in lines for image in line.images):
        try:
            check_image(image)
        except Unusable as cause:
            faults[image] = cause
    if faults:
        first, cause = next(iter(faults.items()))
        raise InbolError(
            f"{data}: {len(faults)} of its images cannot be used, the first is {folder / first} "
            f"({cause}); name their folder by --images"
        )
    return [[folder / image for image in line.images] for line in lines]


def picture_fingerprint(files: Iterable[Path]) -> str:
    """Sixteen hex digits over the bytes of pictures (`ImageHashes.fingerprint`), not their names.

    One process reads the files and tells the others, so all must call this.
    """
    from inbol_jax.answers import ImageHashes

    found = ImageHashes(Path()).fingerprint(map(str, files if is_main() else ()))
    return from_all(np.frombuffer(bytes.fromhex(found), np.uint8))[0].tobytes().hex()
