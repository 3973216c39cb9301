"""A VQA dataset on disk: a folder with `data.jsonl` and images, or a `.jsonl` file.

Records that cannot be used are set aside with their cause; a run stops only if they are too many.
"""

import array
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from inbol_jax.artifacts import atomically, write_jsonl
from inbol_jax.data.folder import Unusable, image_check, image_folder
from inbol_jax.data.rows import RawRow, Rejection, make_example, parse_line, record_id
from inbol_jax.errors import InbolError, printable
from inbol_jax.records import VQAExample

DATA_FILE = "data.jsonl"
REJECTED_FILE = "rejected.jsonl"


class Examples(Sequence[VQAExample]):
    """Records of a JSON lines file by the offsets of their lines, u64[n].

    A record is read when it is asked for; a slice reads nothing.
    """

    def __init__(self, file: Path, offsets: np.ndarray):
        self._file, self._offsets, self._state = file, offsets, _state(file)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Examples(self._file, self._offsets[index])
        return next(self._read(self._offsets[[index]]))

    def __iter__(self) -> Iterator[VQAExample]:
        return self._read(self._offsets)

    def take(self, indices: Sequence[int]) -> "Examples":
        """The records at the indices, in the order of the indices."""
        return Examples(self._file, self._offsets[np.asarray(indices, np.int64)])

    def _read(self, offsets: np.ndarray) -> Iterator[VQAExample]:
        if _state(self._file) != self._state:
            raise InbolError(f"{self._file}: was changed while it was read; run the command again")
        with self._file.open("rb") as lines:
            for offset in offsets.tolist():
                lines.seek(offset)
                yield make_example(parse_line(lines.readline()))


def _state(file: Path) -> tuple[int, int, int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclasses.dataclass(frozen=True, slots=True)
class VQADataset:
    """A dataset as read: its usable records and the others, both in the file's order."""

    name: str
    """The name of the folder, or of the `.jsonl` file without its suffix."""
    root: Path
    """The image folder, which the paths of images are relative to."""
    examples: Sequence[VQAExample]
    rejected: list[Rejection]
    file: Path
    """The JSON lines that hold the records."""


def data_file(path: Path) -> Path:
    """The file of records: `data.jsonl` of a folder, or the `.jsonl` file itself."""
    return path / DATA_FILE if path.is_dir() else path


def load_dataset_folder(
    path: Path,
    *,
    images: Path | None = None,
    limit: int | None = None,
    max_rejected: float = 0.1,
) -> VQADataset:
    """Reads a dataset in the project's own layout.

    The columns are those of `VQAExample`; all others go to its `extra`.

    Args:
      path: a folder that holds `data.jsonl`, or a `.jsonl` file.
      images: the image folder. The default is the one that the file's header names under "images",
        relative to the file's folder; without a header it is the file's folder.
      limit: read this many records, from the first one on; None reads all.
      max_rejected: largest share of the records that may be set aside, in [0, 1].

    Raises:
      InbolError: if there is no such dataset, or if more records than that share cannot be used.
    """
    if not 0 <= max_rejected <= 1:
        raise InbolError(f"max_rejected is {max_rejected}; give a share between 0 and 1")
    path = Path(path)
    file = data_file(path)
    if not file.is_file() or file.suffix != ".jsonl":
        raise InbolError(f"{path}: give a folder that holds {DATA_FILE}, or a .jsonl file")
    root = image_folder(file, images)
    try:
        examples, rejected = _scan(file, root, limit)
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error
    stop_at_too_many(rejected, len(examples) + len(rejected), max_rejected, file)
    name = path.resolve().name if path.is_dir() else file.stem
    return VQADataset(name, root, examples, rejected, file)


def _scan(file: Path, root: Path, limit: int | None) -> tuple[Examples, list[Rejection]]:
    """Validates each line of the file once."""
    check_image = image_check(root)
    offsets = array.array("Q")
    rejected: list[Rejection] = []
    ids: set[str] = set()
    end = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            start, end = end, end + len(line)
            if not line.strip():
                continue
            if len(ids) + len(rejected) == limit:
                break
            row: RawRow = {}
            try:
                row = parse_line(line)
                example = make_example(row)
                if example.id in ids:
                    raise Unusable("duplicated id")
                for image in example.images:
                    check_image(image)
            except Unusable as cause:
                id = record_id(row.get("id")) if cause.id is None else cause.id
                rejected.append(Rejection(number, id, str(cause), cause.detail))
            else:
                ids.add(example.id)
                offsets.append(start)
    return Examples(file, np.array(offsets, np.uint64)), rejected


def refuse_same_names(datasets: Iterable[VQADataset]) -> None:
    """Raises InbolError if two datasets have one name."""
    files: dict[str, Path] = {}
    for dataset in datasets:
        if other := files.get(dataset.name):
            raise InbolError(
                f"two datasets are called {dataset.name} ({other}, {dataset.file}); rename one"
            )
        files[dataset.name] = dataset.file


def stop_at_too_many(
    rejected: Sequence[Rejection],
    total: int,
    max_rejected: float,
    source: Path | str,
    images: str = "--images names the folder that paths are relative to",
) -> None:
    """Raises InbolError if there are no records, or more than `max_rejected` of them rejected.

    `images` says what to do if it is for images that are not there.
    """
    if total == 0:
        raise InbolError(f"{source}: holds no records; write one JSON object per line")
    if len(rejected) > max_rejected * total:
        reason, *_ = next(causes_of_rejection(rejected))
        about_images = reason.startswith(("image missing", "image outside"))
        raise InbolError(
            f"{source}: {summarise_rejections(rejected, total)}; at most {max_rejected:.0%} may "
            f"be; {images if about_images else 'mend the file'}"
        )


def summarise_rejections(rejected: Sequence[Rejection], total: int) -> str:
    """ "3 of 500 set aside: 2 image missing (first: q17), 1 duplicated id (first: q3)"."""
    causes = [f"{n} {reason} (first: {one})" for reason, n, one in causes_of_rejection(rejected)]
    return f"{len(rejected)} of {total} set aside{': ' * bool(causes)}{', '.join(causes)}"


def causes_of_rejection(rejected: Sequence[Rejection]) -> Iterator[tuple[str, int, str]]:
    """Each cause, how many records have it, and the first one; the most frequent cause is first."""
    counts = Counter(rejection.reason for rejection in rejected)
    first = {rejection.reason: rejection for rejection in reversed(rejected)}
    for reason, count in counts.most_common():
        one = first[reason]
        name = f"line {one.line}" if one.id is None else one.id
        yield reason, count, printable(", ".join(filter(None, (name, one.detail))))


@contextlib.contextmanager
def writing_dataset(folder: Path) -> Iterator[TextIO]:
    """Yields the file that becomes `data.jsonl`, whole or not at all.

    Its header is to be there before the block ends (`stage.Stage`): records without a header nobody
    could tell from a user's.
    """
    with (
        atomically(folder / DATA_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as lines,
    ):
        yield lines


def write_rejections(
    folder: Path, rejected: Sequence[Rejection], header: Mapping[str, Any]
) -> None:
    """Writes `rejected.jsonl` beside the records that were kept."""
    write_jsonl(folder / REJECTED_FILE, map(dataclasses.asdict, rejected), header)
