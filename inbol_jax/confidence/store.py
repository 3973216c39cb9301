"""The confidence store: one line per question, appended as the answers come; what is there is not
sampled again."""

import array
import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from inbol_jax.artifacts import (
    AppendOnlyLines,
    check_name,
    file_fingerprint,
    fingerprint,
    meta_path,
    parse_json,
    read_meta,
    write_json,
)
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import Examples
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.questions import lettered
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.config import ENDPOINT
from inbol_jax.stage import HINT, changes

Row = dict[str, Any]
Parsed = TypeVar("Parsed")
# Takes a third of the time of `Sample(*columns)`: a million questions have ten million samples.
_make_sample = functools.partial(tuple.__new__, Sample)
_COLUMNS = ("samples", "logprobs", "token_counts", "outcomes", "samples_cut")
# What may have become of the questions of a store since they were asked.
_CHANGES = {
    "scored": "scored again, as answers or other columns of theirs changed",
    "gone": "dropped, as they are no longer in the dataset",
    "changed": "dropped, to be asked again, as what they ask changed",
}
_SHARD = re.compile(r"\.(\d{4})-of-(\d{4})$")


def store_file(out: Path, name: str) -> Path:
    """The store of the dataset NAME: the name that the shards of several processes begin with.

    Raises:
      InbolError: if the name cannot be that of a file.
    """
    check_name(name, "dataset")
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
                    parsed = parse(parse_json(line))
                except (ValueError, KeyError, TypeError, InbolError) as error:
                    raise InbolError(
                        f"{file}:{number}: not a line of a confidence store ({error!r})"
                    ) from error
                end += len(line)
                yield end, parsed
    except OSError as error:
        raise InbolError(f"cannot read {file}: {error.strerror}") from error


def _checked(row: Row) -> Row:
    row["id"], row["question"], row["images"], row["fingerprint"]
    return row


def _without_hashes(row: Row) -> Row:
    for name in ("fingerprint", "image_hash"):
        row.pop(name, None)
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
    _without_hashes(row)
    columns = [row.pop(name) for name in _COLUMNS]
    n_correct, n_samples = row.pop("n_correct"), row.pop("n_samples")
    if not n_samples or {len(column) for column in columns} != {n_samples}:
        raise ValueError(f"{', '.join(_COLUMNS)} and n_samples do not agree")
    if n_correct != (correct := columns[3].count("correct")):
        raise ValueError(f"{correct} correct outcomes, but n_correct {n_correct}")
    samples = tuple(map(_make_sample, zip(*columns, strict=True)))
    if not all(isinstance(text, str) for text in columns[0]):
        raise TypeError("samples are texts")
    return SampledQuestion(VQAExample.from_json(row), samples)


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
    if str(read_meta(file).get("model")).startswith(ENDPOINT):
        hint = "it cannot be asked of an endpoint's model; choose another --estimator"
    if not extra.is_file():
        raise InbolError(f"--estimator p-true: {file} has no p_true; {hint}")
    if not finished:
        return
    header, asked = read_meta(extra), sum(1 for _ in _read(extra, _checked))
    samples = read_meta(file)
    if (
        asked != header.get("rows")
        or asked + header["set_aside"] != samples.get("rows")
        or header.get("data_fingerprint") != samples.get("data_fingerprint")
    ):
        raise InbolError(
            f"--estimator p-true: {file} has p_true for {asked} questions so far; {hint}"
        )


def check_data(file: Path) -> None:
    """Refuses a store, or a shard of it, if its dataset was changed since.

    The store is complete without the dataset: one that is no longer there is not asked for.

    Raises:
      InbolError: if it was.
    """
    header = read_meta(file)
    data = file.parent / header.get("data", "")
    if data.is_file() and file_fingerprint(data) != header["data_fingerprint"]:
        raise InbolError(
            f"{data} was changed since {file} was made of it; give `inbol confidence` again: only "
            "what changed is scored or sampled"
        )


def _joined(hashes: Mapping[str, str], names: Sequence[str]) -> str:
    """One hash of a question's images, in their order."""
    return "-".join(hashes[name] for name in names)


class ConfidenceStore(AppendOnlyLines):
    """A writer of `OUT/confidence/NAME.jsonl` and its header; `with` closes and unlocks it.

    Args:
      settings: everything that the samples depend on. Their fingerprint is in the header and in
        every line; a file that was made with others is refused, never mixed.
      images: the hashes of the dataset's images, of which each line has its own.
      index, count: of the process among those that share the dataset; each writes a file of its
        own.
      replace: whether lines that were made with other settings are deleted instead.
    """

    def __init__(
        self,
        file: Path,
        settings: Mapping[str, Any],
        images: ImageHashes,
        *,
        index: int = 0,
        count: int = 1,
        replace: bool = False,
    ):
        self.file = shard_path(file, index, count)
        self.fingerprint = fingerprint(settings)
        self.done: set[str] = set()  # the ids of the stored questions
        self._images, self._alone = images, count == 1
        expected = {shard_path(file, i, count) for i in range(count)}
        if others := [f for f in shards(file) if f not in expected]:
            raise InbolError(
                f"{others[0]} was sampled by another number of processes; go on with as many, "
                "or choose another --out"
            )
        super().__init__(self.file)
        try:
            self._resume(settings, replace)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        if any(error) and not self.done:  # nothing was sampled with options that were refused
            meta_path(self.file).unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)
        super().__exit__()

    def _resume(self, settings: Mapping[str, Any], replace: bool) -> None:
        """Reads what is there, cuts a line that a killed run left half written, writes a header."""
        header = read_meta(self.file)
        other = header.get("config") != self.fingerprint
        if other and replace:
            self.rewrite(())
            header = {}
        elif other and (header or self.file.stat().st_size):
            changed = changes({name: header.get(name) for name in settings}, settings)
            how = f"with {'; '.join(changed.values())}" if header else "by another command"
            raise InbolError(f"{self.file} was made {how}: {HINT}")
        for number, (_, row) in enumerate(_read(self.file, _checked), 1):
            if row["fingerprint"] != self.fingerprint or row["id"] in self.done:
                raise InbolError(
                    f"{self.file}:{number}: a line of another run, or one that is there twice; "
                    "delete it"
                )
            self.done.add(row["id"])
        self.append(())
        if not header:
            header = dict(settings) | {"config": self.fingerprint}
        started = {"started": time.time(), "started_with": len(self.done)}
        write_json(meta_path(self.file), header | started)

    def update(
        self,
        examples: Sequence[VQAExample],
        data: Path,
        refresh: Callable[[VQAExample, Row], Row | None],
        *,
        ask_again: bool = False,
    ) -> None:
        """Brings the lines up to date with the dataset, and says how many had to be changed.

        Args:
          data: the dataset's file, whose fingerprint the header gets.
          refresh: makes a line of an example and its old line, None if it must be asked again.
          ask_again: whether lines with another question or image are dropped, and so asked again,
            instead of refused.

        Raises:
          InbolError: if there are such lines.
        """
        where: dict[str, int] = {}
        names: set[str] = set()
        for i, example in enumerate(examples):
            if example.id in self.done:
                where[example.id] = i
                names.update(example.images)
        images = self._images.of(names)

        def renewed(row: Row) -> tuple[str, Row | None]:
            """What becomes of a line, and the line that replaces it."""
            if row["id"] not in where:
                return "gone", None
            example = examples[where[row["id"]]]
            whole = "\n".join((row["question"], *lettered(row.get("options", ()))))
            asked = whole, row.get("image_hash")
            new = refresh(example, _without_hashes(dict(row)))
            if asked != (example.whole, _joined(images, example.images)) or new is None:
                return "changed", None
            return ("scored" if self._hashed(new) != row else ""), self._hashed(new)

        found: dict[str, list[str]] = {name: [] for name in _CHANGES}
        for _, row in _read(self.file, _checked):
            if name := renewed(row)[0]:
                found[name].append(row["id"])
        if found["changed"] and not ask_again:
            raise InbolError(
                f"{self.file}: {found['changed'][0]} was another question, or had another image, "
                f"when it was sampled (and {len(found['changed']) - 1} more); put back what was, "
                "choose another --out or delete it"
            )
        if found["gone"] and not self._alone:
            raise InbolError(
                f"{self.file}: {found['gone'][0]} is no longer in the share of this process (and "
                f"{len(found['gone']) - 1} more), as the dataset lost records; put them back, or "
                "choose another --out"
            )
        if counts := [f"{len(ids)} {_CHANGES[name]}" for name, ids in found.items() if ids]:
            lines = (renewed(row)[1] for _, row in _read(self.file, _checked))
            self.rewrite(line for line in lines if line)
            self.done -= {*found["gone"], *found["changed"]}
            say(f"{self.file}: {'; '.join(counts)}")
        about = {
            "data": os.path.relpath(data.resolve(), self.file.parent.resolve()),
            "data_fingerprint": file_fingerprint(data),
        }
        header = read_meta(self.file) | about
        # The store is not finished until `finish` says so: the dataset may have grown since.
        header.pop("rows", None)
        write_json(meta_path(self.file), header)

    def pending(self, examples: Sequence[VQAExample]) -> Sequence[VQAExample]:
        """The examples that are not in the store yet; those of a dataset stay on the disk."""
        indices = array.array("Q", (i for i, e in enumerate(examples) if e.id not in self.done))
        if isinstance(examples, Examples):
            return examples.take(indices)
        return [examples[i] for i in indices]

    def append(self, rows: Iterable[Row]) -> None:
        """Adds lines, with their hashes; waits until they are on the disk."""
        rows = list(rows)
        self._images.of(name for row in rows for name in row["images"])
        super().append(map(self._hashed, rows))
        self.done.update(row["id"] for row in rows)

    def _hashed(self, row: Row) -> Row:
        image = _joined(self._images.of(row["images"]), row["images"])
        return row | {"fingerprint": self.fingerprint, "image_hash": image}

    def finish(self, set_aside: int = 0) -> None:
        """Notes in the header how many questions the store holds, and how many were set aside.

        A store with another number of lines is still being filled.
        """
        counts = {"rows": len(self.done), "set_aside": set_aside}
        write_json(meta_path(self.file), read_meta(self.file) | counts)
