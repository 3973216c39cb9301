"""Rows of a set as its files or the `datasets` library hold them, one by one, numbered from 1.

Text files are read here and not by `datasets`, which guesses types: of a CSV it makes 7 of "007",
nothing of the answer "NA", and shifts a row with a cell too many; of JSON, a date of "2015-03-01".

A row that cannot be read comes as the `Unusable` that says why; only damage that makes the rest
unreadable is an error. The number is 0 for an annotation without a question.
"""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from inbol_jax.data.config import FILES, ImportConfig
from inbol_jax.data.folder import Unusable
from inbol_jax.data.rows import RawRow, parse_line, record_id
from inbol_jax.errors import InbolError

Rows = Iterator[tuple[int, RawRow | Unusable]]

# The keys of official files for their records; UNK-VQA has the one without an "s".
LISTS = ("questions", "annotations", "annotation", "data")
BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}  # of `datasets`


def text_rows(path: Path, *, by_id: str | None = None) -> Rows:
    """Rows of CSV, TSV, JSON lines, or JSON: an array, or an object with one.

    JSON lines are known by their content, whatever the suffix. If the file is an object of objects,
    the column `by_id` gets a row's key.

    Raises:
      InbolError: if the file cannot be read, or is damaged as a whole.
    """
    try:
        if delimiter := {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower()):
            yield from _csv_rows(path, delimiter)
        elif path.suffix.lower() == ".jsonl" or _has_lines(path):
            yield from _json_lines(path)
        else:
            for number, row in enumerate(_json_records(path, by_id), 1):
                yield number, row if isinstance(row, dict) else Unusable("not a JSON object")
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error


def _has_lines(path: Path) -> bool:
    """Whether the first line is an object and another line follows."""
    with path.open("rb") as file:
        try:
            parse_line(file.readline(1 << 20))
        except Unusable:
            return False
        return any(line.strip() for line in file)


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, parse_line(line)
                except Unusable as cause:
                    yield number, cause


def _json_records(path: Path, by_id: str | None) -> Iterable[Any]:
    # What is not UTF-8 becomes lone surrogates, so that only the records with such text are lost.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InbolError(f"{path}: not whole JSON ({error}); fetch it again") from error
    if isinstance(value, dict):
        if by_id is not None:
            return ({by_id: k} | v if isinstance(v, dict) else v for k, v in value.items())
        value = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
    if not isinstance(value, list):
        raise InbolError(f"{path}: holds no list of records under {' or '.join(map(repr, LISTS))}")
    return value


def _csv_rows(path: Path, delimiter: str) -> Rows:
    csv.field_size_limit(1 << 24)  # a picture in base64 is one field
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            for name, count in Counter(rows.fieldnames or ()).items():
                if "\0" in name:
                    raise InbolError(f"{path}: is UTF-16 and not UTF-8; save it as UTF-8")
                if name and count > 1:  # spreadsheets add several without a name
                    raise InbolError(f"{path}: column {name!r} comes twice; rename or remove one")
            for number, row in enumerate(rows, 1):
                # A comma too many or too few: every cell behind it is in the wrong column.
                more = any(cell.strip() for cell in row.pop(None, ()))
                if more or None in row.values():
                    row = Unusable(f"{'more' if more else 'fewer'} cells than columns")
                yield number, row
        except csv.Error as error:
            raise InbolError(f"{path}: not CSV after line {rows.line_num} ({error})") from error


def joined(questions: Rows, annotations: Rows) -> Rows:
    """Questions with their annotations, whatever the order of either; what has no other half comes
    as `Unusable`, annotations at the end."""
    by_id: dict[str | None, RawRow] = {}
    for _, row in annotations:
        id = None if isinstance(row, Unusable) else record_id(row.get("question_id"))
        if isinstance(row, Unusable):
            yield 0, row
        elif id is None or id in by_id:
            cause = "annotation without an id" if id is None else "second annotation of a question"
            yield 0, Unusable(cause, id=id)
        else:
            by_id[id] = row
    asked = set()
    for number, row in questions:
        id = None if isinstance(row, Unusable) else record_id(row.get("question_id"))
        if isinstance(row, Unusable) or id is None:
            yield number, row
        elif id in by_id:
            asked.add(id)
            yield number, {**row, **by_id[id]}
        else:
            yield number, Unusable("question without annotation", id=id)
    for id in by_id:
        if id not in asked:
            yield 0, Unusable("annotation without question", id=id)


def library_rows(config: ImportConfig) -> Rows:
    """Rows of what the `datasets` library reads, with pictures as they are stored, not decoded.

    Raises:
      InbolError: if there is no such set, subset or split, or if its files cannot be read.
    """
    import datasets  # takes a second, which a dataset folder does not need

    datasets.disable_progress_bars()
    number = 0
    try:
        # Of local files nothing is copied, so that no old copy is ever read; even the library's
        # locks go to a folder that does not stay.
        with tempfile.TemporaryDirectory() as cache:
            rows = _load(config, cache)
            if isinstance(rows, list):
                text = (row for file in rows for _, row in text_rows(Path(file)))
                yield from enumerate(text, 1)
                return
            if rows.features:  # not known of some streams of JSON
                rows = rows.decode(False)
            for number, row in enumerate(rows, 1):
                yield number, row
    except InbolError:
        raise
    except Exception as error:  # any error of the reader or client that the library chose
        fault = f"record {number + 1}: cannot be read"
        if not number:
            fault = "no set that `datasets` can load with these --subset and --split"
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise InbolError(f"--id {config.id}: {fault} ({cause})") from error


def _load(config: ImportConfig, cache: str) -> Any:
    """The set as the `datasets` library has it, or the text files that it consists of."""
    import datasets

    local, subset = Path(str(config.id)), config.subset
    if not local.exists():
        return datasets.load_dataset(config.id, name=subset, split=config.split, streaming=True)
    if local.is_file():
        if local.suffix.lower() not in BUILDERS:
            raise InbolError(f"--id {local}: a file must end with one of {', '.join(FILES)}")
        options = {"data_files": {"train": str(local)}, "cache_dir": cache}
        builder = datasets.load_dataset_builder(BUILDERS[local.suffix.lower()], **options)
        return builder.as_streaming_dataset(split="train")
    if any((local / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise InbolError(f"--id {local}: is from `save_to_disk`; write it by `to_parquet`")
    builder = datasets.load_dataset_builder(str(local.resolve()), name=subset, cache_dir=cache)
    splits = list(map(str, builder.config.data_files))
    split = splits[0] if config.split is None and len(splits) == 1 else config.split
    if split not in splits:
        raise InbolError(f"--id {local}: give --split, one of {', '.join(splits)}")
    if builder.name in ("csv", "json"):
        return list(builder.config.data_files[split])
    return builder.as_streaming_dataset(split=split)
