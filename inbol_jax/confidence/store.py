"""The confidence store: sampled answers, appended as they come, one line a question. What is there is not sampled again."""

import array
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import fingerprint, json_line, meta_path, read_meta, write_json
from inbol_jax.data.vqa import Examples
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample

_SHARD = re.compile(r"\.(\d{4})-of-(\d{4})$")


def shard_path(file: Path, index: int, count: int) -> Path:
    """Where process `index` of `count` writes: NAME.jsonl where it is the only one, else NAME.0001-of-0004.jsonl and so on."""
    return file if count == 1 else file.with_name(f"{file.stem}.{index + 1:04}-of-{count:04}.jsonl")


def shards(file: Path) -> list[Path]:
    """The files of the store NAME.jsonl that are there: itself, or what several processes wrote."""
    found = [file, *file.parent.glob("*.jsonl")] if file.parent.is_dir() else []
    return sorted({f for f in found if f.is_file() and _SHARD.sub("", f.stem) == file.stem})


def missing_shards(file: Path) -> int:
    """How many shards are not there of the store that a file belongs to."""
    shard = _SHARD.search(file.stem)
    return (
        int(shard[2]) - len(shards(file.with_name(f"{_SHARD.sub('', file.stem)}.jsonl")))
        if shard
        else 0
    )


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset behind it, row) of every whole line. A last line without its end is one that is being written, or that a killed run tore.

    Raises:
      InbolError: when the file cannot be read, or a whole line is not a line of a store, with its number.
    """
    end = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                    row["id"], row["question"], row["image"], row["fingerprint"]
                except (ValueError, KeyError, TypeError) as error:
                    raise InbolError(
                        f"{file}:{number}: not a line of a confidence store ({error!r})"
                    ) from error
                end += len(line)
                yield end, row
    except OSError as error:
        raise InbolError(f"cannot read {file}: {error.strerror}") from error


def p_true_file(file: Path) -> Path:
    """Where the self-evaluations of a store, or of a shard of it, are: lines of their own, so that they can come later."""
    return file.parent / "p_true" / file.name


def with_p_true(file: Path, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of a store, with `p_true` for each question that was asked for it (null where there was no answer to ask about).

    Raises:
      InbolError: when the self-evaluations are of other samples.
    """
    found, extra = {}, p_true_file(file)
    if extra.is_file():
        if read_meta(extra).get("samples") != read_meta(file).get("config"):
            raise InbolError(
                f"{extra} is of other samples than those of {file}; delete it and give `inbol confidence --p-true` again"
            )
        found = {row["id"]: row["p_true"] for _, row in read_rows(extra)}
    for row in rows:
        yield row | {"p_true": found[row["id"]]} if row.get("id") in found else row


def check_p_true(file: Path, *, finished: bool = True) -> None:
    """Refuses a store, or a shard of it, whose questions were not asked for P(True).

    Args:
      finished: all of them must have been asked, or set aside; else any of them.
    Raises:
      InbolError: where they were not.
    """
    extra = p_true_file(file)
    hint = "`inbol confidence --p-true` adds it and samples nothing again"
    if not extra.is_file():
        raise InbolError(f"--estimator p-true: {file} has no p_true; {hint}")
    if finished:
        header, asked = read_meta(extra), sum(1 for _ in read_rows(extra))
        if asked != header.get("rows") or asked + header["set_aside"] != read_meta(file).get(
            "rows"
        ):
            raise InbolError(
                f"--estimator p-true: {file} has p_true for {asked} questions so far; {hint}"
            )


def _content(question: str, image: str) -> int:
    """64 bits that stand for a question and its image: a million of them are held."""
    return int.from_bytes(hashlib.blake2b(f"{question}\0{image}".encode(), digest_size=8).digest())


class ConfidenceStore:
    """`<out>/confidence/<dataset>.jsonl` with its header, locked against any other writer until it is closed (`with` closes it).

    The lock is the system's own (flock): it goes with the process, however that ends.

    Args:
      settings: everything that the samples depend on. Their fingerprint stands in the header and in every line; a file that was made with
        others is refused, never mixed.
      index, count: of the process among those that share the dataset; each writes a file of its own.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], *, index: int = 0, count: int = 1):
        self.file = shard_path(file, index, count)
        self.fingerprint = fingerprint(settings)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            expected = {shard_path(file, i, count) for i in range(count)}
            if others := [f for f in shards(file) if f not in expected]:
                raise InbolError(
                    f"{others[0]} was sampled by another number of processes; go on with as many, or choose another --out"
                )
            self._lines = self.file.open("ab")
        except OSError as error:
            raise InbolError(
                f"cannot write {error.filename}: {error.strerror}; choose another --out"
            ) from error
        try:
            self._open(settings)
        except BaseException:
            self._lines.close()
            raise

    def _open(self, settings: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InbolError(
                f"{self.file} is being written by another run; wait for its end, or choose another --out"
            ) from error
        header = read_meta(self.file)
        if header.get("config") != self.fingerprint and (header or self._lines.tell()):
            changed = sorted(k for k in settings if header.get(k) != settings[k])
            raise InbolError(
                f"{self.file} was sampled with other settings ({', '.join(changed) or 'no header'}); choose another --out or delete it"
            )
        self.done: dict[str, int] = {}
        end = 0
        for number, (offset, row) in enumerate(read_rows(self.file), 1):
            if row["fingerprint"] != self.fingerprint or row["id"] in self.done:
                raise InbolError(
                    f"{self.file}:{number}: a line of another run, or one that is there twice; delete it"
                )
            self.done[row["id"]] = _content(row["question"], row["image"])
            end = offset
        self._lines.truncate(end)  # the torn line of a killed run, if there is one
        if not header:
            header = dict(settings) | {"config": self.fingerprint}
        header.pop("rows", None)  # not finished until it is: the dataset may have grown since
        write_json(
            meta_path(self.file), header | {"started": time.time(), "started_with": len(self.done)}
        )

    def __enter__(self) -> "ConfidenceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def pending(self, examples: Sequence[VQAExample]) -> Sequence[VQAExample]:
        """The examples that are not in the store yet; those of a dataset stay on the disk.

        Raises:
          InbolError: when the store holds an id with another question or image: the dataset was changed under it.
        """
        if not self.done:
            return examples
        waiting = array.array("Q")
        for i, example in enumerate(examples):
            if example.id not in self.done:
                waiting.append(i)
            elif self.done[example.id] != _content(example.question, example.image):
                raise InbolError(
                    f"{self.file}: {example.id} was another question when it was sampled; choose another --out or delete it"
                )
        return (
            examples.take(waiting)
            if isinstance(examples, Examples)
            else [examples[i] for i in waiting]
        )

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows, with the fingerprint of the settings, and waits until they are on the disk."""
        for row in rows:
            self._lines.write(json_line(dict(row) | {"fingerprint": self.fingerprint}).encode())
            self.done[row["id"]] = _content(row["question"], row["image"])
        self._lines.flush()
        os.fsync(self._lines.fileno())

    def finish(self, set_aside: int = 0) -> None:
        """Notes in the header how many questions a finished store holds: one that holds another number is still being filled.

        Args:
          set_aside: questions that could not be asked.
        """
        write_json(
            meta_path(self.file),
            read_meta(self.file) | {"rows": len(self.done), "set_aside": set_aside},
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines, with `p_true` where it is known."""
        return with_p_true(self.file, (row for _, row in read_rows(self.file)))
