"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl with their header, and the
rejected ones in the trail."""

from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_meta
from inbol_jax.errors import InbolError

KEPT = "kept"
FIELDS = {"rows": int, "counts": dict, "set_aside": dict, "images": str, "data": str,
          "generators": list, "filters": list}  # fmt: skip


def questions_file(out: Path) -> Path:
    """The file of the questions in a folder."""
    return out / "extrinsic.jsonl"


def trail_file(file: Path) -> Path:
    """The file of the rejected questions beside that of the others."""
    return file.with_suffix(".trail.jsonl")


def read_header(file: Path) -> dict[str, Any]:
    """The header of the questions in a file. Raises InbolError if they are not finished."""
    header = read_meta(file)
    plain = all(isinstance(header.get(name), kind) for name, kind in FIELDS.items()) and all(
        isinstance(count, int)
        for name in ("counts", "set_aside")
        for count in header[name].values()
    )
    if not plain:
        raise InbolError(
            f"{file.parent} holds no finished {file.name} of this version; "
            f"run `inbol extrinsic --out {file.parent}` first"
        )
    return header
