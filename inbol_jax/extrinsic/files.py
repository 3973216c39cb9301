"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl with their header, and the
rejected ones in the trail."""

from pathlib import Path
from typing import Any, ClassVar

from inbol_jax.questions import Record
from inbol_jax.stage import finished_header

KEPT = "kept"


class Header(Record, frozen=True):
    """The header of the questions.

    Attributes:
      counts: questions by "generator: kept" or "generator: filter that rejected them".
      set_aside: examples of which no question was made, by "generator: cause".
      images, data: the image folder and the dataset that they were made from, relative to the file.
    """

    remedy: ClassVar[str] = "; run `inbol extrinsic` again with another --out"

    rows: int
    counts: dict[str, int]
    set_aside: dict[str, int]
    images: str
    data: str
    generators: list[str]
    filters: list[str]
    settings: dict[str, Any]


def questions_file(out: Path) -> Path:
    """The file of the questions in a folder."""
    return out / "extrinsic.jsonl"


def trail_file(file: Path) -> Path:
    """The file of the rejected questions beside that of the others."""
    return file.with_suffix(".trail.jsonl")


def read_header(file: Path) -> Header:
    """The header of the questions in a file. Raises InbolError if they are not finished."""
    return Header.from_json(finished_header(file, "extrinsic"))
