"""A VQA dataset on disk: a folder with `data.jsonl` and images, or a `.jsonl` file.

Records that cannot be used are set aside with their cause; a run stops only if they are too many.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from inbol_jax.artifacts import read_meta
from inbol_jax.data.folder import Unusable, image_check, image_folder
from inbol_jax.data.rows import RawRow, Rejection, make_example, parse_line, record_id
from inbol_jax.errors import InbolError, printable
from inbol_jax.progress import say
from inbol_jax.records import VQAExample

DATA_FILE = "data.jsonl"
REJECTED_FILE = "rejected.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class VQADataset:
    """A dataset as read: its usable records and the others, both in the file's order.

    Attributes:
      name: the name of the folder, or of the `.jsonl` file without its suffix.
      root: the image folder, which the paths of images are relative to.
      file: the JSON lines that hold the records.
    """

    name: str
    root: Path
    examples: list[VQAExample]
    rejected: list[Rejection]
    file: Path


def load_dataset_folder(
    path: Path,
    *,
    images: Path | None = None,
    limit: int | None = None,
    judged: bool = False,
    max_rejected: float = 0.1,
) -> VQADataset:
    """Reads a dataset in the project's own layout, and says which records it sets aside.

    The columns are those of `VQAExample`; all others go to its `extra`.

    Args:
      path: a folder that holds `data.jsonl`, or a `.jsonl` file.
      images: the image folder. The default is the one that the file's header names under "images",
        relative to the file's folder; without a header it is the file's folder.
      limit: read this many records, from the first one on; None reads all.
      judged: whether responses are judged, so that records without gold answers are set aside.
      max_rejected: largest share of the records that may be set aside, in [0, 1].

    Raises:
      InbolError: if there is no such dataset, or if more records than that share cannot be used.
    """
    name, file = named_file(path)
    root = image_folder(file, images)
    try:
        examples, rejected = _scan(file, root, limit, judged)
    except OSError as error:
        raise InbolError(f"{file}: cannot be read ({error.strerror})") from error
    found, rows = len(examples) + len(rejected), read_meta(file).get("rows")
    if limit is None and rows not in (None, found):
        say(f"Warning: {file} holds {found} lines, and by its header {rows}: it was cut or edited")
    report_rejections(rejected, found, max_rejected, file)
    return VQADataset(name, root, examples, rejected, file)


def named_file(path: Path) -> tuple[str, Path]:
    """Name and file of a dataset. Raises InbolError if there is none."""
    file = path / DATA_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".jsonl":
        missing = "" if path.exists() else " is not there"
        raise InbolError(f"{path}{missing}: give a folder that holds {DATA_FILE}, or a .jsonl file")
    return (path.resolve().name if path.is_dir() else file.stem), file


def _scan(
    file: Path, root: Path, limit: int | None, judged: bool
) -> tuple[list[VQAExample], list[Rejection]]:
    """The records of the file, and what is wrong with the others."""
    check_image, ids = image_check(root), set[str]()
    examples, rejected = list[VQAExample](), list[Rejection]()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if len(examples) + len(rejected) == limit:
                break
            row: RawRow = {}
            try:
                row = parse_line(line)
                example = make_example(row)
                if example.id in ids:
                    raise Unusable("duplicated id")
                if judged and not example.judgeable:
                    raise Unusable("no gold answers")
                for image in example.images:
                    check_image(image)
            except Unusable as cause:
                id = record_id(row.get("id"))
                rejected.append(Rejection(number, id, str(cause), cause.detail))
            else:
                ids.add(example.id)
                examples.append(example)
    return examples, rejected


def report_rejections(
    rejected: Sequence[Rejection],
    total: int,
    max_rejected: float,
    source: Path | str,
    images: str = "`inbol data import --images` names the folder that paths are relative to",
) -> None:
    """Says "3 of 500 set aside: 2 image missing (first: q17), 1 duplicated id (first: q3)".

    `images` says what to do about images that are not there.

    Raises:
      InbolError: if there are no records, or more than `max_rejected` of them are set aside.
    """
    if total == 0:
        raise InbolError(f"{source}: holds no records")
    causes = [f"{n} {reason} (first: {one})" for reason, n, one in causes_of_rejection(rejected)]
    line = f"{source}: {len(rejected)} of {total} set aside: {', '.join(causes)}"
    if len(rejected) > max_rejected * total:
        about_images = re.match(r"\d+ image (missing|outside)", causes[0])
        remedy = images if about_images else "mend the file"
        raise InbolError(f"{line}; at most {max_rejected:.0%} may be; {remedy}")
    if rejected:
        say(line)


def causes_of_rejection(rejected: Sequence[Rejection]) -> Iterator[tuple[str, int, str]]:
    """Each cause, how many records have it, and the first one; the most frequent cause is first."""
    first = {rejection.reason: rejection for rejection in reversed(rejected)}
    for reason, count in Counter(rejection.reason for rejection in rejected).most_common():
        one = first[reason]
        name = f"line {one.line}" if one.id is None else one.id
        yield reason, count, printable(", ".join(filter(None, (name, one.detail))))
