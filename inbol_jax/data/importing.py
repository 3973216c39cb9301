"""`inbol data import`: any set as a dataset folder, which every command reads."""

import contextlib
import dataclasses
import functools
import itertools
import os
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import (
    file_fingerprint,
    fingerprint,
    json_line,
    read_jsonl,
    sole_writer,
)
from inbol_jax.data.columns import COCO, FILE, Spec, columns_of, value
from inbol_jax.data.config import TEXT_FILES, DataConfig, ImportConfig, as_data_config
from inbol_jax.data.folder import Unusable
from inbol_jax.data.pictures import Pictures
from inbol_jax.data.rows import RawRow, Rejection, make_example, record_id
from inbol_jax.data.sets import SETS
from inbol_jax.data.sources import Rows, joined, library_rows, text_rows
from inbol_jax.data.vqa import (
    DATA_FILE,
    REJECTED_FILE,
    VQADataset,
    load_dataset_folder,
    stop_at_too_many,
    write_rejections,
    writing_dataset,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample
from inbol_jax.stage import Stage

IMAGES = "--data.images names the folder of paths, --data.image-template makes paths of ids"


def import_data(config: ImportConfig) -> Path:
    """Imports a set, with the errors of `import_dataset`. Returns its folder."""
    data = as_data_config(config.data)
    if data.source_format == "folder":
        raise InbolError(
            f"--data {data.dir}: is a dataset folder already; `inbol data check` checks one"
        )
    return import_dataset(data, config.out, max_rejected=config.max_rejected)


def open_dataset(data: Path | DataConfig, *, out: Path, max_rejected: float = 0.1) -> VQADataset:
    """The dataset that a command's options name.

    A dataset folder is read as it is. Any other set is first imported to `out/data/NAME`, unless it
    is there already. The share `max_rejected` of the records may be set aside, in [0, 1].

    Raises:
      InbolError: if the set cannot be read, or if more records than that share cannot be used.
    """
    config = as_data_config(data)
    if config.source_format == "folder":
        assert config.dir is not None
        options = {"images": config.images, "limit": config.limit, "max_rejected": max_rejected}
        return load_dataset_folder(config.dir, **options)
    folder = import_dataset(config, out / "data" / config.called(), max_rejected=max_rejected)
    dataset = load_dataset_folder(folder, max_rejected=max_rejected)
    rejected = [Rejection(**row) for row in read_jsonl(folder / REJECTED_FILE)] + dataset.rejected
    total = len(dataset.examples) + len(rejected)
    stop_at_too_many(rejected, total, max_rejected, folder, IMAGES)
    return dataclasses.replace(dataset, rejected=rejected)


def import_dataset(config: DataConfig, folder: Path, *, max_rejected: float = 0.1) -> Path:
    """Writes a set as a dataset folder, unless the folder holds it already, with the same settings.

    Records that cannot be used go to `rejected.jsonl` with their cause. Returns the folder.

    Raises:
      InbolError: as `open_dataset`; also if the folder holds another set.
    """
    for option, path in (("id", config.is_file and config.id), ("annotations", config.annotations)):
        if path and not Path(path).is_file():
            raise InbolError(f"--data.{option} {path}: no such file")
    if config.images and not config.images.is_dir():
        raise InbolError(f"--data.images {config.images}: no such folder")
    settings, inputs = _settings(config, folder), {"data": _source_fingerprint(config)}
    # The first of several processes imports the set, the others wait for it.
    lock = functools.partial(sole_writer, wait=True)
    with Stage(folder / DATA_FILE, "data import", settings, inputs=inputs, lock=lock) as stage:
        if not stage.finished:
            _write(config, stage, max_rejected)
        header = stage.header
    say(
        f"{header['rows']:,} questions of {folder.name}, {header['without_answers']:,} of them "
        f"without answers, {header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _settings(config: DataConfig, folder: Path) -> dict[str, Any]:
    """Everything that the imported records depend on."""
    settings = {f"data.{name}": value for name, value in vars(config).items()}
    for place in ("dir", "images", "annotations", "id", "name"):
        del settings[f"data.{place}"]
    return settings | {
        "data.format": config.source_format,
        "data.images": _images(config, folder),
    }


def _images(config: DataConfig, folder: Path) -> str:
    """The folder with the images, as seen from the dataset's."""
    return os.path.relpath((config.images or folder).resolve(), folder.resolve())


def _source_fingerprint(config: DataConfig) -> str:
    """Changes if the set's files do; for a set on the hub it is the id."""
    local = Path(str(config.id))
    if config.is_file:
        return file_fingerprint(*filter(None, (local, config.annotations)))
    if not local.exists():
        return str(config.id)
    stamps = []
    for file in sorted(path for path in local.rglob("*") if path.is_file()):
        stat = file.stat()
        stamps.append((os.path.relpath(file, local), stat.st_size, stat.st_mtime_ns))
    return fingerprint(stamps)


def _spec(config: DataConfig) -> Spec:
    """How the set is read: its line of the table, with the columns that the options name."""
    spec = SETS[config.source_format]
    if config.source_format == "columns":
        spec = spec._replace(
            image=config.image_column or spec.image,
            question=config.question_column,
            answers=config.answers_column or spec.answers,
        )
    return spec._replace(metric=config.metric or spec.metric)


def _write(config: DataConfig, stage: Stage, max_rejected: float) -> None:
    """Writes `data.jsonl`, with its header of settings and counts, and `rejected.jsonl`."""
    folder = stage.file.parent
    spec, ids = _spec(config), set[str]()
    pictures = Pictures(config, spec, folder)
    rejected: list[Rejection] = []
    without_answers = 0
    with (
        progress(f"importing {folder.name}", config.limit, "records") as advance,
        writing_dataset(folder) as lines,
    ):
        for number, row in itertools.islice(_rows(config, spec, pictures), config.limit):
            try:
                if isinstance(row, Unusable):
                    raise row
                if not _is_of_split(row, spec, config):
                    continue
                example = _example(number, row, spec, config, pictures)
                if example.id in ids:
                    raise Unusable("duplicated id", id=example.id)
                line = json_line(example.to_json())
            except Unusable as cause:
                rejected.append(Rejection(number or None, cause.id, str(cause), cause.detail))
            except (UnicodeEncodeError, RecursionError) as error:  # half a surrogate pair
                cause = "not UTF-8" if isinstance(error, UnicodeError) else "nested too deeply"
                rejected.append(Rejection(number, record_id(value(row, spec.id)), cause))
            else:
                ids.add(example.id)
                without_answers += not example.answers and example.answerable is None
                lines.write(line)
            advance()
        total = len(ids) + len(rejected)
        write_rejections(folder, rejected, {"command": "import", "records": total})
        stop_at_too_many(rejected, total, max_rejected, str(config.id), IMAGES)
    stage.finish(
        len(ids),
        images=_images(config, folder),
        **({"prompt": spec.prompt} if spec.prompt else {}),
        set_aside=len(rejected),
        without_answers=without_answers,
    )


def _rows(config: DataConfig, spec: Spec, pictures: Pictures) -> Rows:
    """The rows of the file, folder or hub set that --data.id names, with what its names tell."""
    local, subset = Path(str(config.id)), config.subset
    if local.suffix.lower() in TEXT_FILES:
        rows = text_rows(local, by_id=spec.by_id)
        if config.annotations:
            rows = joined(rows, text_rows(config.annotations))
        names = _official_names(config) if config.source_format != "columns" else {}
        for number, row in rows:
            yield number, row if isinstance(row, Unusable) else {**row, **names}
        return
    if spec.join and not config.is_file:
        pictures.joined = {}
        for _, row in library_rows(config, f"{subset}{spec.join[1]}"):
            with contextlib.suppress(Unusable):  # its questions will lack it
                if name := pictures.name(row.get("image")):
                    pictures.joined[str(row.get("id"))] = name
        subset = f"{subset}{spec.join[0]}"
    yield from library_rows(config, subset)


def _is_of_split(row: RawRow, spec: Spec, config: DataConfig) -> bool:
    """Whether a row is of the split that is asked for, if an official file holds several."""
    if not (spec.splits and config.is_file and config.split):
        return True
    return value(row, spec.split) == config.split


def _example(
    number: int, row: RawRow, spec: Spec, config: DataConfig, pictures: Pictures
) -> VQAExample:
    """The record of a row.

    Raises:
      Unusable: if the row cannot be used; it has the record's id if that could be read.
    """
    id = None
    try:
        id = value(row, spec.id)
        columns = columns_of(row, spec)
        if spec.numbered and id is None and not {"id", "question_id"} & row.keys():
            columns["id"] = f"{config.split}-{number}" if config.split else str(number)
        named = config.called() if config.source_format == "columns" else config.source_format
        columns["source"] = columns.get("source") or named
        columns["split"] = config.split or columns.get("split")
        kept = {name: value for name, value in columns.items() if value is not None}
        return make_example({**kept, "images": pictures.names(row)})
    except Unusable as cause:
        raise Unusable(str(cause), cause.detail, id=record_id(id)) from None


def _official_names(config: DataConfig) -> RawRow:
    """What the names of official files tell about each of their rows."""
    paths = [*filter(None, (Path(str(config.id)), config.annotations, config.images))]
    names = (config.split or "", *(path.name for path in paths))
    splits = ("train2014", "val2014", "test2015")
    coco = next((split for name in names for split in splits if split in name), None)
    return {FILE: paths[0].stem, COCO: coco}
