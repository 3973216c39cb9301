"""Which questions a command takes: a dataset folder, the official files of a public set, or a set of the `datasets` library."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from inbol_jax.errors import InbolError
from inbol_jax.records import parse_metric


def _named(name: str, *aliases: str) -> Any:
    """An option of exactly this name, whatever the command's other options are prefixed with: `--data` and `--data.format` go together."""
    return tyro.conf.arg(name=name, prefix_name=False, aliases=aliases or None)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """A folder by --data alone; official files by --data.questions and so on; a hub or local set of `datasets` by --data.id.

    Attributes:
      dir: dataset folder (data.jsonl and images), or a .jsonl file.
      images: image folder, where it is not the dataset's own.
      format: of the questions; folder, columns (any set, by its column names), or vqav2, okvqa, gqa, vizwiz, textvqa, pope, tubench,
        haloquest, unkvqa. By default folder with --data, columns with --data.id.
      questions: official file of questions (JSON, JSON lines or CSV).
      annotations: official file of their answers, where it is another one.
      id: set of the `datasets` library, a hub id or a local folder or file.
      subset: of that set, where it has several (its "config").
      split: of the set.
      revision: of a hub set.
      streaming: read the set as it comes; otherwise it is downloaded whole into the cache of `datasets` first.
      name: by which output files call it; by default made from the id or the file's name, and the split.
      limit: take the first so many records.
      id_column: with format columns; by default "id" or "question_id", else records are numbered.
      image_column: with format columns, a picture or the path of one below the image folder.
      question_column: with format columns.
      answers_column: with format columns, a string, a list of strings, or a list of objects with an "answer".
      answerable_column: with format columns, true or false; by default "answerable", where there is one.
      metric: how answers are matched (vqa, exact, yes_no, choice, numeric, numeric:TOLERANCE); by default as the set does.
    """

    dir: Annotated[Path | None, _named("data")] = None
    images: Annotated[Path | None, _named("data.images", "--images")] = None
    format: Annotated[str | None, _named("data.format")] = None
    questions: Annotated[Path | None, _named("data.questions")] = None
    annotations: Annotated[Path | None, _named("data.annotations")] = None
    id: Annotated[str | None, _named("data.id")] = None
    subset: Annotated[str | None, _named("data.subset")] = None
    split: Annotated[str | None, _named("data.split")] = None
    revision: Annotated[str | None, _named("data.revision")] = None
    streaming: Annotated[bool, _named("data.streaming")] = True
    name: Annotated[str | None, _named("data.name")] = None
    limit: Annotated[int | None, _named("data.limit")] = None
    id_column: Annotated[str | None, _named("data.id-column")] = None
    image_column: Annotated[str, _named("data.image-column")] = "image"
    question_column: Annotated[str, _named("data.question-column")] = "question"
    answers_column: Annotated[str, _named("data.answers-column")] = "answers"
    answerable_column: Annotated[str | None, _named("data.answerable-column")] = None
    metric: Annotated[str | None, _named("data.metric")] = None

    @property
    def kind(self) -> str:
        """The format, where none is named that of the options that are."""
        return self.format or ("columns" if self.id else "folder")

    def check(self, formats: tuple[str, ...]) -> None:
        """Refuses options that do not go together.

        Args:
          formats: those there are beside folder.
        Raises:
          InbolError: naming the option.
        """
        if self.kind not in ("folder", *formats):
            raise InbolError(
                f"--data.format {self.format}: choose one of {', '.join(('folder', *formats))}"
            )
        given = [
            name
            for name, value in (
                ("--data", self.dir),
                ("--data.questions", self.questions),
                ("--data.id", self.id),
            )
            if value
        ]
        wanted = (
            ("--data",)
            if self.kind == "folder"
            else ("--data.id",)
            if self.kind == "columns"
            else ("--data.questions", "--data.id")
        )
        if len(given) != 1 or given[0] not in wanted:
            if not (given or self.format):
                raise InbolError(
                    "no dataset is named: give --data DIR, or --data.format and its files, or --data.id (docs/datasets.md)"
                )
            both = f", not {' and '.join(given)}" if given else ""
            raise InbolError(f"format {self.kind} takes {' or '.join(wanted)}{both}")
        own = {f.name for f in dataclasses.fields(self)} - {"dir", "images", "format"}
        if self.kind == "folder" and (
            odd := [
                name for name in sorted(own) if getattr(self, name) != getattr(DataConfig, name)
            ]
        ):
            raise InbolError(
                f"--data.{odd[0].replace('_', '-')} is of no use with a dataset folder; its records say it themselves"
            )
        if self.annotations and not self.questions:
            raise InbolError("--data.annotations needs --data.questions")
        if self.questions and not self.images:
            raise InbolError(
                "--data.questions needs --data.images, the folder with the set's images"
            )
        if self.id and not self.split:
            raise InbolError(f"--data.id {self.id}: --data.split is needed")
        if self.limit is not None and self.limit < 1:
            raise InbolError(f"--data.limit {self.limit}: at least one record is needed")
        if self.metric is not None:
            parse_metric(self.metric)

    def called(self) -> str:
        """Name of the dataset in output files."""
        if self.name is not None:
            name = self.name
        elif self.id is not None:
            parts = (
                Path(self.id).stem if Path(self.id).exists() else self.id.split("/")[-1],
                self.subset,
                self.split,
            )
            name = "-".join(part for part in parts if part)
        else:
            name = "-".join(
                part for part in (self.questions.stem if self.questions else "", self.split) if part
            )
        if not (safe := re.sub(r"[^\w.-]+", "-", name).strip(".-")):
            raise InbolError(f"--data.name {name!r}: letters, digits, '.', '-' and '_' are needed")
        return safe


# What a command's `data` option is: in Python a path or a DataConfig, on the command line the options of DataConfig.
Data = Annotated[Path | DataConfig, tyro.conf.arg(constructor=DataConfig)]


def as_data_config(data: Path | DataConfig) -> DataConfig:
    """A path is a dataset folder, or a .jsonl file."""
    return data if isinstance(data, DataConfig) else DataConfig(dir=Path(data))
