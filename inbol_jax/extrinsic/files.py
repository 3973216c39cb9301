"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl with their header, and the
rejected ones in the trail."""

from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_meta
from inbol_jax.errors import InbolError

KEPT = "kept"


def questions_file(out: Path) -> Path:
    """The file of the questions in a folder."""
    return out / "extrinsic.jsonl"


def trail_file(file: Path) -> Path:
    """The file of the rejected questions beside that of the others."""
    return file.with_suffix(".trail.jsonl")


def read_header(file: Path) -> dict[str, Any]:
    """The header of the questions in a file. Raises InbolError if they are not finished."""
    header = read_meta(file)
    needed = {"rows", "counts", "set_aside", "images", "data", "generators", "filters"}
    if not needed <= set(header):
        raise InbolError(
            f"{file.parent} holds no finished {file.name} of this version; "
            f"run `inbol extrinsic --out {file.parent}` first"
        )
    return header
