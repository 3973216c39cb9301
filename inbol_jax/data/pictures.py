"""Pictures that the rows of a set hold or refer to, written once each into the dataset folder."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import write_atomically
from inbol_jax.data.config import ImportConfig
from inbol_jax.data.folder import Unusable, image_check
from inbol_jax.data.images import ImageError, image_suffix
from inbol_jax.data.rows import RawRow, literal_list
from inbol_jax.errors import InbolError


class Pictures:
    """Gives the pictures of rows their names in `data.jsonl`.

    If the set has an image folder, the names are paths below it. Otherwise each picture is written
    as it is into the dataset folder, under the hash of its bytes, so that one that many questions
    share is there once.
    """

    def __init__(self, config: ImportConfig, folder: Path, *, base64: bool):
        self._config, self.folder, self._base64 = config, folder, base64
        self._by_index: dict[str, str] = {}  # pictures in base64, which later rows refer to
        self._check = image_check(config.images) if config.images else None

    def names(self, found: Any, row: RawRow) -> list[str]:
        """The names of the pictures that were found in a row, in the order of the prompt; an empty
        list is text alone.

        Raises:
          Unusable: if the row lacks a picture, or holds no image in a known format.
        """
        found = literal_list(found)  # a list in a cell of CSV
        pictures = found if isinstance(found, list) else [found]
        names = [self._name(picture, row.get("index")) for picture in pictures]
        if None in names:  # without that picture it would be another question
            raise Unusable("image missing", f"the row has {', '.join(map(str, row))}")
        return names

    def _name(self, picture: Any, index: Any) -> str | None:
        """The name of a picture: bytes, a path, an object with either, or text in base64."""
        if isinstance(picture, dict) and ("bytes" in picture or "path" in picture):
            picture = picture.get("path") if picture.get("bytes") is None else picture["bytes"]
        if picture is None or picture == "":
            return None
        if self._base64 and isinstance(picture, str) and not self._config.images:
            return self._decoded(picture, index)
        if isinstance(picture, float) and picture.is_integer():  # an id, in pandas' spelling
            picture = int(picture)
        if self._config.image_template and isinstance(picture, str | int):
            picture = _path(self._config.image_template, picture)
        if not isinstance(picture, str | bytes):
            number = " (--image-template makes paths of numbers)"
            raise Unusable(f"image not a picture or path{number * isinstance(picture, int)}")
        if self._check is None:
            data = _read(picture, self._config) if isinstance(picture, str) else picture
            return self._written(data)
        if isinstance(picture, bytes):
            raise Unusable("picture in the row itself (leave --images out)")
        self._check(picture)
        return picture

    def _decoded(self, text: str, index: Any) -> str:
        """Of a picture in base64; questions with rotated options name the index of the first."""
        if text in self._by_index:
            return self._by_index[text]
        try:
            name = self._written(base64.b64decode(text, validate=True))
        except ValueError:  # binascii.Error is one, and so is a text that is not ASCII
            raise Unusable("image not base64") from None
        self._by_index[str(index)] = name
        return name

    def _written(self, data: bytes) -> str:
        """Writes a picture; nothing is decoded but its header."""
        digest = hashlib.sha256(data).hexdigest()[:32]
        try:
            name = f"images/{digest[:2]}/{digest}{image_suffix(data)}"
        except ImageError as error:
            raise Unusable(error.cause) from None
        if not (self.folder / name).exists():
            write_atomically(self.folder / name, data, sync=False)
        return name


def _path(template: str, id: str | int) -> str:
    """The path of an image by its id; numbers may be written as text, as CSV does."""
    for kind in (type(id), int):
        try:
            return template.format(kind(id))
        except ValueError as error:
            fault = error
    raise InbolError(f"--image-template {template}: {id!r} ({fault})")


def _read(name: str, config: ImportConfig) -> bytes:
    """Reads a picture among the files of a local set; no other."""
    local = Path(str(config.id))
    root = (local if local.is_dir() else local.parent).resolve()
    path = root / name
    try:
        path = path.resolve()
        if not local.exists() or not path.is_relative_to(root):
            raise Unusable("image outside the set's files", f"it is {path}")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        raise Unusable("image missing", f"looked for {path}") from None
