"""Options of `inbol data import`, which name any VQA set, and of `inbol data check`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

import tyro

from inbol_jax.data.sets import SETS
from inbol_jax.defaults import Bounded, Bounds, Share
from inbol_jax.errors import InbolError
from inbol_jax.questions import check_metric

# Files that --id reads, by the end of their names; a file has no splits.
TEXT_FILES = (".csv", ".tsv", ".json", ".jsonl")
FILES = (*TEXT_FILES, ".parquet", ".arrow")
# One {} for the id of an image: "images/{:06d}.jpg".
_TEMPLATE = re.compile(r"[^{}]*\{(:[^{}]*)?\}[^{}]*")


@dataclasses.dataclass(frozen=True)
class ImportConfig(Bounded):
    """Write any set as a dataset folder, which every command reads.

    Pictures are not decoded; `inbol data check` does that.

    Raises:
      InbolError: if options do not go together; the message names one of them.
    """

    out: Path
    """Output folder: data.jsonl, rejected.jsonl and, if the set holds its pictures, images/."""
    images: Path | None = None
    """Folder that the paths of images are relative to. Without it pictures are copied."""
    image_template: str | None = None
    """Path of an image in that folder, made of what the image column holds, such as
    "images/{:06d}.jpg" if it holds numbers."""
    format: str = "columns"
    """Format of the questions: columns (any set, by its column names), vqav2, okvqa, gqa, vizwiz,
    textvqa, pope, haloquest, unkvqa, mmupd or mmbench."""
    id: Annotated[str | None, tyro.conf.arg(aliases=["--questions"])] = None
    """A local file (.csv, .tsv, .json, .jsonl, .parquet or .arrow), such as the official one of a
    set; a folder of such files, or of images with metadata.jsonl or metadata.csv; or the id of a
    set on the hub, by default the one in docs/datasets.md."""
    annotations: Path | None = None
    """Official file of the answers, if they are not in the file of questions."""
    subset: str | None = None
    """Subset of that set, if it has several (`datasets` calls it the config)."""
    split: str | None = None
    """Split of the set. A local set with one split, or a single file, needs none."""
    limit: Annotated[int | None, Bounds(1)] = None
    """Read only this many records, from the first one on."""
    image_column: str | None = None
    """Column of the images, for format columns: a picture, a path below the image folder, or a list
    of these; an empty list is a question about text alone. The default is "image" or "images"."""
    question_column: str = "question"
    """Column of the questions, for format columns."""
    answers_column: str | None = None
    """Column of the answers, for format columns: a string, a list of strings, or a list of objects
    with an "answer"; with options also the number of the right one, from 0 on. The default is
    "answers" or "answer"."""
    metric: str | None = None
    """How answers are matched: inclusion, vqa, exact, yes_no, choice or numeric. The default is the
    set's own metric."""
    max_rejected: Share = 0.1
    """Share of records that may be unusable; above it the import stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        option = f"--format {self.format}"
        if self.format not in SETS:
            raise InbolError(f"{option}: choose one of {', '.join(SETS)}")
        spec = SETS[self.format]
        object.__setattr__(self, "id", self.id or spec.hub)
        if not self.id:
            raise InbolError(
                "no dataset is named: give --id, or --format of a set that is on the hub "
                "(docs/datasets.md)"
            )
        if not (self.is_file or spec.hub or self.format == "columns"):
            raise InbolError(f"{option} reads the set's own file: give it by --id")
        is_text = str(self.id).lower().endswith(TEXT_FILES)
        if self.is_file and (spec.annotations and is_text) != bool(self.annotations):
            needs = "needs --annotations, the file with the answers"
            raise InbolError(f"{option} {needs if spec.annotations else 'has its own answers'}")
        if self.annotations and not self.is_file:
            raise InbolError("--annotations goes with an official file as --id")
        if not (self.split or self.is_file or Path(str(self.id)).exists()):
            raise InbolError(f"--id {self.id}: --split is needed")
        if self.image_template and not _TEMPLATE.fullmatch(self.image_template):
            raise InbolError(
                f"--image-template {self.image_template}: one {{}} is needed for the image's "
                'id, such as "images/{:06d}.jpg"'
            )
        if self.metric is not None:
            check_metric(self.metric)

    @property
    def is_file(self) -> bool:
        """Whether `id` is the name of a file that is read as one set."""
        return self.id is not None and Path(self.id).suffix.lower() in FILES


@dataclasses.dataclass(frozen=True)
class CheckConfig(Bounded):
    """Read a dataset folder, decode every picture, and write what is sound as another one.

    Other records are listed with their cause. The exit code is 2 if more than --max-rejected of the
    records cannot be used; all files are written then as well.
    """

    data: Path
    """Dataset folder (data.jsonl and images), or a .jsonl file."""
    out: Path
    """Output folder: data.jsonl (sound records), rejected.jsonl, shared.jsonl and check.json."""
    against: tuple[Path, ...] = ()
    """Dataset folders to compare with, such as evaluation sets. Pictures that they share with this
    set are listed in shared.jsonl."""
    max_rejected: Share = 0.1
    """Share of records that may be unusable."""
