"""The confidence stores that `inbol build` reads, checked before anything is read of them."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from inbol_jax.artifacts import file_fingerprint, read_meta
from inbol_jax.confidence.store import check_p_true, missing_shards, p_true_file
from inbol_jax.construction.config import BuildConfig
from inbol_jax.errors import InbolError
from inbol_jax.progress import say


class Stores(NamedTuple):
    """The stores of a build.

    Attributes:
      files: the stores of the questions, at least one.
      negatives: the stores of `--negatives`.
      images: the images' folder, relative to the output folder.
      n_questions: how many questions `files` hold.
      fingerprints: of everything that is read, for the headers.
    """

    files: list[Path]
    negatives: list[Path]
    images: str
    n_questions: int
    fingerprints: dict[str, str | None]


def find_stores(config: BuildConfig) -> Stores:
    """The stores that the options name.

    Raises:
      InbolError: if there are none, one is not finished (unless --partial allows it), they are of
        different models or images, or lack what the estimator needs.
    """
    files = sorted((config.out / "confidence").glob("*.jsonl"))
    if not files:
        raise InbolError(
            f"{config.out / 'confidence'} holds no .jsonl file; run `inbol confidence --out "
            f"{config.out}` first"
        )
    negatives = [] if config.negatives is None else _negatives(config.negatives)
    for file in (*files, *negatives):
        if why := unfinished(file):
            if not config.partial:
                raise InbolError(
                    f"{file} is not finished: {why}, or take what is there with --partial"
                )
            say(f"{file} is not finished: {why.partition(';')[0]}, taken as it is")
    inputs = list(files)
    if config.estimator == "p-true":
        for file in files:
            check_p_true(file, finished=not config.partial)
        inputs += map(p_true_file, files)
    return Stores(
        files=files,
        negatives=negatives,
        images=_images(files, config.out),
        n_questions=sum(map(count_lines, files)),
        fingerprints={
            "inputs": file_fingerprint(*inputs),
            "negatives": file_fingerprint(*negatives) if negatives else None,
        },
    )


def unfinished(file: Path) -> str | None:
    """Why a store is not finished, with what to do after a semicolon; None if it is finished.

    It is finished if it has all shards, nobody is writing it, and it holds as many questions as its
    header says.
    """
    if missing := missing_shards(file):
        return (
            f"{missing} of its shards are missing; give `inbol confidence` again in every process"
        )
    with file.open("rb") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "`inbol confidence` is writing it; wait for its end"
    questions = count_lines(file)
    if questions != read_meta(file).get("rows"):
        return (
            f"{questions} questions so far; give `inbol confidence` again, "
            "it goes on where it stopped"
        )
    return None


def count_lines(file: Path) -> int:
    """How many whole lines a file has."""
    with file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))


def _negatives(path: Path) -> list[Path]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InbolError(
            f"--negatives {path}: no such file, or a folder without .jsonl files; "
            "give a store that `inbol confidence` has written"
        )
    return files


def _images(files: list[Path], out: Path) -> str:
    """The folder of the stores' images, relative to the output folder."""
    headers = [read_meta(file) for file in files]
    if len({(header.get("images"), header.get("model")) for header in headers}) > 1:
        raise InbolError(
            f"the stores in {files[0].parent} are of different models or image folders; give each "
            "an --out of its own"
        )
    folder = files[0].parent / headers[0].get("images", ".")
    return os.path.relpath(folder.resolve(), out.resolve())
