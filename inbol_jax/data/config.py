"""Options that name a VQA set, and those of `inbol data import` and `inbol data check`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from inbol_jax.artifacts import check_name
from inbol_jax.data.sets import SETS, Spec
from inbol_jax.defaults import Bounded, Bounds, Share
from inbol_jax.errors import InbolError
from inbol_jax.questions import parse_metric

FORMATS = ("folder", *SETS)
# Files that --data.id reads, by the end of their names; a file has no splits.
TEXT_FILES = (".csv", ".tsv", ".json", ".jsonl")
FILES = (*TEXT_FILES, ".parquet", ".arrow")
# One {} for the id of an image: "images/{:06d}.jpg".
_TEMPLATE = re.compile(r"[^{}]*\{(:[^{}]*)?\}[^{}]*")


def _named(name: str, *aliases: str) -> Any:
    """An option of exactly this name, so that `--data` and `--data.format` go together."""
    return tyro.conf.arg(name=name, prefix_name=False, aliases=aliases or None)


@dataclasses.dataclass(frozen=True)
class DataConfig(Bounded):
    """A VQA set: a dataset folder, official files, or a set of the `datasets` library.

    Raises:
      InbolError: if options do not go together; the message names one of them.
    """

    dir: Annotated[Path | None, _named("data")] = None
    """Dataset folder (data.jsonl and images), or a .jsonl file."""
    images: Annotated[Path | None, _named("data.images", "--images")] = None
    """Image folder, if it is not the dataset's own."""
    image_template: Annotated[str | None, _named("data.image-template")] = None
    """Path of an image in that folder, made of what the image column holds, such as
    "images/{:06d}.jpg" if it holds numbers."""
    format: Annotated[str | None, _named("data.format")] = None
    """Format of the questions: folder, columns (any set, by its column names), vqav2, okvqa, gqa,
    vizwiz, textvqa, pope, haloquest, unkvqa, mmupd or mmbench. The default is folder with
    --data and columns with --data.id."""
    id: Annotated[str | None, _named("data.id", "--data.questions")] = None
    """A local file (.csv, .tsv, .json, .jsonl, .parquet or .arrow), such as the official one of a
    set; a folder of such files, or of images with metadata.jsonl or metadata.csv; or the id of a
    set on the hub, by default the one in docs/datasets.md."""
    annotations: Annotated[Path | None, _named("data.annotations")] = None
    """Official file of the answers, if they are not in the file of questions."""
    subset: Annotated[str | None, _named("data.subset")] = None
    """Subset of that set, if it has several (`datasets` calls it the config)."""
    split: Annotated[str | None, _named("data.split")] = None
    """Split of the set. A local set with one split, or a single file, needs none."""
    name: Annotated[str | None, _named("data.name")] = None
    """Name of the set in output files; by default made of its id or file name, and the split."""
    limit: Annotated[int | None, _named("data.limit"), Bounds(1)] = None
    """Read only this many records, from the first one on."""
    image_column: Annotated[str | None, _named("data.image-column")] = None
    """Column of the images, for format columns: a picture, a path below the image folder, or a list
    of these; an empty list is a question about text alone. The default is "image" or "images"."""
    question_column: Annotated[str, _named("data.question-column")] = "question"
    """Column of the questions, for format columns."""
    answers_column: Annotated[str | None, _named("data.answers-column")] = None
    """Column of the answers, for format columns: a string, a list of strings, or a list of objects
    with an "answer"; with options also the number of the right one, from 0 on. The default is
    "answers" or "answer"."""
    metric: Annotated[str | None, _named("data.metric")] = None
    """How answers are matched: inclusion, vqa, exact, yes_no, choice, numeric or numeric:TOLERANCE.
    The default is the set's own metric."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source_format not in FORMATS:
            raise InbolError(f"--data.format {self.format}: choose one of {', '.join(FORMATS)}")
        spec = SETS.get(self.source_format)
        if not (self.dir or self.id or (spec and spec.hub)):
            raise InbolError(
                "no dataset is named: give --data DIR, --data.id, or --data.format of a set that "
                "is on the hub (docs/datasets.md)"
            )
        if spec is None:
            for name in sorted(vars(self).keys() - {"dir", "images", "format", "limit"}):
                if getattr(self, name) != getattr(DataConfig, name):
                    raise InbolError(
                        f"--data.{name.replace('_', '-')} is of no use with a dataset folder; "
                        "its records say it themselves"
                    )
        elif self.dir:
            raise InbolError(
                f"--data {self.dir}: a set of format {self.source_format} is named by --data.id"
            )
        else:
            object.__setattr__(self, "id", self.id or spec.hub)
            self._check_set(spec)

    def _check_set(self, spec: Spec) -> None:
        """Whether the options name what the set is read from."""
        option = f"--data.format {self.source_format}"
        if not (self.is_file or spec.hub or self.format in (None, "columns")):
            raise InbolError(f"{option} reads the set's own file: give it by --data.id")
        is_text = str(self.id).lower().endswith(TEXT_FILES)
        if self.is_file and (spec.annotations and is_text) != bool(self.annotations):
            needs = "needs --data.annotations, the file with the answers"
            raise InbolError(f"{option} {needs if spec.annotations else 'has its own answers'}")
        if self.annotations and not self.is_file:
            raise InbolError("--data.annotations goes with an official file as --data.id")
        if not (self.split or self.is_file or Path(str(self.id)).exists()):
            raise InbolError(f"--data.id {self.id}: --data.split is needed")
        if self.image_template and not _TEMPLATE.fullmatch(self.image_template):
            raise InbolError(
                f"--data.image-template {self.image_template}: one {{}} is needed for the image's "
                'id, such as "images/{:06d}.jpg"'
            )
        if self.metric is not None:
            parse_metric(self.metric)

    @property
    def is_file(self) -> bool:
        """Whether `id` is the name of a file that is read as one set."""
        return self.id is not None and Path(self.id).suffix.lower() in FILES

    @property
    def source_format(self) -> str:
        """The format, also if none was named."""
        return self.format or ("columns" if self.id else "folder")

    def called(self) -> str:
        """The name of the set in output files."""
        name = self.name
        if name is None:
            local = Path(str(self.id))
            base = local.stem if local.exists() else str(self.id).split("/")[-1]
            name = "-".join(filter(None, (base, self.subset, self.split)))
        safe = re.sub(r"[^\w.-]+", "-", name).strip(".-")
        if not safe:
            raise InbolError(f"--data.name {name!r}: letters, digits, '.', '-' and '_' are needed")
        check_name(safe, "--data.name")
        return safe


# The type of a command's `data` field: a path or a DataConfig in Python, and on the command line
# the options of DataConfig.
Data = Annotated[Path | DataConfig, tyro.conf.arg(constructor=DataConfig)]


def as_data_config(data: Path | DataConfig) -> DataConfig:
    """A path stands for a dataset folder or a .jsonl file."""
    return data if isinstance(data, DataConfig) else DataConfig(dir=Path(data))


@dataclasses.dataclass(frozen=True)
class ImportConfig(Bounded):
    """Write any set as a dataset folder, which every command reads.

    Pictures are not decoded; `inbol data check` does that.
    """

    data: Data
    """Questions, their images and answers."""
    out: Path
    """Output folder: data.jsonl, rejected.jsonl and, if the set holds its pictures, images/."""
    max_rejected: Share = 0.1
    """Share of records that may be unusable; above it the import stops."""


@dataclasses.dataclass(frozen=True)
class CheckConfig(Bounded):
    """Read a set, decode every picture, and write what is sound as a dataset folder.

    Other records are listed with their cause. The exit code is 2 if more than --max-rejected of the
    records cannot be used; all files are written then as well.
    """

    data: Data
    """Questions, their images and answers."""
    out: Path
    """Output folder: data.jsonl (sound records), rejected.jsonl, shared.jsonl and check.json."""
    against: tuple[Path, ...] = ()
    """Dataset folders to compare with, such as evaluation sets. Pictures that they share with this
    set are listed in shared.jsonl."""
    max_rejected: Share = 0.1
    """Share of records that may be unusable."""
