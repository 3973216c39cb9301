"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl, with their header."""

from pathlib import Path
from typing import Any, ClassVar

from inbol_jax.artifacts import is_finished, read_meta
from inbol_jax.errors import InbolError
from inbol_jax.questions import Record

QUESTIONS = "extrinsic.jsonl"
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
    settings: dict[str, Any]


def read_header(out: Path) -> Header:
    """The header of the questions in a folder. Raises InbolError if they are not finished."""
    header = read_meta(file := out / QUESTIONS)
    if header.get("command") != "extrinsic" or not is_finished(file):
        raise InbolError(f"{out} holds no finished {QUESTIONS}; run `inbol extrinsic` first")
    return Header.from_json(header)
