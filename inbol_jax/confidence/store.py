"""The confidence store: one line per question, appended as the answers come; what is there is not
sampled again."""

import array
import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from inbol_jax.artifacts import AppendOnlyLines, fingerprint, meta_path, read_meta, write_json
from inbol_jax.data.vqa import Examples
from inbol_jax.errors import InbolError
from inbol_jax.records import METRICS, Sample, SampledQuestion, VQAExample

Row = dict[str, Any]
Parsed = TypeVar("Parsed")
# Takes a third of the time of `Sample(*columns)`: a million questions have ten million samples.
_make_sample = functools.partial(tuple.__new__, Sample)
_SHARD = re.compile(r"\.(\d{4})-of-(\d{4})$")


def store_file(out: Path, name: str) -> Path:
    """The store of the dataset NAME: the name that the shards of several processes begin with."""
    return out / "confidence" / f"{name}.jsonl"


def shard_path(file: Path, index: int, count: int) -> Path:
    """The file of process `index` of `count`: NAME.jsonl or, say, NAME.0001-of-0004.jsonl."""
    return file if count == 1 else file.with_name(f"{file.stem}.{index + 1:04}-of-{count:04}.jsonl")


def shards(file: Path) -> list[Path]:
    """The existing files of the store NAME.jsonl: itself, or what several processes wrote."""
    files = {file, *file.parent.glob("*.jsonl")}
    return sorted(f for f in files if f.is_file() and _SHARD.sub("", f.stem) == file.stem)


def missing_shards(file: Path) -> int:
    """How many shards are missing from the store that a file belongs to."""
    shard = _SHARD.search(file.stem)
    if not shard:
        return 0
    return int(shard[2]) - len(shards(file.with_name(f"{file.stem[: shard.start()]}.jsonl")))


def p_true_file(file: Path) -> Path:
    """Where the P(True) lines of a store, or of a shard of it, are.

    A line has the question's id, image and question, the answer that the model was asked about
    ("proposed", null if every sample is a refusal) and how probable the model holds it that this
    answer is true ("p_true", likewise null).
    """
    return file.parent / "p_true" / file.name


def _read(file: Path, parse: Callable[[Row], Parsed]) -> Iterator[tuple[int, Parsed]]:
    """(offset behind the line, what `parse` makes of its object) of every whole line.

    A last line without its end is one that is being written, or that a killed run left.
    """
    end = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    parsed = parse(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise InbolError(
                        f"{file}:{number}: not a line of a confidence store ({error!r})"
                    ) from error
                end += len(line)
                yield end, parsed
    except OSError as error:
        raise InbolError(f"cannot read {file}: {error.strerror}") from error


def _checked(row: Row) -> Row:
    row["id"], row["question"], row["image"], row["fingerprint"]
    return row


def read_rows(file: Path) -> Iterator[tuple[int, SampledQuestion]]:
    """(offset behind the line, question) of every whole line, without P(True).

    Raises:
      InbolError: if the file cannot be read, or naming the line, if a whole line is not a line of a
        store.
    """
    return _read(file, lambda row: question_of(_checked(row)))


def question_of(row: Row) -> SampledQuestion:
    """The question of a line's object, which is used up.

    Raises:
      KeyError, TypeError, ValueError: if it is not a line of a store.
    """
    row.pop("fingerprint", None)
    columns = [row.pop(name) for name in ("samples", "logprobs", "token_counts", "outcomes")]
    n_correct, n_samples = row.pop("n_correct"), row.pop("n_samples")
    if not n_samples or {len(column) for column in columns} != {n_samples}:
        raise ValueError("samples, logprobs, token_counts, outcomes and n_samples do not agree")
    if n_correct != (correct := columns[-1].count("correct")):
        raise ValueError(f"{correct} correct outcomes, but n_correct {n_correct}")
    samples = tuple(map(_make_sample, zip(*columns, strict=True)))
    example = VQAExample(
        id=row.pop("id"),
        image=row.pop("image"),
        question=row.pop("question"),
        answers=tuple(row.pop("answers")),
        answerable=row.pop("answerable"),
        source=row.pop("source", None) or "",
        split=row.pop("split", None) or "",
        metric=row.pop("metric", None) or METRICS[0],
        extra=row,
    )
    return SampledQuestion(example, samples)


def read_store(file: Path) -> Iterator[SampledQuestion]:
    """The questions of a store, or of a shard of it, with `p_true` for each that was asked for it.

    Raises:
      InbolError: as `read_rows`, and if the P(True) lines are of other samples.
    """
    extra = p_true_file(file)
    p_true: dict[str, float] = {}
    if extra.is_file():
        if read_meta(extra).get("samples") != read_meta(file).get("config"):
            raise InbolError(
                f"{extra} is of other samples than those of {file}; delete it and give "
                "`inbol confidence --p-true` again"
            )
        p_true = {row["id"]: row["p_true"] or 0.0 for _, row in _read(extra, _checked)}
    for _, question in read_rows(file):
        value = p_true.get(question.example.id)
        yield question if value is None else dataclasses.replace(question, p_true=value)


def check_p_true(file: Path, *, finished: bool = True) -> None:
    """Refuses a store, or a shard of it, whose questions were not asked for P(True).

    Args:
      finished: whether all questions must have been asked or set aside, or just any of them.

    Raises:
      InbolError: if they were not.
    """
    extra = p_true_file(file)
    hint = "`inbol confidence --p-true` adds it and samples nothing again"
    if not extra.is_file():
        raise InbolError(f"--estimator p-true: {file} has no p_true; {hint}")
    if not finished:
        return
    header, asked = read_meta(extra), sum(1 for _ in _read(extra, _checked))
    total = read_meta(file).get("rows")
    if asked != header.get("rows") or asked + header["set_aside"] != total:
        raise InbolError(
            f"--estimator p-true: {file} has p_true for {asked} questions so far; {hint}"
        )


def _content(question: str, image: str) -> int:
    """64 bits that stand for a question and its image: a million of them are held."""
    return int.from_bytes(hashlib.blake2b(f"{question}\0{image}".encode(), digest_size=8).digest())


class ConfidenceStore(AppendOnlyLines):
    """A writer of `OUT/confidence/NAME.jsonl` and its header; `with` closes and unlocks it.

    Args:
      settings: everything that the samples depend on. Their fingerprint is in the header and in
        every line; a file that was made with others is refused, never mixed.
      index, count: of the process among those that share the dataset; each writes a file of its
        own.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], *, index: int = 0, count: int = 1):
        self.file = shard_path(file, index, count)
        self.fingerprint = fingerprint(settings)
        # id of each stored question -> `_content` of it
        self.done: dict[str, int] = {}
        expected = {shard_path(file, i, count) for i in range(count)}
        if others := [f for f in shards(file) if f not in expected]:
            raise InbolError(
                f"{others[0]} was sampled by another number of processes; go on with as many, "
                "or choose another --out"
            )
        super().__init__(self.file)
        try:
            self._resume(settings)
        except BaseException:
            self.__exit__()
            raise

    def _resume(self, settings: Mapping[str, Any]) -> None:
        """Reads what is there, cuts a line that a killed run left half written, writes a header."""
        header = read_meta(self.file)
        if header.get("config") != self.fingerprint and (header or self.file.stat().st_size):
            changed = ", ".join(sorted(k for k in settings if header.get(k) != settings[k]))
            raise InbolError(
                f"{self.file} was sampled with other settings ({changed or 'no header'}); "
                "choose another --out or delete it"
            )
        for number, (_, row) in enumerate(_read(self.file, _checked), 1):
            if row["fingerprint"] != self.fingerprint or row["id"] in self.done:
                raise InbolError(
                    f"{self.file}:{number}: a line of another run, or one that is there twice; "
                    "delete it"
                )
            self.done[row["id"]] = _content(row["question"], row["image"])
        self.append(())
        if not header:
            header = dict(settings) | {"config": self.fingerprint}
        # The store is not finished until `finish` says so: the dataset may have grown since.
        header.pop("rows", None)
        started = {"started": time.time(), "started_with": len(self.done)}
        write_json(meta_path(self.file), header | started)

    def pending(self, examples: Sequence[VQAExample]) -> Sequence[VQAExample]:
        """The examples that are not in the store yet; those of a dataset stay on the disk.

        Raises:
          InbolError: if the store holds an id with another question or image: the dataset was
            changed.
        """
        if not self.done:
            return examples
        indices = array.array("Q")
        for i, example in enumerate(examples):
            if example.id not in self.done:
                indices.append(i)
            elif self.done[example.id] != _content(example.question, example.image):
                raise InbolError(
                    f"{self.file}: {example.id} was another question when it was sampled; "
                    "choose another --out or delete it"
                )
        if isinstance(examples, Examples):
            return examples.take(indices)
        return [examples[i] for i in indices]

    def append(self, rows: Iterable[Row]) -> None:
        """Adds lines, with the fingerprint of the settings; waits until they are on the disk."""
        super().append(map(self._fingerprinted, rows))

    def _fingerprinted(self, row: Row) -> Row:
        self.done[row["id"]] = _content(row["question"], row["image"])
        return row | {"fingerprint": self.fingerprint}

    def finish(self, set_aside: int = 0) -> None:
        """Notes in the header how many questions the store holds, and how many were set aside.

        A store with another number of lines is still being filled.
        """
        counts = {"rows": len(self.done), "set_aside": set_aside}
        write_json(meta_path(self.file), read_meta(self.file) | counts)
