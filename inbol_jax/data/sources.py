"""Rows of a set as its files or the `datasets` library hold them, one by one, numbered from 1.

A row that cannot be read comes as the `Unusable` that says why; only damage that makes the rest
unreadable is an error.
The number is 0 for an annotation without a question, which has no place among the questions.
"""

import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbol_jax.data.config import DataConfig
from inbol_jax.data.json_stream import json_objects
from inbol_jax.data.rows import RawRow, Unusable, parse_line
from inbol_jax.errors import InbolError

Rows = Iterator[tuple[int, RawRow | Unusable]]

# The keys of official files for their records; UNK-VQA has the one without an "s".
LISTS = ("questions", "annotations", "annotation", "data")
BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv",
            ".arrow": "arrow"}  # fmt: skip


def file_rows(path: Path, *, by_id: str | None = None) -> Rows:
    """Rows of a JSON file (an array, or an object with one), of JSON lines, or of CSV.

    JSON lines are known by their content, whatever the suffix. If the file is an object of objects,
    the column `by_id` gets a row's key.

    Raises:
      InbolError: if the file cannot be read, or is damaged as a whole.
    """
    try:
        if path.suffix.lower() == ".csv":
            yield from enumerate(_csv_rows(path), 1)
        elif _is_json_lines(path):
            yield from _json_lines(path)
        else:
            for number, row in enumerate(json_objects(path, keys=LISTS, by_id=by_id), 1):
                yield number, row if isinstance(row, dict) else Unusable("not a JSON object")
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = parse_line(line)
                except Unusable as cause:
                    row = cause
                yield number, row


def _is_json_lines(path: Path) -> bool:
    """Whether the first line is an object and another line follows."""
    if path.suffix.lower() == ".jsonl":
        return True
    with path.open("rb") as file:
        try:
            parse_line(file.readline(1 << 20))
        except Unusable:
            return False
        return any(line.strip() for line in file)


def _csv_rows(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for row in csv.DictReader(file):
                row.pop(None, None)  # cells beyond the header's columns
                yield row
        except csv.Error as error:
            raise InbolError(f"{path}: not CSV ({error})") from error


def joined(questions: Rows, annotations: Rows) -> Rows:
    """Questions with their annotations, which may come in another order.

    Only those whose other half has not come yet are in memory. Questions without an annotation come
    at the end, as do annotations without a question, each as `Unusable`.
    """
    key = "question_id"
    waiting: dict[Any, tuple[int, RawRow]] = {}  # questions by id
    answers: dict[Any, RawRow] = {}  # annotations by id
    for question, annotation in itertools.zip_longest(questions, annotations):
        if annotation is not None:
            _, answer = annotation
            id = answer if isinstance(answer, Unusable) else answer.get(key)
            if isinstance(answer, Unusable):
                yield 0, answer
            elif not isinstance(id, str | int):
                yield 0, Unusable("annotation without an id")
            elif id in waiting:
                number, row = waiting.pop(id)
                yield number, {**row, **answer}
            else:
                answers[id] = _compact(answer)
        if question is not None:
            number, row = question
            id = None if isinstance(row, Unusable) else row.get(key)
            if isinstance(row, Unusable) or not isinstance(id, str | int):
                yield number, row
            elif id in answers:
                yield number, {**row, **answers.pop(id)}
            elif id in waiting:
                yield number, Unusable("duplicated id", str(id))
            else:
                waiting[id] = (number, row)
    for id, (number, _) in waiting.items():
        yield number, Unusable("question without annotation", str(id))
    for id in answers:
        yield 0, Unusable("annotation without question", str(id))


def _compact(annotation: RawRow) -> RawRow:
    """With answers as shared strings: ten objects each take gigabytes if the orders differ."""
    answers = annotation.get("answers")
    if not isinstance(answers, list):
        return annotation
    texts = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
    shared = [sys.intern(text) if isinstance(text, str) else text for text in texts]
    return {**annotation, "answers": shared}


def hub_rows(config: DataConfig, subset: str | None) -> Rows:
    """Rows of a set of the `datasets` library, with pictures as they are stored, not decoded.

    Raises:
      InbolError: if there is no such set, subset or split, or if its files cannot be read.
    """
    import datasets  # takes a second, which a dataset folder does not need

    assert config.id is not None
    options = {"name": subset, "split": config.split, "streaming": config.streaming}
    local = Path(config.id)
    if local.is_dir():
        options["path"] = str(local.resolve())
    elif local.is_file():
        if local.suffix.lower() not in BUILDERS:
            fault = f"a file must end with one of {', '.join(BUILDERS)}"
            raise InbolError(f"--data.id {local}: {fault}")
        options["path"] = BUILDERS[local.suffix.lower()]
        options["data_files"] = {config.split: str(local)}
    else:
        options |= {"path": config.id, "revision": config.revision}
    datasets.disable_progress_bars()
    number = 0
    try:
        rows = datasets.load_dataset(**options)
        for column, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(rows, 1):
            yield number, row
    except Exception as error:  # any error of the reader or client that the library chose
        about = " ".join(str(error).split()) or type(error).__name__
        fault = f"record {number + 1}: cannot be read"
        if not number:
            fault = f"no set that `datasets` can load with subset {subset}, split {config.split}"
        raise InbolError(f"--data.id {config.id}: {fault} ({about[:300]})") from error
