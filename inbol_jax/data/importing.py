"""`inbol data import`: any set as a dataset folder, which every command reads.

Memory does not grow with the set, except for its ids and the causes of what was set aside.
"""

import base64
import binascii
import dataclasses
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from inbol_jax.artifacts import (
    file_fingerprint,
    fingerprint,
    meta_path,
    read_jsonl,
    read_meta,
    write_json,
    writing,
)
from inbol_jax.data.adapters import ADAPTERS
from inbol_jax.data.columns import Columns
from inbol_jax.data.config import DataConfig, ImportConfig, as_data_config
from inbol_jax.data.pictures import picture_name, picture_names
from inbol_jax.data.rows import RawRow, Rejection, Unusable, image_check, make_example, record_id
from inbol_jax.data.sources import Rows, file_rows, id_rows, joined, literal_list
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
from inbol_jax.questions import ImagePaths
from inbol_jax.records import VQAExample


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
        return load_dataset_folder(config.dir, images=config.images, max_rejected=max_rejected)
    folder = import_dataset(config, out / "data" / config.called(), max_rejected=max_rejected)
    dataset = load_dataset_folder(folder, max_rejected=max_rejected)
    rejected = [Rejection(**row) for row in read_jsonl(folder / REJECTED_FILE)] + dataset.rejected
    stop_at_too_many(rejected, len(dataset.examples) + len(rejected), max_rejected, folder)
    return dataclasses.replace(dataset, rejected=rejected)


def import_dataset(config: DataConfig, folder: Path, *, max_rejected: float = 0.1) -> Path:
    """Writes a set as a dataset folder, unless the folder holds it already, with the same settings.

    Records that cannot be used go to `rejected.jsonl` with their cause. Returns the folder.

    Raises:
      InbolError: as `open_dataset`; also if the folder holds another set.
    """
    _check_options(config)
    settings = _settings(config, folder)
    settings["config"] = fingerprint(settings)
    file = folder / DATA_FILE
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # the first of several processes imports the set
            if not file.exists():
                _write(config, folder, settings, max_rejected)
            header = read_meta(file)
            if header.get("config") != settings["config"]:
                raise InbolError(
                    f"{folder} holds a dataset made with other settings; "
                    "choose another --out or --data.name, or delete it"
                )
    kinds = [f"{kind} {count:,}" for kind, count in header["kinds"].items()]
    shown = f" ({', '.join(kinds)})" if 1 < len(kinds) <= 12 else ""
    say(
        f"{header['rows']:,} questions of {folder.name}{shown}, "
        f"{header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _check_options(config: DataConfig) -> None:
    """Whether the options name what the set's adapter reads."""
    adapter, option = ADAPTERS[config.source_format], f"--data.format {config.source_format}"
    if config.id and not adapter.hub:
        raise InbolError(
            f"{option} reads the set's own file: give --data.questions instead of --data.id"
        )
    if config.id and adapter.join and not config.subset:
        raise InbolError(
            f"{option} needs --data.subset, the beginning of its subsets' names (testdev_balanced)"
        )
    if config.questions and adapter.annotations and not config.annotations:
        raise InbolError(f"{option} needs --data.annotations, the file with the answers")
    if config.annotations and not adapter.annotations:
        raise InbolError(f"{option} has its answers in --data.questions")
    for name, path in (("questions", config.questions), ("annotations", config.annotations)):
        if path is not None and not path.is_file():
            raise InbolError(f"--data.{name} {path}: no such file")
    if config.images is not None and not config.images.is_dir():
        raise InbolError(f"--data.images {config.images}: no such folder")
    if config.questions and not config.images and not adapter.base64:
        raise InbolError("--data.questions needs --data.images, the folder with the set's images")


def _settings(config: DataConfig, folder: Path) -> dict[str, Any]:
    """Everything that the imported records depend on."""
    settings = {"command": "import"} | vars(config)
    for place in ("dir", "images", "questions", "annotations", "id", "streaming", "name"):
        del settings[place]
    settings["format"] = config.source_format
    settings["set"] = _source_fingerprint(config)
    settings["images"] = os.path.relpath((config.images or folder).resolve(), folder.resolve())
    return settings


def _source_fingerprint(config: DataConfig) -> str:
    """Changes if the set's files do; for a set on the hub it is the id."""
    if config.id is None:
        return file_fingerprint(*filter(None, (config.questions, config.annotations)))
    local = Path(config.id)
    if not local.exists():
        return config.id
    stamps = []
    for file in sorted(local.rglob("*")) if local.is_dir() else [local]:
        if file.is_file():
            stat = file.stat()
            stamps.append((os.path.relpath(file, local), stat.st_size, stat.st_mtime_ns))
    return fingerprint(stamps)


def _write(
    config: DataConfig, folder: Path, settings: Mapping[str, Any], max_rejected: float
) -> None:
    """Writes `data.jsonl`, with its header of settings and counts, and `rejected.jsonl`."""
    records = _RecordMaker(config, folder)
    check_image = image_check(config.images) if config.images else None
    ids: set[str] = set()
    kinds: Counter[str] = Counter()
    rejected: list[Rejection] = []
    with (
        progress(f"importing {folder.name}", config.limit, "records") as advance,
        writing_dataset(folder) as lines,
    ):
        for number, row in itertools.islice(_rows(config), config.limit):
            example = None
            try:
                if isinstance(row, Unusable):
                    raise row
                example = records.example(number, row)
                if example is None:
                    continue
                line = _json_line(example)
                if example.id in ids:
                    raise Unusable("duplicated id")
                if check_image is not None:  # a picture that was written has a sound header
                    for image in example.images:
                        check_image(image)
            except Unusable as cause:
                id = cause.id if example is None else example.id
                duplicated = isinstance(row, Unusable) and id in ids
                reason = "duplicated id" if duplicated else str(cause)
                rejected.append(Rejection(number or None, id, reason))
            else:
                ids.add(example.id)
                if kind := example.extra.get("kind"):
                    kinds[str(kind)] += 1
                lines.write(line)
            advance()
        total = len(ids) + len(rejected)
        write_rejections(folder, rejected, {"command": "import", "records": total})
        stop_at_too_many(rejected, total, max_rejected, str(config.id or config.questions))
        counts = {"set_aside": len(rejected), "kinds": dict(kinds.most_common(20))}
        write_json(meta_path(folder / DATA_FILE), {**settings, **counts, "rows": len(ids)})


def _rows(config: DataConfig) -> Rows:
    """The rows of the set's own file or files, or of the `datasets` library."""
    adapter = ADAPTERS[config.source_format]
    if config.questions is None:
        suffix = adapter.join.questions if adapter.join else ""
        return id_rows(config, f"{config.subset}{suffix}" if suffix else config.subset)
    rows = file_rows(config.questions, by_id=adapter.by_id)
    return joined(rows, file_rows(config.annotations)) if config.annotations else rows


class _RecordMaker:
    """Makes records of a set's rows."""

    def __init__(self, config: DataConfig, folder: Path):
        self._config, self._adapter, self._folder = config, ADAPTERS[config.source_format], folder
        self._join = self._adapter.join if config.id else None
        self._joined_pictures: dict[str, str | Unusable | None] = {}
        self._by_index: dict[str, str] = {}  # pictures in base64, which later rows refer to
        if self._join:
            for _, row in id_rows(config, f"{config.subset}{self._join.pictures}"):
                if not isinstance(row, Unusable):
                    self._joined_pictures[str(row.get("id"))] = self._joined_picture(row)

    def _joined_picture(self, row: RawRow) -> str | Unusable | None:
        try:
            return picture_name(row.get("image"), self._config, self._folder)
        except Unusable as cause:
            return Unusable(str(cause))  # the frames of `cause` hold the row with its picture

    def example(self, number: int, row: RawRow) -> VQAExample | None:
        """The record of a row, None if the row is of another split.

        Raises:
          Unusable: if the row cannot be used; it has the record's id if that could be read.
        """
        id = record_id(row.get("question_id", row.get("id", row.get("index"))))
        try:
            columns = self._columns(number, row)
            if columns is None:
                return None
            id = record_id(columns.get("id"))
            return make_example(columns)
        except Unusable as cause:
            raise Unusable(str(cause), id) from None

    def _columns(self, number: int, row: RawRow) -> Columns | None:
        """The columns of a row, with the set's defaults; None if the row is of another split."""
        config = self._config
        by_name = config.source_format == "columns"
        row = self._with_images(row, (config.image_column,) if by_name else self._adapter.images)
        numbered = by_name or self._adapter.numbered
        if numbered and not (config.id_column or "id" in row or "question_id" in row):
            row = {**row, "id": f"{config.split}-{number}" if config.split else str(number)}
        columns = self._adapter.columns(row, config)
        if columns is None:
            return None
        if isinstance(answers := columns["answers"], dict):  # a list of objects, as some copies do
            columns["answers"] = answers.get("answer")
        if not columns.get("source"):
            columns["source"] = config.called() if by_name else config.source_format
        if columns.get("split") is None:
            columns["split"] = config.split
        columns["metric"] = config.metric or columns.get("metric") or self._adapter.metric
        return {name: value for name, value in columns.items() if value is not None}

    def _with_images(self, row: RawRow, names: tuple[str, ...]) -> RawRow:
        """A row with the names of its pictures in place of these."""
        column = names[0] if len(names) == 1 else "image"
        images = [self._image(row, name) for name in names]
        found = [image for image in images if image is not None]
        if found:
            return {**row, column: list(found) if len(names) > 1 else _as_column(found[0])}
        if self._adapter.text_only:
            return {**row, column: []}
        if self._config.id or self._adapter.base64:
            missing = column in row or self._join
            raise Unusable("image missing" if missing else f"no column {column!r}")
        return row

    def _image(self, row: RawRow, column: str) -> ImagePaths | None:
        """The name of the picture that a row holds or refers to, or those of its pictures."""
        if self._join:
            image = self._joined_pictures.get(str(row.get(self._join.reference)))
            if isinstance(image, Unusable):
                raise image
            return image
        value = row.get(column)
        if self._config.source_format == "columns":
            value = literal_list(value)  # a list in a cell of CSV
        if not (self._adapter.base64 and isinstance(value, str) and not self._config.images):
            return picture_names(
                value, lambda value: picture_name(value, self._config, self._folder)
            )
        if value in self._by_index:  # rotated questions name the index of the first one
            return self._by_index[value]
        try:
            data = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise Unusable("image not base64") from None
        name = picture_name(data, self._config, self._folder)
        if name is not None and row.get("index") is not None:
            self._by_index[str(row["index"])] = name
        return name


def _as_column(image: ImagePaths) -> str | list[str]:
    return image if isinstance(image, str) else list(image)


def _json_line(example: VQAExample) -> str:
    """A line of `data.jsonl`; refuses what it cannot hold: half surrogate pairs, NaN, objects."""
    try:
        line = json.dumps(example.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        line.encode()
    except UnicodeEncodeError:
        raise Unusable("not UTF-8") from None
    except (TypeError, ValueError, RecursionError):
        raise Unusable("not JSON") from None
    return line
