"""TUBench's official zips as a dataset folder (He et al. 2024, arXiv 2410.04107).

    python examples/tubench.py --zip UGeoQA.zip --out sets/ugeoqa

The copy on the hub has letters without options; UVQA.zip, UCR.zip, UGeoQA.zip, UTabMWP1.zip and
UTabMWP2.zip have the options too. A set in files of its own becomes any other's: write its rows as
JSON lines with its pictures beside them, and import these.
"""

import contextlib
import dataclasses
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tyro

from inbol_jax.artifacts import json_line, write_atomically
from inbol_jax.data.config import ImportConfig
from inbol_jax.data.importing import import_data
from inbol_jax.errors import InbolError
from inbol_jax.questions import METRICS

MAX_MEMBER = 1 << 26  # bytes of a file in a zip
UNANSWERABLE = "Unanswerable"  # the gold label of such a question
OCCLUDED = "_u1"  # ends the name of UTabMWP's picture without the evidence
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes a dataset folder of one of TUBench's zips."""

    zip: Path
    """One of the official zips."""
    out: Path
    """Output folder."""


class Members:
    """The files of a zip by their paths, without what macOS adds."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._infos = {
            PurePosixPath(info.filename): info  # "a//b" and "./a/b" are "a/b"
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX")
        }
        self.names = sorted(self._infos)

    def read(self, name: PurePosixPath) -> bytes:
        """A file's bytes. Raises ValueError if they are too many, or cannot be unpacked."""
        info = self._infos[name]
        if info.file_size > MAX_MEMBER:
            raise ValueError("too large")
        try:
            return self._archive.read(info)
        except (RuntimeError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise ValueError(f"damaged ({error})") from error  # or with a password

    def picture(self, name: PurePosixPath) -> bytes | None:
        """A picture of the name, whatever its suffix."""
        names = (name.with_suffix(suffix) for suffix in (".png", ".jpg", ".jpeg"))
        return next((self.read(n) for n in names if n in self._infos), None)


def rows(members: Members, name: PurePosixPath) -> Iterator[Row]:
    """The questions of a file, none if it is no file of questions. `image` holds bytes."""
    about = {"item_id": name.parent.name, "image_variant": "original"}
    if name.suffix == ".json" and name.stem == name.parent.name:
        yield from choice_rows(members, name, about)
    elif name.name == "vqa.txt":
        beside = (n for n in members.names if n.parent == name.parent and n != name)
        image = next((p for n in beside if (p := members.picture(n))), None)
        yield from line_rows(members.read(name), about | {"dataset": "UVQA", "image": image})
    elif name.suffix == ".txt" and not name.stem.endswith("_negate_flip"):
        _, _, variant = name.stem.partition("_")
        about |= {"image_variant": variant or "original", "strategy": variant or None}
        about |= {"dataset": "UCR", "image": members.picture(name)}
        yield from line_rows(members.read(name), about)


def line_rows(text: bytes, about: Row) -> Iterator[Row]:
    """Question and label of each line; in UVQA behind a number, and before the strategy."""
    for number, line in enumerate(text.decode("utf-8-sig").splitlines()):
        cells = [cell.strip() for cell in line.split("\t")]
        strategy = about.get("strategy")
        if about["dataset"] == "UVQA":
            cells, (strategy, *_) = cells[1:3], [*cells[3:], None]
        if len(cells) >= 2:
            row = {"question": cells[0], "answer": cells[1], "question_idx": number}
            row |= {"is_unanswerable": cells[1] == UNANSWERABLE, "strategy": strategy}
            yield {**about, **row}


def choice_rows(members: Members, name: PurePosixPath, about: Row) -> Iterator[Row]:
    """The two questions of a UGeoQA or a UTabMWP item: the original, and the one that is altered.

    UGeoQA is asked in English: what models refuse in other languages is not recognised.
    """
    item = json.loads(members.read(name))
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    options, label = item.get("choices"), item.get("label")
    picture = members.picture(name)
    if "unanswerable_subject" in item:
        kind, variant, occluded = "UGeoQA", "original", picture
        subjects = (
            item.get(f"{start}eng_subject") or item.get(f"{start}subject") or ""
            for start in ("", "unanswerable_")
        )
        questions = [str(subject).replace("()", "?") for subject in subjects]
    else:
        kind, variant, questions = "UTabMWP", OCCLUDED.strip("_"), [item.get("question")] * 2
        occluded = members.picture(name.with_stem(name.stem + OCCLUDED))
        with contextlib.suppress(ValueError, AttributeError):
            label = options.index(item.get("answer"))
    letter = chr(ord("A") + label) if isinstance(label, int) and 0 <= label < 26 else None
    about = about | {"dataset": kind, "options": options}
    answered = {"question": questions[0], "answer": letter, "is_unanswerable": False}
    yield {**about, **answered, "image": picture, "question_idx": 0}
    altered = {"question": questions[1], "answer": UNANSWERABLE, "is_unanswerable": True}
    altered |= {"image": occluded, "question_idx": 1, "image_variant": variant}
    yield {**about, **altered}


def record(row: Row) -> Row:
    """A row as a line of a dataset. Each question has the metric of its own answer."""
    id = "-".join(str(row[x]) for x in ("dataset", "item_id", "image_variant", "question_idx"))
    answers = [] if row["is_unanswerable"] else [row["answer"] or ""]
    columns = {"id": id, "source": "tubench", "question": row["question"], "answers": answers}
    columns |= {"answerable": not row["is_unanswerable"], "image": row.get("image")}
    columns |= {"kind": row["dataset"], "strategy": row.get("strategy")}
    if options := row.get("options"):
        return columns | {"options": options, "metric": "choice"}
    return columns | {"metric": metric_of("".join(answers))}


def metric_of(answer: str) -> str:
    """The metric for a gold answer that is a yes or no, or else a number or words."""
    return "yes_no" if answer.strip(" .()").lower() in ("yes", "no") else METRICS[0]


def convert(config: Config) -> Path:
    """Writes the rows and their pictures, and imports them. Returns the dataset folder.

    Raises:
      InbolError: if the file is no zip, or holds none of these sets.
    """
    images, lines = config.out / "images", []
    try:
        with zipfile.ZipFile(config.zip) as archive:
            members = Members(archive)
            for name in members.names:
                try:
                    for row in rows(members, name):
                        if (data := row.pop("image", None)) is not None:
                            row["image"] = f"{len(lines)}"  # pictures are known by their content
                            write_atomically(images / row["image"], data, sync=False)
                        lines.append(json_line(record(row)))
                except (ValueError, UnicodeError) as fault:
                    print(f"{name}: {fault}", file=sys.stderr)
    except (OSError, zipfile.BadZipFile) as error:
        raise InbolError(f"{config.zip}: cannot be read as a zip ({error})") from error
    if not lines:
        raise InbolError(f"{config.zip}: holds none of TUBench's sets; give an official zip")
    images.mkdir(parents=True, exist_ok=True)
    questions = config.out / f"{config.zip.stem}.jsonl"
    write_atomically(questions, "".join(lines))
    return import_data(ImportConfig(config.out, id=str(questions), images=images))


if __name__ == "__main__":
    try:
        convert(tyro.cli(Config, description=__doc__))
    except InbolError as error:
        sys.exit(f"error: {error}")
