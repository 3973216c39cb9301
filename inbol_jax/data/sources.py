"""Rows of a set as its files or the `datasets` library hold them, one after the other, numbered from 1 (0: a row of another file).

A row that cannot be read comes as the `Unusable` that says why; only what makes the rest unreadable is an error.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inbol_jax.data.config import DataConfig
from inbol_jax.data.json_stream import json_objects
from inbol_jax.data.vqa import BYTE_ORDER_MARK, Unusable, parse_line
from inbol_jax.errors import InbolError

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, "Row | Unusable"]]

_LISTS = ("questions", "annotations", "data")  # under which the official files hold their records


def file_rows(path: Path, *, by_id: str | None = None) -> Rows:
    """Rows of a JSON file (an array, or an object with one), of JSON lines, whatever the suffix, or of a CSV file with a header.

    Args:
      by_id: the column that gets a row's key, where the file is an object of objects.
    Raises:
      InbolError: where the file cannot be read, or is damaged as a whole.
    """
    try:
        if path.suffix.lower() == ".csv":
            yield from enumerate(_csv_rows(path), 1)
        elif _is_json_lines(path):
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield (
                            number,
                            _parsed(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line),
                        )
        else:
            for number, row in enumerate(json_objects(path, keys=_LISTS, by_id=by_id), 1):
                yield number, row if isinstance(row, dict) else Unusable("not a JSON object")
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error


def _parsed(line: bytes) -> "Row | Unusable":
    try:
        return parse_line(line)
    except Unusable as cause:
        return cause


def _is_json_lines(path: Path) -> bool:
    if path.suffix.lower() == ".jsonl":
        return True
    with path.open("rb") as file:
        first = file.readline(1 << 20).removeprefix(BYTE_ORDER_MARK)
        return not isinstance(_parsed(first), Unusable) and any(
            line.strip() for line in file
        )  # an object, and something behind it


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 1 << 24))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for row in csv.DictReader(file):
                row.pop(None, None)  # cells beyond the header's columns
                yield row
        except csv.Error as error:
            raise InbolError(f"{path}: not CSV ({error})") from error


def joined(questions: Rows, annotations: Rows, key: str = "question_id") -> Rows:
    """Questions with their annotations; in memory are only those whose other half has not come yet (the official files have one order).

    A question without an annotation comes at the end, as does an annotation without a question, as what cannot be used.
    """
    waiting: dict[Any, tuple[int, Row]] = {}
    answers: dict[Any, Row] = {}
    annotated = (row for _, row in annotations)
    ended = object()
    while True:
        question, annotation = next(questions, ended), next(annotated, ended)
        if question is ended and annotation is ended:
            break
        if isinstance(annotation, Unusable):
            yield 0, annotation
        elif annotation is not ended:
            id = annotation.get(key)
            if not isinstance(id, str | int):
                yield 0, Unusable("annotation without an id")
            elif id in waiting:
                number, row = waiting.pop(id)
                yield number, {**row, **annotation}
            else:
                answers[id] = _compact(annotation)
        if question is not ended:
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


def _compact(annotation: Row) -> Row:
    """With answers as shared strings: ten objects each would be gigabytes where the files' orders differ."""
    answers = annotation.get("answers")
    if not isinstance(answers, list):
        return annotation
    said = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
    return {
        **annotation,
        "answers": [sys.intern(answer) if isinstance(answer, str) else answer for answer in said],
    }


def hub_rows(config: DataConfig, subset: str | None) -> Rows:
    """Rows of a set of the `datasets` library, pictures as they are stored, undecoded.

    Raises:
      InbolError: where there is no such set, subset or split, or its files cannot be read.
    """
    import datasets  # takes a second, which a dataset folder does not need

    datasets.disable_progress_bars()
    assert config.id is not None
    local = Path(config.id)
    options: dict[str, Any] = {"name": subset, "split": config.split, "streaming": config.streaming}
    if local.is_file():
        builders = {
            ".parquet": "parquet",
            ".json": "json",
            ".jsonl": "json",
            ".csv": "csv",
            ".arrow": "arrow",
        }
        if local.suffix.lower() not in builders:
            raise InbolError(
                f"--data.id {local}: a file must end with one of {', '.join(builders)}"
            )
        where, options["data_files"] = builders[local.suffix.lower()], {config.split: str(local)}
    else:
        where = str(local.resolve()) if local.is_dir() else config.id
        options["revision"] = None if local.is_dir() else config.revision
    number = 0
    try:
        found = datasets.load_dataset(where, **options)
        for column, feature in (found.features or {}).items():
            if isinstance(feature, datasets.Image):
                found = found.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(found, 1):
            yield number, row
    except InbolError:
        raise
    except Exception as error:  # of whichever reader or client the library chose
        about = " ".join(str(error).split()) or type(error).__name__
        what = (
            f"record {number + 1}: cannot be read"
            if number
            else f"no set that `datasets` can load with subset {subset}, split {config.split}"
        )
        raise InbolError(f"--data.id {config.id}: {what} ({about[:300]})") from error


def first_rows(rows: Rows, limit: int | None) -> Rows:
    """At most so many."""
    for count, item in enumerate(rows, 1):
        yield item
        if count == limit:
            return
