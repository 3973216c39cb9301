"""`inbol data import`: any set as a dataset folder, which every command reads.

The rows go through the set's adapter into `data.jsonl`, once. Memory does not grow with the set,
except for its ids and the causes of what was set aside.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
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
)
from inbol_jax.data.adapters import ADAPTERS, Adapter
from inbol_jax.data.config import DataConfig, ImportConfig, as_data_config
from inbol_jax.data.pictures import PictureStore
from inbol_jax.data.rows import (
    Columns,
    ImageCheck,
    RawRow,
    Rejection,
    Unusable,
    make_example,
    record_id,
)
from inbol_jax.data.sources import Rows, file_rows, hub_rows, joined
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


def import_data(config: ImportConfig) -> Path:
    """Imports a set. Returns its folder.

    Raises:
      InbolError: as `import_dataset`; also if the set is a dataset folder already.
    """
    data = as_data_config(config.data)
    if data.source_format == "folder":
        raise InbolError(
            f"--data {data.dir}: is a dataset folder already; `inbol data check` checks one"
        )
    return import_dataset(data, config.out, max_rejected=config.max_rejected)


def open_dataset(data: Path | DataConfig, *, out: Path, max_rejected: float = 0.1) -> VQADataset:
    """The dataset that a command's options name.

    A dataset folder is read as it is. Any other set is first imported to `out/data/NAME`, unless it
    is there already.

    Args:
      data: a dataset folder, or options.
      out: the command's output folder.
      max_rejected: largest share of the records that may be set aside, in [0, 1].

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

    Records that cannot be used go to `rejected.jsonl` with their cause.

    Returns: the folder.
    Raises:
      InbolError: as `open_dataset`; also if the folder holds another set.
    """
    adapter = _adapter(config)
    settings = _settings(config, folder)
    run_fingerprint = fingerprint(settings)
    file = folder / DATA_FILE
    with _locked(folder):  # several processes may want the set: the first one imports it
        header = read_meta(file)
        if header.get("config", run_fingerprint) != run_fingerprint or (
            file.exists() and not header
        ):
            raise InbolError(
                f"{folder} holds a dataset made with other settings; "
                "choose another --out or --data.name, or delete it"
            )
        if not header:
            tally = _write(config, adapter, folder, max_rejected)
            header = settings | {
                "config": run_fingerprint,
                "set_aside": len(tally.rejected),
                "kinds": dict(tally.kinds.most_common(20)),
                "rows": len(tally.ids),
            }
            write_json(meta_path(file), header)
    kinds = [f"{kind} {count:,}" for kind, count in header["kinds"].items()]
    shown = f" ({', '.join(kinds)})" if 1 < len(kinds) <= 12 else ""
    say(
        f"{header['rows']:,} questions of {folder.name}{shown}, "
        f"{header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _adapter(config: DataConfig) -> Adapter:
    """The adapter of the set, if the options name what it reads."""
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
    return adapter


def _settings(config: DataConfig, folder: Path) -> dict[str, Any]:
    """Everything that the imported records depend on."""
    places = ("dir", "images", "questions", "annotations", "id", "streaming", "name")
    settings: dict[str, Any] = {"command": "import"}
    for field in dataclasses.fields(config):
        if field.name not in places:
            settings[field.name] = getattr(config, field.name)
    settings["format"] = config.source_format
    settings["set"] = _source_fingerprint(config)
    settings["images"] = os.path.relpath((config.images or folder).resolve(), folder.resolve())
    return settings


def _source_fingerprint(config: DataConfig) -> str:
    """Changes if the set's files do; for a set on the hub it is the id."""
    if config.id is None:
        files = (config.questions, config.annotations)
        return file_fingerprint(*(file for file in files if file is not None))
    local = Path(config.id)
    if not local.exists():
        return config.id
    files = (
        sorted(file for file in local.rglob("*") if file.is_file()) if local.is_dir() else [local]
    )
    stats = [(os.path.relpath(file, local), file.stat()) for file in files]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            yield
    except OSError as error:
        raise InbolError(
            f"cannot write {folder}: {error.strerror or error}; choose another --out"
        ) from error


@dataclasses.dataclass
class _Tally:
    """What an import has kept and set aside so far."""

    ids: set[str] = dataclasses.field(default_factory=set)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    rejected: list[Rejection] = dataclasses.field(default_factory=list)

    def keep(self, example: VQAExample) -> None:
        self.ids.add(example.id)
        if kind := example.extra.get("kind"):
            self.kinds[str(kind)] += 1


def _write(config: DataConfig, adapter: Adapter, folder: Path, max_rejected: float) -> _Tally:
    """Writes `data.jsonl` and `rejected.jsonl`; the caller writes the header, from the tally."""
    records = _RecordMaker(config, adapter, folder)
    check_image = ImageCheck(config.images) if config.images else None
    tally = _Tally()
    with (
        progress(f"importing {folder.name}", config.limit, "records") as advance,
        writing_dataset(folder) as lines,
    ):
        for number, row in _rows(config, adapter):
            example = None
            try:
                if isinstance(row, Unusable):
                    raise row
                example = records.example(number, row)
                if example is None:
                    continue
                line = _json_line(example)
                if example.id in tally.ids:
                    raise Unusable("duplicated id")
                if check_image is not None:  # a picture that was written has a sound header
                    check_image(example.image)
            except Unusable as cause:
                id = cause.id if example is None else example.id
                duplicated = isinstance(row, Unusable) and id in tally.ids
                reason = "duplicated id" if duplicated else str(cause)
                tally.rejected.append(Rejection(number or None, id, reason))
            else:
                tally.keep(example)
                lines.write(line)
            advance()
        total = len(tally.ids) + len(tally.rejected)
        write_rejections(folder, tally.rejected, {"command": "import", "records": total})
        stop_at_too_many(tally.rejected, total, max_rejected, str(config.id or config.questions))
    return tally


def _rows(config: DataConfig, adapter: Adapter) -> Rows:
    """The rows of the set's own file or files, or of the `datasets` library."""
    if config.questions is None:
        suffix = adapter.join.questions if adapter.join else ""
        rows = hub_rows(config, f"{config.subset}{suffix}" if suffix else config.subset)
    else:
        rows = file_rows(config.questions, by_id=adapter.by_id)
        if config.annotations is not None:
            rows = joined(rows, file_rows(config.annotations))
    return itertools.islice(rows, config.limit)


class _RecordMaker:
    """Makes records of a set's rows."""

    def __init__(self, config: DataConfig, adapter: Adapter, folder: Path):
        self._config, self._adapter = config, adapter
        self._pictures = PictureStore(config, folder)
        self._joined_pictures = self._join() if adapter.join and config.id else None

    def _join(self) -> dict[str, str | Unusable | None]:
        """The pictures of a set on the hub that has them in a subset of their own, by their ids."""
        assert self._adapter.join is not None
        pictures: dict[str, str | Unusable | None] = {}
        for _, row in hub_rows(self._config, f"{self._config.subset}{self._adapter.join.pictures}"):
            if isinstance(row, Unusable):
                continue
            try:
                pictures[str(row.get("id"))] = self._pictures.name(row.get("image"))
            except Unusable as cause:
                # Not the exception itself: its frames hold the row with its picture.
                pictures[str(row.get("id"))] = Unusable(str(cause))
        return pictures

    def example(self, number: int, row: RawRow) -> VQAExample | None:
        """The record of a row, None if the row is of another split.

        Raises:
          Unusable: if the row cannot be used; it has the record's id if that could be read.
        """
        id = record_id(row.get("question_id", row.get("id")))
        try:
            columns = self._columns(number, row)
            if columns is None:
                return None
            id = record_id(columns.id)
            return make_example(columns)
        except Unusable as cause:
            raise Unusable(str(cause), id) from None

    def _columns(self, number: int, row: RawRow) -> Columns | None:
        """The columns of a row, with the set's defaults."""
        config = self._config
        by_name = config.source_format == "columns"
        image_column = config.image_column if by_name else "image"
        image = self._image(row, image_column)
        if image is not None:
            row = {**row, image_column: image}
        elif config.id:
            missing = image_column in row or self._joined_pictures is not None
            raise Unusable("image missing" if missing else f"no column {image_column!r}")
        if by_name and not (config.id_column or "id" in row or "question_id" in row):
            row = {**row, "id": f"{config.split}-{number}"}
        columns = self._adapter.columns(row, config)
        if columns is None:
            return None
        answers = columns.answers
        return dataclasses.replace(
            columns,
            # Some copies hold a list of objects as an object of lists.
            answers=answers.get("answer") if isinstance(answers, dict) else answers,
            source=columns.source or (config.called() if by_name else config.source_format),
            split=config.split if columns.split is None else columns.split,
            metric=config.metric or columns.metric or self._adapter.metric,
            extra={name: value for name, value in columns.extra.items() if value is not None},
        )

    def _image(self, row: RawRow, column: str) -> str | None:
        """The name of the picture that a row holds or refers to."""
        if self._joined_pictures is None:
            return self._pictures.name(row.get(column))
        assert self._adapter.join is not None
        image = self._joined_pictures.get(str(row.get(self._adapter.join.reference)))
        if isinstance(image, Unusable):
            raise image
        return image


def _json_line(example: VQAExample) -> str:
    """A line of `data.jsonl`; refuses what it cannot hold: half surrogate pairs, NaN, objects."""
    try:
        line = json.dumps(example.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        line.encode()
    except UnicodeEncodeError:
        raise Unusable("not UTF-8") from None
    except (TypeError, ValueError):
        raise Unusable("not JSON") from None
    return line
