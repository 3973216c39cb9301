"""Any set as a dataset folder: its rows go through their adapter into `data.jsonl`, once, and every stage reads that.

What is in memory does not grow with the set, but for its ids. Pictures that rows hold are written as they are, under the hash of their
bytes, so one that many questions share is there once; they are decoded when they are used.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import (
    file_fingerprint,
    fingerprint,
    read_jsonl,
    read_meta,
    write_atomically,
    write_jsonl,
)
from inbol_jax.data.adapters import ADAPTERS, NUMBER, Adapter, Skip
from inbol_jax.data.config import Data, DataConfig, as_data_config
from inbol_jax.data.images import ImageError, image_suffix
from inbol_jax.data.sources import Row, Rows, file_rows, first_rows, hub_rows, joined
from inbol_jax.data.vqa import (
    DATA_FILE,
    ImageCheck,
    Rejection,
    Unusable,
    VQADataset,
    load_dataset_folder,
    make_example,
    record_id,
    stop_at_too_many,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample

REJECTED_FILE = "rejected.jsonl"


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """Write any set as a dataset folder, which every command reads; its pictures are not decoded (`inbol data check` does).

    Attributes:
      data: questions, their images and answers.
      out: the folder; gets data.jsonl, rejected.jsonl, and images/ where the set holds its pictures itself.
      max_rejected: share of unusable records above which the import stops.
    """

    data: Data
    out: Path
    max_rejected: float = 0.1


def import_data(config: ImportConfig) -> Path:
    """Imports a set. Returns its folder.

    Raises:
      InbolError: as `import_dataset`.
    """
    data = as_data_config(config.data)
    if data.kind == "folder":
        raise InbolError(
            f"--data {data.dir}: is a dataset folder already; `inbol data check` checks one"
        )
    return import_dataset(data, config.out, max_rejected=config.max_rejected)


_CORE = ("id", "image", "question", "answers", "answerable")


def open_dataset(data: Path | DataConfig, *, out: Path, max_rejected: float = 0.1) -> VQADataset:
    """The dataset that a command's options name: a folder as it lies, any other set imported to `out/data/NAME` first, where it is not yet.

    Args:
      data: a dataset folder, or options.
      out: the command's output folder.
      max_rejected: largest share of the records that may be set aside, in [0, 1].

    Raises:
      InbolError: where options do not go together, the set cannot be read, or more records than that share cannot be used.
    """
    config = as_data_config(data)
    config.check(tuple(ADAPTERS))
    if config.kind == "folder":
        assert config.dir is not None
        return load_dataset_folder(config.dir, images=config.images, max_rejected=max_rejected)
    folder = import_dataset(config, out / "data" / config.called(), max_rejected=max_rejected)
    dataset = load_dataset_folder(folder, max_rejected=max_rejected)
    rejected = [Rejection(**row) for row in read_jsonl(folder / REJECTED_FILE)] + dataset.rejected
    stop_at_too_many(rejected, len(dataset.examples) + len(rejected), max_rejected, folder)
    return dataclasses.replace(dataset, rejected=rejected)


def import_dataset(config: DataConfig, folder: Path, *, max_rejected: float = 0.1) -> Path:
    """Writes a set as a dataset folder, or leaves it where it is there with the same settings. Records that cannot be used go to
    `rejected.jsonl` with their cause.

    Returns: the folder.
    Raises:
      InbolError: as `open_dataset`; also where the folder holds another set.
    """
    if not 0 <= max_rejected <= 1:
        raise InbolError(f"max_rejected is {max_rejected}; give a share between 0 and 1")
    adapter = _adapter(config)
    file = folder / DATA_FILE
    images = os.path.relpath((config.images or folder).resolve(), folder.resolve())
    settings = _settings(config) | {"images": images}
    identity = fingerprint(settings)
    with _locked(folder):  # several processes may want it: the first one makes it
        header = read_meta(file)
        if header.get("config", identity) != identity or (file.exists() and not header):
            raise InbolError(
                f"{folder} holds a dataset made with other settings; choose another --out or --data.name, or delete it"
            )
        if not header:
            importing = _Import(config, adapter, folder)
            header = settings | {"config": identity}

            def rows(advance: Callable[..., None]) -> Iterator[Mapping[str, Any]]:
                yield from importing.rows(advance, max_rejected)
                # The header is written after the rows, with what they were counted to be.
                header.update(
                    set_aside=len(importing.rejected), kinds=dict(importing.kinds.most_common(20))
                )

            with progress(f"importing {folder.name}", config.limit, "records") as advance:
                write_jsonl(file, rows(advance), header)
            header = read_meta(file)
    kinds = [f"{kind} {count:,}" for kind, count in header["kinds"].items()]
    shown = f" ({', '.join(kinds)})" if 1 < len(kinds) <= 12 else ""
    say(
        f"{header['rows']:,} questions of {folder.name}{shown}, {header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _adapter(config: DataConfig) -> Adapter:
    config.check(tuple(ADAPTERS))
    adapter = ADAPTERS[config.kind]
    if config.id and not adapter.hub:
        raise InbolError(
            f"--data.format {config.kind} reads the set's own file: give --data.questions instead of --data.id"
        )
    if config.id and adapter.join and not config.subset:
        raise InbolError(
            f"--data.format {config.kind} needs --data.subset, what its subsets' names begin with (testdev_balanced)"
        )
    if config.questions and adapter.annotations != bool(config.annotations):
        fault = (
            "needs --data.annotations, the file with the answers"
            if adapter.annotations
            else "has its answers in --data.questions"
        )
        raise InbolError(f"--data.format {config.kind} {fault}")
    for option, path in (("questions", config.questions), ("annotations", config.annotations)):
        if path is not None and not path.is_file():
            raise InbolError(f"--data.{option} {path}: no such file")
    if config.images is not None and not config.images.is_dir():
        raise InbolError(f"--data.images {config.images}: no such folder")
    return adapter


def _settings(config: DataConfig) -> dict[str, Any]:
    """Everything that the imported records depend on."""
    own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    used = {
        name: value
        for name, value in own.items()
        if name not in ("dir", "images", "questions", "annotations", "id", "streaming", "name")
    }
    files = [path for path in (config.questions, config.annotations) if path is not None]
    local = Path(config.id) if config.id else None
    if local is not None and local.exists():
        parts = sorted(p for p in local.rglob("*") if p.is_file()) if local.is_dir() else [local]
        stamps = [
            (os.path.relpath(p, local), p.stat().st_size, p.stat().st_mtime_ns) for p in parts
        ]
        where: Any = fingerprint(stamps)
    else:
        where = config.id or file_fingerprint(*files)
    return {"command": "import", "format": config.kind} | used | {"set": where}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise InbolError(
            f"cannot write {folder}: {error.strerror or error}; choose another --out"
        ) from error


class _Import:
    """One pass over a set."""

    def __init__(self, config: DataConfig, adapter: Adapter, folder: Path):
        self.config, self.adapter, self.folder = config, adapter, folder
        self.rejected: list[Rejection] = []
        self.kinds: Counter[str] = Counter()
        self.total = 0
        self._seen: set[str] = set()
        self._written: set[str] = set()
        self._check = ImageCheck(config.images) if config.images else None
        self._joined: dict[str, str | Unusable | None] = {}
        self._id: str | None = None

    def rows(self, advance: Any, max_rejected: float) -> Iterator[Mapping[str, Any]]:
        """Rows of `data.jsonl`; at the end `rejected.jsonl` is written."""
        for number, row in self._source():
            try:
                example = self._example(number, row)
            except Skip:
                continue
            except Unusable as cause:
                id = cause.id if cause.id is not None else self._id
                reason = (
                    "duplicated id" if cause.id is not None and id in self._seen else str(cause)
                )
                id = None if id is None else id.encode(errors="backslashreplace").decode()
                self.rejected.append(Rejection(number or None, id, reason))
            else:
                self._seen.add(example.id)
                if kind := example.extra.get("kind"):
                    self.kinds[str(kind)] += 1
                yield example.to_json()
            self.total += 1
            advance()
        write_jsonl(
            self.folder / REJECTED_FILE,
            map(dataclasses.asdict, self.rejected),
            {"command": "import", "records": self.total},
        )
        where = self.config.id or self.config.questions
        stop_at_too_many(self.rejected, self.total, max_rejected, str(where))

    def _source(self) -> Rows:
        config, adapter = self.config, self.adapter
        if config.questions is not None:
            rows = file_rows(config.questions, by_id=adapter.by_id)
            if config.annotations is not None:
                rows = joined(rows, file_rows(config.annotations))
        elif adapter.join is not None:
            questions, pictures, _ = (f"{config.subset or ''}{suffix}" for suffix in adapter.join)
            for _, row in hub_rows(config, pictures):
                if not isinstance(row, Unusable):
                    try:
                        self._joined[str(row.get("id"))] = self._picture(row.get("image"))
                    except Unusable as cause:
                        self._joined[str(row.get("id"))] = Unusable(
                            str(cause)
                        )  # without the frames that the other one holds
            rows = hub_rows(config, questions)
        else:
            rows = hub_rows(config, config.subset)
        return first_rows(rows, config.limit)

    def _example(self, number: int, row: "Row | Unusable") -> VQAExample:
        self._id = None
        if isinstance(row, Unusable):
            raise row
        self._id = record_id({"id": row.get("question_id", row.get("id"))})
        column = self.config.image_column if self.config.kind == "columns" else "image"
        if self.adapter.join and self.config.id:
            picture = self._joined.get(str(row.get(self.adapter.join[2])))
            if isinstance(picture, Unusable):
                raise picture
        else:
            picture = self._picture(row.get(column))
        if picture is not None:
            row = {**row, column: picture}
        elif self.config.id:
            raise Unusable(
                "image missing" if column in row or self.adapter.join else f"no column {column!r}"
            )
        columns = self.adapter.columns({**row, NUMBER: number}, self.config)
        self._id = record_id(columns)
        found = {
            name: value for name, value in columns.items() if value is not None or name in _CORE
        }
        defaults = {
            "source": self.config.called() if self.config.kind == "columns" else self.config.kind,
            "split": self.config.split,
        }
        if isinstance(
            found["answers"], dict
        ):  # some copies hold a list of objects as an object of lists
            found["answers"] = found["answers"].get("answer")
        metric = self.config.metric or found.get("metric") or self.adapter.metric
        example = make_example(defaults | found | {"metric": metric})
        try:
            json.dumps(example.to_json(), ensure_ascii=False, allow_nan=False).encode()
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            raise Unusable(
                "not UTF-8" if isinstance(error, UnicodeEncodeError) else "not JSON"
            ) from None
        if example.id in self._seen:
            raise Unusable("duplicated id")
        if self._check:
            self._check(example.image)
        return example

    def _picture(self, value: Any) -> str | None:
        """Name of the file of a row's picture, which is written where the row holds it.

        Raises:
          Unusable: where the row holds something else, or the picture's header is none.
        """
        data = value
        if isinstance(value, dict) and ("bytes" in value or "path" in value):
            data = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if data is None or (isinstance(data, str) and self.config.images):
            return data
        if self.config.images:
            raise Unusable("picture in the row itself (leave --data.images out)")
        if isinstance(data, str):
            data = self._local(data)
        if not isinstance(data, bytes):
            raise Unusable("image not a picture or path")
        try:
            name = hashlib.sha256(data).hexdigest()[:32] + image_suffix(data)
        except ImageError as error:
            raise Unusable(error.cause) from None
        name = f"images/{name[:2]}/{name}"
        if name not in self._written:
            self._written.add(name)
            if not (self.folder / name).exists():
                write_atomically(self.folder / name, data, sync=False)
        return name

    def _local(self, name: str) -> bytes:
        """A picture that a set refers to by path: of its own files, or of what the library has downloaded; nothing else is read."""
        assert self.config.id is not None
        local = Path(self.config.id)
        if local.exists():
            roots = [local.resolve() if local.is_dir() else local.resolve().parent]
        else:
            import datasets

            roots = [
                Path(root).resolve()
                for root in (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME)
            ]
        try:
            path = (roots[0] / name).resolve()
            if not any(path.is_relative_to(root) for root in roots):
                raise Unusable("image outside the set's files")
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError):
            raise Unusable("image missing") from None
