"""The confidence stores that `inbol build` reads: of its questions, and of `--negatives`."""

import contextlib
import fcntl
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inbol_jax.artifacts import file_fingerprint, hash64, parse_json, read_meta
from inbol_jax.confidence.store import (
    check_data,
    check_p_true,
    missing_shards,
    p_true_file,
    question_of,
    read_rows,
)
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.record import distinct_responses
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import BARE, Prompt, header_prompt
from inbol_jax.records import BoundaryRecord, Response


class Stores(NamedTuple):
    """The stores of a build.

    Attributes:
      files: the stores of the questions, at least one.
      negatives: the stores of `--negatives`.
      prompt: how all their questions were asked.
      images: the images' folder, relative to the output folder.
      n_questions: how many questions `files` hold.
      fingerprints: of everything that is read, for the headers.
    """

    files: list[Path]
    negatives: list[Path]
    prompt: Prompt
    images: str
    n_questions: int
    fingerprints: dict[str, str | None]


def find_stores(config: BuildConfig) -> Stores:
    """The stores that the options name; an InbolError if they cannot be built from."""
    if not (files := _stores_in(config.out)):
        raise InbolError(
            f"{config.out / 'confidence'} holds no .jsonl file; run `inbol confidence --out "
            f"{config.out}` first"
        )
    negatives = [] if config.negatives is None else _negative_stores(config.negatives)
    for file in (*files, *negatives):
        check_data(file)
        if why := unfinished(file):
            if not config.partial:
                raise InbolError(
                    f"{file} is not finished: {why}, or take what is there with --partial"
                )
            say(f"{file} is not finished: {why.partition(';')[0]}, taken as it is")
    if config.estimator == "p-true":
        for file in files:
            check_p_true(file, finished=not config.partial)
    return Stores(
        files=files,
        negatives=negatives,
        prompt=_prompt([*files, *negatives]),
        images=_images(files, config.out),
        n_questions=sum(map(count_lines, files)),
        fingerprints={
            "inputs": _inputs_fingerprint(files, config.estimator),
            "negatives": file_fingerprint(*negatives) if negatives else None,
        },
    )


def check_built(file: Path) -> None:
    """Refuses a file of `inbol build` if the confidence stores beside it are no longer those that
    it was built from.

    It is complete without them: stores that are no longer there are not asked for. Neither are
    those of a build with --partial, which may still grow.

    Raises:
      InbolError: if there are other stores now, or other lines in them.
    """
    header, files = read_meta(file), _stores_in(file.parent)
    if header.get("command") != "build" or header.get("partial") or not files:
        return
    if _inputs_fingerprint(files, header.get("estimator")) != header.get("inputs"):
        raise InbolError(
            f"{files[0].parent} was changed since {file} was built of it; give `inbol build` again"
        )


def _stores_in(out: Path) -> list[Path]:
    return sorted((out / "confidence").glob("*.jsonl"))


def _inputs_fingerprint(files: Sequence[Path], estimator: str | None) -> str:
    others = map(p_true_file, files) if estimator == "p-true" else ()
    return file_fingerprint(*files, *filter(Path.is_file, others))


def unfinished(file: Path) -> str | None:
    """Why a store is not finished, with what to do after a semicolon; None if it is finished."""
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
    """How many whole lines the file has."""
    with file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))


def _negative_stores(path: Path) -> list[Path]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InbolError(
            f"--negatives {path}: no such file, or a folder without .jsonl files; "
            "give a store that `inbol confidence` has written"
        )
    return files


def _images(files: list[Path], out: Path) -> str:
    headers = [read_meta(file) for file in files]
    if len({(header.get("images"), header.get("model")) for header in headers}) > 1:
        raise InbolError(
            f"the stores in {files[0].parent} are of different models or image folders; give each "
            "an --out of its own"
        )
    folder = files[0].parent / headers[0].get("images", ".")
    return os.path.relpath(folder.resolve(), out.resolve())


def _prompt(files: Sequence[Path]) -> Prompt:
    """How the questions of all stores were asked: instructions and pairs hold them so."""
    prompts = {header_prompt(file) or BARE: file for file in files}
    if len(prompts) > 1:
        (one, file), (other, other_file) = list(prompts.items())[:2]
        raise InbolError(
            f"{file} was asked with prompt {one}, and {other_file} with {other}; give "
            "`inbol confidence` one --prompt and --system for all"
        )
    return next(iter(prompts))


class Negatives:
    """Incorrect responses of another model than the records', such as the IDK-IT model.

    The lines stay on disk, in files that `open_files` closes; in memory are 18 bytes per question.
    An InbolError if a file is no confidence store.
    """

    def __init__(self, files: Sequence[Path], open_files: contextlib.ExitStack):
        hashes, offsets, numbers = array("Q"), array("q"), array("H")
        for number, file in enumerate(files):
            offset = 0
            for end, question in read_rows(file):
                hashes.append(hash64(question.example.id))
                offsets.append(offset)
                numbers.append(number)
                offset = end
        order = np.argsort(np.asarray(hashes), kind="stable")
        self._hashes = np.asarray(hashes)[order]  # u64[questions], ascending
        self._offsets = np.asarray(offsets)[order]  # i64[questions], of the line in its file
        self._numbers = np.asarray(numbers)[order]  # u16[questions], which file
        self._files = [open_files.enter_context(file.open("rb")) for file in files]

    def find(self, record: BoundaryRecord) -> Sequence[Response] | None:
        """The incorrect responses to the record's question; None if the stores do not have it.

        Raises:
          InbolError: if the stores have another question with the record's id.
        """
        key = np.uint64(hash64(record.id))
        for i in range(*(np.searchsorted(self._hashes, key, side) for side in ("left", "right"))):
            file = self._files[self._numbers[i]]
            file.seek(self._offsets[i])
            question = question_of(parse_json(file.readline()))
            example = question.example
            if example.id != record.id:
                continue  # another id with the same hash
            if example.whole != record.whole:
                raise InbolError(
                    f"{file.name}: {record.id} is another question than in the records; "
                    "--negatives needs the same dataset"
                )
            return distinct_responses(question)["wrong"]
        return None
