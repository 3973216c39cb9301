"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl with their header, and the
rejected ones in the trail."""

from pathlib import Path

KEPT = "kept"


def questions_file(out: Path) -> Path:
    """The file of the questions in a folder."""
    return out / "extrinsic.jsonl"


def trail_file(file: Path) -> Path:
    """The file of the rejected questions beside that of the others."""
    return file.with_suffix(".trail.jsonl")
