"""A VQA dataset on disk: a folder with `data.jsonl` and its images, or a `.jsonl` file with its images elsewhere.

Records that cannot be used are set aside and counted with their cause; a run stops only where too many are. What is in memory of a
dataset is where each of its lines begins: records are read when they are asked for.
"""

import array
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from inbol_jax.artifacts import meta_path, read_meta
from inbol_jax.errors import InbolError
from inbol_jax.records import METRICS, VQAExample, parse_metric

DATA_FILE = "data.jsonl"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COLUMNS = frozenset(
    ("id", "image", "question", "answers", "answerable", "source", "split", "metric")
)


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """One record that was set aside.

    Attributes:
      line: its number in the file, from 1; None where only what it refers to was found wanting, its image.
      id: as far as it could be read.
      reason: the cause, one of a small set of phrases, to be counted.
    """

    line: int | None
    id: str | None
    reason: str


class Examples(Sequence[VQAExample]):
    """Records of a JSON lines file, read from it when they are asked for; a slice reads nothing.

    Args:
      file: the JSON lines.
      offsets: u64[n], where the line of each record begins.
    """

    def __init__(self, file: Path, offsets: np.ndarray):
        self._file, self._offsets, self._state = file, offsets, _state(file)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> VQAExample: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "VQAExample | Examples":
        if isinstance(index, slice):
            return Examples(self._file, self._offsets[index])
        return next(self._read(self._offsets[[index]]))

    def __iter__(self) -> Iterator[VQAExample]:
        return self._read(self._offsets)

    def take(self, indices: Sequence[int]) -> "Examples":
        """Those at the indices, in their order."""
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
        found = file.stat()
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclasses.dataclass(frozen=True, slots=True)
class VQADataset:
    """A dataset as read.

    Attributes:
      name: of the folder, or of the `.jsonl` file without its suffix.
      root: the image folder; `root / example.image` is an example's image.
      examples: the usable records, in the file's order.
      rejected: the others, in the file's order.
      file: the JSON lines that hold the records.
    """

    name: str
    root: Path
    examples: Sequence[VQAExample]
    rejected: list[Rejection]
    file: Path


class Unusable(Exception):
    """Why a record is set aside: one of a small set of phrases, to be counted.

    Args:
      cause: the phrase.
      id: of the record, where its row does not hold it.
    """

    def __init__(self, cause: str, id: str | None = None):
        super().__init__(cause)
        self.id = (
            None if id is None else id.encode(errors="backslashreplace").decode()
        )  # half a surrogate pair cannot be written


def data_file(path: Path) -> Path:
    """The file with the records of what `--data` names: the one in the folder, or the `.jsonl` file itself."""
    return path / DATA_FILE if path.is_dir() else path


def load_dataset_folder(
    path: Path, *, images: Path | None = None, max_rejected: float = 0.1
) -> VQADataset:
    """Reads a dataset in the project's own layout.

    The columns are id (string or integer), image (path below the image folder), question, answers (a list of strings, or of objects with
    an "answer", as in VQAv2 and VizWiz), answerable (true, false or null; 1 and 0 do as well), and where wanted source, split and
    metric; all others go to `VQAExample.extra`.

    Args:
      path: a folder that holds `data.jsonl`, or a `.jsonl` file.
      images: the image folder; by default what the file's header names under "images", relative to the file's own folder, else that folder.
      max_rejected: largest share of the records that may be set aside, in [0, 1].

    Raises:
      InbolError: where there is no such dataset, or more records than that share cannot be used.
    """
    if not 0 <= max_rejected <= 1:
        raise InbolError(f"max_rejected is {max_rejected}; give a share between 0 and 1")
    path = Path(path)
    file = data_file(path)
    if not path.exists():
        raise InbolError(
            f"{path}: no such file or folder; give a folder that holds {DATA_FILE}, or a .jsonl file"
        )
    if not file.is_file():
        raise InbolError(
            f"{path}: the folder holds no {DATA_FILE}; give a folder that does, or a .jsonl file"
        )
    if file.suffix != ".jsonl":
        raise InbolError(f"{path}: not a .jsonl file; give one, or a folder that holds {DATA_FILE}")
    root = Path(images) if images is not None else _image_folder(file)
    if not root.is_dir():
        raise InbolError(
            f"{root}: no such image folder; give the folder that the image column of {file} is relative to"
        )

    check = ImageCheck(root)
    offsets = array.array("Q")
    rejected: list[Rejection] = []
    seen: set[str] = set()
    try:
        with file.open("rb") as lines:
            end = 0
            for number, line in enumerate(lines, 1):
                start, end = end, end + len(line)
                if not line.strip():
                    continue
                if number == 1 and line.startswith(BYTE_ORDER_MARK):
                    start, line = start + len(BYTE_ORDER_MARK), line.removeprefix(BYTE_ORDER_MARK)
                row: Mapping[str, Any] = {}
                try:
                    row = parse_line(line)
                    example = make_example(row)
                    if example.id in seen:
                        raise Unusable("duplicated id")
                    check(example.image)
                except Unusable as cause:
                    rejected.append(
                        Rejection(
                            number, record_id(row) if cause.id is None else cause.id, str(cause)
                        )
                    )
                else:
                    seen.add(example.id)
                    offsets.append(start)
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error

    stop_at_too_many(rejected, len(offsets) + len(rejected), max_rejected, file)
    examples = Examples(
        file, np.frombuffer(offsets, np.uint64) if offsets else np.zeros(0, np.uint64)
    )
    return VQADataset(
        path.resolve().name if path.is_dir() else file.stem, root, examples, rejected, file
    )


def stop_at_too_many(
    rejected: Sequence[Rejection], total: int, max_rejected: float, source: Path | str
) -> None:
    """Nothing, or an end to the run.

    Raises:
      InbolError: where there are no records at all, or more than the share `max_rejected` cannot be used.
    """
    if total == 0:
        raise InbolError(f"{source}: holds no records; write one JSON object a line")
    if len(rejected) > max_rejected * total:
        counts = summarise_rejections(rejected, total)
        where = f", starting at line {line}" if (line := rejected[0].line) else ""
        raise InbolError(
            f"{source}: {counts}; at most {max_rejected:.0%} may be; mend the file{where}"
        )


def summarise_rejections(rejected: Sequence[Rejection], total: int | None = None) -> str:
    """One line: "3 of 500 set aside: 2 image missing (first: q17), 1 duplicated id (q3)", the most frequent cause first.

    Args:
      rejected: the records set aside.
      total: the number of all records; left out of the line where None.
    """
    line = (
        f"{len(rejected)} set aside" if total is None else f"{len(rejected)} of {total} set aside"
    )
    first: dict[str, Rejection] = {}
    for rejection in rejected:
        first.setdefault(rejection.reason, rejection)
    causes = []
    for reason, count in Counter(r.reason for r in rejected).most_common():
        where = first[reason].id
        where = (
            f"line {first[reason].line}"
            if where is None
            else where
            if where.isprintable()
            else repr(where)
        )
        causes.append(f"{count} {reason} ({'first: ' if count > 1 else ''}{where})")
    return f"{line}: {', '.join(causes)}" if causes else line


def _image_folder(file: Path) -> Path:
    meta = read_meta(file)
    images = meta.get("images", ".") if isinstance(meta, dict) else None
    if not isinstance(images, str):
        raise InbolError(
            f'{meta_path(file)}: "images" must be a path relative to the file\'s folder'
        )
    return file.parent / images


def parse_line(line: bytes) -> Mapping[str, Any]:
    """A line's JSON object.

    Raises:
      Unusable: where it is none.
    """
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        raise Unusable("not UTF-8", _id_of_other_text(line)) from None
    except (ValueError, RecursionError):  # the latter from JSON nested too deeply
        raise Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise Unusable("not a JSON object")
    if (
        b"\\ud" in line.lower()
    ):  # an escaped surrogate: half a pair is no text, and no later stage could write it
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Unusable("not UTF-8", record_id(row)) from None
    return row


def _id_of_other_text(line: bytes) -> str | None:
    """The id of a record whose text is not UTF-8, bytes that are none spelt out."""
    try:
        row = json.loads(line.decode(errors="backslashreplace").replace("\\x", "\\\\x"))
    except (ValueError, RecursionError):
        return None
    return record_id(row) if isinstance(row, dict) else None


def record_id(row: Mapping[str, Any]) -> str | None:
    """The id as a string, None where it cannot be one."""
    value = row.get("id")
    return (
        str(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
        else None
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or value == "":
        raise Unusable(f"{column} missing")
    if not isinstance(value, str):
        raise Unusable(f"{column} not a string")
    if not value.strip():
        raise Unusable(f"{column} missing")
    return value


def _answers(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Unusable("answers not a list")
    answers = tuple(item.get("answer") if isinstance(item, dict) else item for item in value)
    if not all(isinstance(answer, str) for answer in answers):
        raise Unusable("answer not a string")
    return answers


def make_example(row: Mapping[str, Any]) -> VQAExample:
    """The record of a row in the columns of `data.jsonl`.

    Raises:
      Unusable: with the cause, where a column is missing or holds what it cannot.
    """
    id = record_id(row)
    if id is None:
        raise Unusable("id missing" if row.get("id") in (None, "") else "id not a string")
    question, image, answers = (
        _text(row, "question"),
        _text(row, "image"),
        _answers(row.get("answers")),
    )
    answerable = row.get("answerable")
    if answerable is not None and not (isinstance(answerable, int) and answerable in (0, 1)):
        raise Unusable("answerable not true, false or null")
    if answerable and not any(answer.strip() for answer in answers):
        raise Unusable("answerable without answers")
    extra = {column: value for column, value in row.items() if column not in _COLUMNS}
    source, split, metric = (
        row.get(column) or default
        for column, default in (("source", ""), ("split", ""), ("metric", METRICS[0]))
    )
    if not (isinstance(source, str) and isinstance(split, str)):
        raise Unusable("source or split not a string")
    try:
        parse_metric(metric)
    except (InbolError, AttributeError, TypeError):
        raise Unusable("metric not known") from None
    return VQAExample(
        id,
        image,
        question,
        answers,
        None if answerable is None else bool(answerable),
        extra,
        source,
        split,
        metric,
    )


class ImageCheck:
    """Refuses images that are missing, empty or outside the folder; looks at each only once, as many questions share one.

    Raises:
      Unusable: when called with such an image, a path relative to the folder.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.known: dict[str, str | None] = {}

    def __call__(self, image: str) -> None:
        if image not in self.known:
            self.known[image] = self._cause(image)
        if cause := self.known[image]:
            raise Unusable(cause)

    def _cause(self, image: str) -> str | None:
        if Path(image).is_absolute():
            return "image path absolute"
        try:
            path = (self.root / image).resolve()
            if not path.is_relative_to(self.root):  # by `..`, or through a symbolic link
                return "image outside the folder"
            if not path.is_file():
                return "image missing"
            return None if path.stat().st_size else "image empty"
        except (
            OSError,
            ValueError,
            RuntimeError,
        ):  # a name too long, a NUL in it, links in a circle
            return "image missing"
