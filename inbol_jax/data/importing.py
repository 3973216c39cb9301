"""`inbol data import`: any set as a dataset folder, which every command reads."""

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
from inbol_jax.data.columns import (
    COCO,
    FILE,
    Columns,
    Spec,
    answer_list,
    by_letter,
    columns_of,
    letter_of,
    no_column,
    number_text,
    option_list,
    plain,
    read_flag,
    value,
)
from inbol_jax.data.config import DataConfig, ImportConfig, as_data_config
from inbol_jax.data.pictures import Pictures
from inbol_jax.data.rows import RawRow, Rejection, Unusable, literal_list, make_example, record_id
from inbol_jax.data.sets import SETS
from inbol_jax.data.sources import Rows, id_rows, joined, text_rows
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
from inbol_jax.records import METRICS, VQAExample

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
        return load_dataset_folder(config.dir, images=config.images, max_rejected=max_rejected)
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
    _check_files(config)
    settings = _settings(config, folder)
    file = folder / DATA_FILE
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # the first of several processes imports the set
            if not file.exists():
                _write(config, folder, settings, max_rejected)
            header = read_meta(file)
            if other := [name for name in settings if header.get(name, ...) != settings[name]]:
                options = (f"--data.{name.replace('_', '-')}" for name in other if name != "set")
                changed = ["the set's files"] * ("set" in other) + list(options)
                raise InbolError(
                    f"{folder} holds a dataset made with other settings ({', '.join(changed)}); "
                    "choose another --out or --data.name, or delete it"
                )
    kinds = [f"{kind} {count:,}" for kind, count in header["kinds"].items()]
    shown = f" ({', '.join(kinds)})" if 1 < len(kinds) <= 12 else ""
    unknown = header.get("without_answers")
    unknown = f"{unknown:,} of them without answers, " if unknown else ""
    say(
        f"{header['rows']:,} questions of {folder.name}{shown}, {unknown}"
        f"{header['set_aside']:,} set aside -> {folder}"
    )
    return folder


def _check_files(config: DataConfig) -> None:
    """Whether the files that the options name are there."""
    for name in ("questions", "annotations"):
        path = getattr(config, name)
        if path is not None and not path.is_file():
            raise InbolError(f"--data.{name} {path}: no such file")
    if config.images is not None and not config.images.is_dir():
        raise InbolError(f"--data.images {config.images}: no such folder")
    if config.questions and not config.images and not SETS[config.source_format].base64:
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
    spec = SETS[config.source_format]
    join = spec.join if config.id else None
    subset = config.subset or ""
    pictures = Pictures(
        config, spec, folder, id_rows(config, subset + join.pictures) if join else None
    )
    names = _official_names(config)
    ids: set[str] = set()
    kinds: Counter[str] = Counter()
    rejected: list[Rejection] = []
    without_answers = 0
    with (
        progress(f"importing {folder.name}", config.limit, "records") as advance,
        writing_dataset(folder) as lines,
    ):
        for number, row in itertools.islice(_rows(config, spec), config.limit):
            try:
                if isinstance(row, Unusable):
                    raise row
                row = {**row, **names}
                if spec.splits and names and config.split not in (None, value(row, spec.split)):
                    continue  # of another split
                example = _example(number, row, spec, config, pictures)
                if example.id in ids:
                    raise Unusable("duplicated id", id=example.id)
                line = _json_line(example)
            except Unusable as cause:
                id = cause.id
                if id is None and not isinstance(row, Unusable):
                    id = record_id(row.get("question_id", row.get("id", row.get("index"))))
                rejected.append(Rejection(number or None, id, str(cause), cause.detail))
            else:
                ids.add(example.id)
                without_answers += not example.answers and example.answerable is None
                if kind := example.extra.get("kind"):
                    kinds[str(kind)] += 1
                lines.write(line)
            advance()
        total = len(ids) + len(rejected)
        write_rejections(folder, rejected, {"command": "import", "records": total})
        stop_at_too_many(rejected, total, max_rejected, str(config.id or config.questions), IMAGES)
        counts = {"set_aside": len(rejected), "without_answers": without_answers}
        counts |= {"kinds": dict(kinds.most_common(20))}
        prompt = {"prompt": spec.prompt} if spec.prompt else {}
        header = {**settings, **prompt, **counts, "rows": len(ids)}
        write_json(meta_path(folder / DATA_FILE), header)


def _rows(config: DataConfig, spec: Spec) -> Rows:
    """The rows of the set's own file or files, or of what --data.id names."""
    if config.questions is None:
        suffix = spec.join.questions if spec.join else ""
        return id_rows(config, f"{config.subset or ''}{suffix}" or None)
    rows = text_rows(config.questions, by_id=spec.by_id)
    return joined(rows, text_rows(config.annotations)) if config.annotations else rows


def _example(
    number: int, row: RawRow, spec: Spec, config: DataConfig, pictures: Pictures
) -> VQAExample:
    """The record of a row.

    Raises:
      Unusable: if the row cannot be used; it has the record's id if that could be read.
    """
    by_name = config.source_format == "columns"
    columns: dict[str, Any] = {}
    try:
        columns = _named_columns(row, config) if by_name else columns_of(row, spec)
        is_named = config.id_column or "id" in row or "question_id" in row
        if spec.numbered and columns["id"] is None and not is_named:
            columns["id"] = f"{config.split}-{number}" if config.split else str(number)
        columns["source"] = columns.get("source") or (
            config.called() if by_name else config.source_format
        )
        columns["split"] = config.split or columns.get("split")
        columns["metric"] = config.metric or columns["metric"]
        kept = {name: value for name, value in columns.items() if value is not None}
        return make_example({**kept, "images": pictures.names(row)})
    except Unusable as cause:
        raise Unusable(str(cause), cause.detail, id=record_id(columns.get("id"))) from None


def _named_columns(row: RawRow, config: DataConfig) -> Columns:
    """As `columns_of`, of any set whose columns the options name; all other columns are kept."""
    for name in (config.question_column, config.id_column, config.options_column):
        if name is not None and name not in row:
            raise no_column(name, row)
    id = config.id_column or ("id" if "id" in row else "question_id")
    flag = config.answerable_column or "answerable"
    choices = config.options_column or ("options" if "options" in row else "choices")
    options = option_list(row.get(choices))
    gold = config.answers_column or ("answers" if "answers" in row else "answer")
    answers = literal_list(row.get(gold))
    number = number_text(answers, options)
    if options and isinstance(number, str) and number.isdecimal() and number not in options:
        answers = by_letter(letter_of(number, options), options)
    answers = answer_list(answers, options)
    used = {config.image_column, config.question_column, gold, id, flag, choices}
    return {name: plain(cell) for name, cell in row.items() if name not in used} | {
        "id": row.get(id),
        "question": row[config.question_column],
        "answers": answers,
        "answerable": read_flag(row[flag]) if flag in row else bool(answers) or None,
        "options": options,
        "metric": row.get("metric") or ("choice" if options else METRICS[0]),
    }


def _official_names(config: DataConfig) -> RawRow:
    """What the names of official files tell about each of their rows."""
    if config.questions is None:
        return {}
    paths = filter(None, (config.questions, config.annotations, config.images))
    names = (config.split or "", *(path.name for path in paths))
    splits = ("train2014", "val2014", "test2015")
    coco = next((split for name in names for split in splits if split in name), None)
    return {FILE: config.questions.stem, COCO: coco}


def _json_line(example: VQAExample) -> str:
    """A line of `data.jsonl`; refuses what it cannot hold: half surrogate pairs, NaN, objects."""
    try:
        line = json.dumps(example.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        line.encode()
    except UnicodeEncodeError:
        raise Unusable("not UTF-8", id=example.id) from None
    except (TypeError, ValueError, RecursionError):
        raise Unusable("not JSON", id=example.id) from None
    return line
