"""`inbol data import`: any set as a dataset folder, which every command reads."""

import itertools
import os
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import (
    atomic_lines,
    file_fingerprint,
    fingerprint,
    json_line,
    one_writer,
    write_jsonl,
)
from inbol_jax.data.columns import cleaned, first, named_columns
from inbol_jax.data.config import TEXT_FILES, ImportConfig
from inbol_jax.data.folder import Unusable
from inbol_jax.data.pictures import Pictures
from inbol_jax.data.rows import RawRow, Rejection, make_example, record_id
from inbol_jax.data.sets import COCO, FILE, SETS, Spec
from inbol_jax.data.sources import Rows, joined, library_rows, text_rows
from inbol_jax.data.vqa import DATA_FILE, REJECTED_FILE, report_rejections
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample
from inbol_jax.stage import Stage

IMAGES = "--image-column names the column, --images the folder, --image-template paths of ids"


@one_writer
def import_data(config: ImportConfig) -> Path:
    """Writes a set as a dataset folder, unless the folder holds it already, with the same settings.

    Records that cannot be used go to `rejected.jsonl` with their cause. Returns the folder.

    Raises:
      InbolError: if the set cannot be read, if more records than --max-rejected cannot be used, or
        if the folder holds another set.
    """
    folder = config.out
    for option, path in (("id", config.is_file and config.id), ("annotations", config.annotations)):
        if path and not Path(path).is_file():
            raise InbolError(f"--{option} {path}: no such file")
    if config.images and not config.images.is_dir():
        raise InbolError(f"--images {config.images}: no such folder")
    # As seen from the dataset's folder.
    images = os.path.relpath((config.images or folder).resolve(), folder.resolve())
    # The fingerprint says what the files hold.
    without = {"out", "annotations", "id", "max_rejected"}
    settings = {k: v for k, v in vars(config).items() if k not in without} | {"images": images}
    inputs = {"id": _source_fingerprint(config)}
    with Stage(folder / DATA_FILE, "data import", settings, inputs=inputs) as stage:
        if not stage.finished:
            _write(config, stage, images)
        header = stage.header
    say(
        f"{header['rows']:,} questions of {folder.name}, {header['without_answers']:,} of them "
        f"without answers, {header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _source_fingerprint(config: ImportConfig) -> str:
    """Changes if the set's files do; for a set on the hub it is the id."""
    local = Path(str(config.id))
    if config.is_file:
        return file_fingerprint(*filter(None, (local, config.annotations)))
    if not local.exists():
        return str(config.id)
    files = {file: file.stat() for file in sorted(local.rglob("*")) if file.is_file()}
    return fingerprint(
        [(os.path.relpath(f, local), s.st_size, s.st_mtime_ns) for f, s in files.items()]
    )


def _write(config: ImportConfig, stage: Stage, images: str) -> None:
    """Writes `data.jsonl`, with its header of settings and counts, and `rejected.jsonl`."""
    folder, spec = stage.file.parent, SETS[config.format]
    pictures, rejected = Pictures(config, folder, base64=spec.base64), list[Rejection]()
    ids, without_answers = set[str](), 0
    with (
        progress(f"importing {folder.name}", config.limit, "records") as advance,
        atomic_lines(stage.file) as lines,
    ):
        for number, row in itertools.islice(_rows(config, spec), config.limit):
            advance()
            try:
                example = _example(number, row, spec, config, pictures)
                if example.id in ids:
                    raise Unusable("duplicated id", id=example.id)
                line = json_line(example.to_json())
            except Unusable as cause:
                rejected.append(Rejection(number or None, cause.id, str(cause), cause.detail))
            except (UnicodeEncodeError, RecursionError) as error:  # half a surrogate pair
                cause = "not UTF-8" if isinstance(error, UnicodeError) else "nested too deeply"
                rejected.append(Rejection(number, _raw_id(row), cause))
            else:
                ids.add(example.id)
                without_answers += not example.answers and example.answerable is None
                lines.write(line)
        total = len(ids) + len(rejected)
        listed = (one.to_json() for one in rejected)
        write_jsonl(folder / REJECTED_FILE, listed, {"command": "import", "records": total})
        report_rejections(rejected, total, config.max_rejected, str(config.id), IMAGES)
    about = {"prompt": spec.prompt} if spec.prompt else {}
    about |= {"images": images, "set_aside": len(rejected), "without_answers": without_answers}
    stage.finish(len(ids), **about)


def _rows(config: ImportConfig, spec: Spec) -> Rows:
    """The rows of the file, folder or hub set that --id names, with what its names tell."""
    local = Path(str(config.id))
    if local.suffix.lower() not in TEXT_FILES:
        yield from library_rows(config)
        return
    rows = text_rows(local, by_id=spec.by_id)
    if config.annotations:
        rows = joined(rows, text_rows(config.annotations))
    names = _official_names(config) if config.format != "columns" else {}
    for number, row in rows:
        if isinstance(row, Unusable):
            yield number, row
        elif not (spec.splits and config.split) or row.get("split") == config.split:
            yield number, {**row, **names}


def _official_names(config: ImportConfig) -> RawRow:
    """What the names of official files tell about each of their rows."""
    paths = [*filter(None, (Path(str(config.id)), config.annotations, config.images))]
    names = (config.split or "", *(path.name for path in paths))
    splits = ("train2014", "val2014", "test2015")
    coco = next((split for name in names for split in splits if split in name), None)
    return {FILE: paths[0].stem, COCO: coco}


def _raw_id(row: RawRow) -> str | None:
    """The id of a row that cannot be used."""
    return record_id(first(row, "question_id", "id", "index"))


def _example(
    number: int, row: RawRow | Unusable, spec: Spec, config: ImportConfig, pictures: Pictures
) -> VQAExample:
    """The record of a row.

    Raises:
      Unusable: if the row cannot be used; it has the record's id if that could be read.
    """
    if isinstance(row, Unusable):
        raise row
    id = _raw_id(row)
    try:
        columns = _columns(row, spec, config)
        id = record_id(columns["id"])
        if columns["id"] is None and not {"id", "question_id"} & row.keys():
            columns["id"] = f"{config.split}-{number}" if config.split else str(number)
        named = pictures.folder.resolve().name if spec.columns is None else config.format
        columns["source"] = columns.get("source") or named
        columns["split"] = config.split or columns.get("split")
        if metric := config.metric or spec.metric:
            columns["metric"] = metric
        record = cleaned(columns, letters=spec.columns is not None)
        return make_example(record | {"images": pictures.names(columns["image"], row)})
    except Unusable as cause:
        raise Unusable(str(cause), cause.detail, id=id) from None


def _columns(row: RawRow, spec: Spec, config: ImportConfig) -> dict[str, Any]:
    """The columns of `data.jsonl` that a row gives, as the row holds them."""
    if spec.columns is None:
        options = config.image_column, config.question_column, config.answers_column
        return dict(named_columns(row, *options))
    try:
        return spec.columns(row)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unusable("columns not as the set has them", repr(error)[:80]) from None
