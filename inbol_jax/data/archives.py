"""TUBench's official zips as rows with their pictures (He et al. 2024, arXiv 2410.04107).

Nothing is unpacked: members are read in memory, up to a size, and their names are no paths of ours.
"""

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from inbol_jax.artifacts import parse_json
from inbol_jax.data.rows import RawRow, Unusable
from inbol_jax.errors import InbolError
from inbol_jax.questions import LETTERS

MAX_MEMBER = 1 << 26  # bytes of a file in a zip
UNANSWERABLE = "Unanswerable"  # the gold label of such a question
_OCCLUDED = "_u1"  # ends the name of UTabMWP's picture without the evidence


class _Members:
    """The files of a zip by name, without what macOS adds."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self.names = [
            PurePosixPath(info.filename)
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX")
        ]
        self._known = set(self.names)

    def read(self, name: PurePosixPath) -> bytes:
        info = self._archive.getinfo(str(name))
        if info.file_size > MAX_MEMBER:
            raise Unusable("file in the zip too large")
        try:
            return self._archive.read(info)
        except (RuntimeError, zipfile.BadZipFile, OSError, EOFError, ValueError):
            raise Unusable("file in the zip damaged") from None  # or with a password

    def picture(self, name: PurePosixPath) -> dict[str, bytes] | None:
        """A picture as the hub's copy holds it; of the name, whatever its suffix."""
        for suffix in (".png", ".jpg", ".jpeg"):
            if (file := name.with_suffix(suffix)) in self._known:
                return {"bytes": self.read(file)}
        return None


def tubench_rows(path: Path) -> Iterator[tuple[int, RawRow | Unusable]]:
    """Rows of UVQA.zip, UCR.zip, UGeoQA.zip, UTabMWP1.zip or UTabMWP2.zip, with the columns of the
    copy on the hub, and `options`.

    Raises:
      InbolError: if the file is no zip, or holds none of these sets.
    """
    number = 0
    try:
        with zipfile.ZipFile(path) as archive:
            members = _Members(archive)
            for name in sorted(members.names):
                for row in _questions(members, name):
                    number += 1
                    yield number, row
    except (OSError, zipfile.BadZipFile) as error:
        raise InbolError(f"{path}: cannot be read as a zip ({error})") from error
    if not number:
        raise InbolError(f"{path}: holds none of TUBench's sets; give one of its official zips")


def _questions(members: _Members, name: PurePosixPath) -> Iterator[RawRow | Unusable]:
    """The questions of a file, none if it is no file of questions."""
    about = {"item_id": name.parent.name, "image_variant": "original"}
    try:
        if name.suffix == ".json" and name.stem == name.parent.name:
            found = parse_json(members.read(name))
            if not isinstance(found, dict):
                raise Unusable("not a JSON object")
            yield from _choice_questions(members, name, found, about)
        elif name.name == "vqa.txt":
            pictures = (n for n in members.names if n.parent == name.parent and n != name)
            image = next((p for n in sorted(pictures) if (p := members.picture(n))), None)
            yield from _lines(members.read(name), about | {"dataset": "UVQA", "image": image})
        elif name.suffix == ".txt" and not name.stem.endswith("_negate_flip"):
            _, _, variant = name.stem.partition("_")
            about |= {"image_variant": variant or "original", "strategy": variant or None}
            about |= {"dataset": "UCR", "image": members.picture(name)}
            yield from _lines(members.read(name), about)
    except (UnicodeError, json.JSONDecodeError, ValueError):
        yield Unusable("not UTF-8 or not JSON", name.parent.name)
    except Unusable as cause:
        yield Unusable(str(cause), name.parent.name)


def _lines(text: bytes, about: RawRow) -> Iterator[RawRow]:
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


def _choice_questions(
    members: _Members, name: PurePosixPath, found: dict[str, Any], about: dict[str, Any]
) -> Iterator[RawRow]:
    """The two questions of a UGeoQA or a UTabMWP item: the original, and the one that is altered.

    UGeoQA is asked in English: what models refuse in other languages is not recognised.
    """
    options = found.get("choices")
    label = found.get("label")
    picture = members.picture(name)
    if "unanswerable_subject" in found:
        kind, occluded = "UGeoQA", picture
        questions = [found.get(f"{start}eng_subject") or found.get(f"{start}subject")
                     for start in ("", "unanswerable_")]  # fmt: skip
        questions = [q.replace("()", "?") if isinstance(q, str) else q for q in questions]
    else:
        kind, questions = "UTabMWP", [found.get("question")] * 2
        occluded = members.picture(name.with_stem(name.stem + _OCCLUDED))
        with contextlib.suppress(ValueError, AttributeError):
            label = options.index(found.get("answer"))
    letter = LETTERS[label] if isinstance(label, int) and 0 <= label < len(LETTERS) else None
    about = about | {"dataset": kind, "options": options}
    answered = {"question": questions[0], "answer": letter, "is_unanswerable": False}
    yield {**about, **answered, "image": picture, "question_idx": 0}
    altered = {"question": questions[1], "answer": UNANSWERABLE, "is_unanswerable": True}
    altered |= {"image": occluded, "question_idx": 1}
    if kind == "UTabMWP":
        altered["image_variant"] = "u1"
    yield {**about, **altered}
