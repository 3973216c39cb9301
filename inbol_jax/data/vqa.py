"""A VQA dataset on disk: a folder with `data.jsonl` and its images, or a `.jsonl` file with its images elsewhere.

Records that cannot be used are set aside and counted with their cause; a run stops only where too many are.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import meta_path, read_meta
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample

DATA_FILE = "data.jsonl"
_COLUMNS = frozenset(("id", "image", "question", "answers", "answerable"))


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """One record that was set aside.

    Attributes:
      line: its number in the file, from 1.
      id: as far as it could be read.
      reason: the cause, one of a small set of phrases, to be counted.
    """

    line: int
    id: str | None
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class VQADataset:
    """A dataset as read.

    Attributes:
      name: of the folder, or of the `.jsonl` file without its suffix.
      root: the image folder; `root / example.image` is an example's image.
      examples: the usable records, in the file's order.
      rejected: the others, in the file's order.
    """

    name: str
    root: Path
    examples: list[VQAExample]
    rejected: list[Rejection]


class _Unusable(Exception):
    """Why a record is set aside."""


def data_file(path: Path) -> Path:
    """The file with the records of what `--data` names: the one in the folder, or the `.jsonl` file itself."""
    return path / DATA_FILE if path.is_dir() else path


def load_dataset_folder(path: Path, *, images: Path | None = None, max_rejected: float = 0.1) -> VQADataset:
    """Reads a dataset in the project's own layout.

    The columns are id (string or integer), image (path below the image folder), question, answers (a list of strings, or of objects with
    an "answer", as in VQAv2 and VizWiz), answerable (true, false or null; 1 and 0 do as well); all others go to `VQAExample.extra`.

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
        raise InbolError(f"{path}: no such file or folder; give a folder that holds {DATA_FILE}, or a .jsonl file")
    if not file.is_file():
        raise InbolError(f"{path}: the folder holds no {DATA_FILE}; give a folder that does, or a .jsonl file")
    if file.suffix != ".jsonl":
        raise InbolError(f"{path}: not a .jsonl file; give one, or a folder that holds {DATA_FILE}")
    root = Path(images) if images is not None else _image_folder(file)
    if not root.is_dir():
        raise InbolError(f"{root}: no such image folder; give the folder that the image column of {file} is relative to")

    check = _ImageCheck(root)
    examples: list[VQAExample] = []
    rejected: list[Rejection] = []
    seen: set[str] = set()
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row: Mapping[str, Any] = {}
                try:
                    row = _parse(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                    example = _example(row)
                    if example.id in seen:
                        raise _Unusable("duplicated id")
                    check(example.image)
                except _Unusable as cause:
                    rejected.append(Rejection(number, _id(row), str(cause)))
                else:
                    seen.add(example.id)
                    examples.append(example)
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error

    total = len(examples) + len(rejected)
    if total == 0:
        raise InbolError(f"{file}: holds no records; write one JSON object a line")
    if len(rejected) > max_rejected * total:
        counts = summarise_rejections(rejected, total)
        raise InbolError(f"{file}: {counts}; at most {max_rejected:.0%} may be; mend the file, starting at line {rejected[0].line}")
    return VQADataset(path.resolve().name if path.is_dir() else file.stem, root, examples, rejected)


def summarise_rejections(rejected: Sequence[Rejection], total: int | None = None) -> str:
    """One line: "3 of 500 set aside: 2 image missing (first: q17), 1 duplicated id (q3)", the most frequent cause first.

    Args:
      rejected: the records set aside.
      total: the number of all records; left out of the line where None.
    """
    line = f"{len(rejected)} set aside" if total is None else f"{len(rejected)} of {total} set aside"
    first: dict[str, Rejection] = {}
    for rejection in rejected:
        first.setdefault(rejection.reason, rejection)
    causes = []
    for reason, count in Counter(r.reason for r in rejected).most_common():
        where = first[reason].id
        where = f"line {first[reason].line}" if where is None else where if where.isprintable() else repr(where)
        causes.append(f"{count} {reason} ({'first: ' if count > 1 else ''}{where})")
    return f"{line}: {', '.join(causes)}" if causes else line


def _image_folder(file: Path) -> Path:
    meta = read_meta(file)
    images = meta.get("images", ".") if isinstance(meta, dict) else None
    if not isinstance(images, str):
        raise InbolError(f'{meta_path(file)}: "images" must be a path relative to the file\'s folder')
    return file.parent / images


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8") from None
    except (ValueError, RecursionError):  # the latter from JSON nested too deeply
        raise _Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise _Unusable("not a JSON object")
    if b"\\ud" in line.lower():  # an escaped surrogate: half a pair is no text, and no later stage could write it
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Unusable("not UTF-8") from None
    return row


def _id(row: Mapping[str, Any]) -> str | None:
    value = row.get("id")
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or value == "":
        raise _Unusable(f"{column} missing")
    if not isinstance(value, str):
        raise _Unusable(f"{column} not a string")
    if not value.strip():
        raise _Unusable(f"{column} missing")
    return value


def _answers(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _Unusable("answers not a list")
    answers = tuple(item.get("answer") if isinstance(item, dict) else item for item in value)
    if not all(isinstance(answer, str) for answer in answers):
        raise _Unusable("answer not a string")
    return answers


def _example(row: Mapping[str, Any]) -> VQAExample:
    id = _id(row)
    if id is None:
        raise _Unusable("id missing" if row.get("id") in (None, "") else "id not a string")
    question, image, answers = _text(row, "question"), _text(row, "image"), _answers(row.get("answers"))
    answerable = row.get("answerable")
    if answerable is not None and not (isinstance(answerable, int) and answerable in (0, 1)):
        raise _Unusable("answerable not true, false or null")
    if answerable and not any(answer.strip() for answer in answers):
        raise _Unusable("answerable without answers")
    extra = {column: value for column, value in row.items() if column not in _COLUMNS}
    return VQAExample(id, image, question, answers, None if answerable is None else bool(answerable), extra)


class _ImageCheck:
    """Refuses images that are missing, empty or outside the folder; looks at each only once, as many questions share one."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.known: dict[str, str | None] = {}

    def __call__(self, image: str) -> None:
        if image not in self.known:
            self.known[image] = self._cause(image)
        if cause := self.known[image]:
            raise _Unusable(cause)

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
        except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, links in a circle
            return "image missing"
