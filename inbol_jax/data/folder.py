"""The folder of a file's images, and whether an image can be used; no picture is opened."""

import functools
from collections.abc import Callable
from pathlib import Path

from inbol_jax.artifacts import read_meta
from inbol_jax.errors import InbolError


class Unusable(Exception):
    """Says why a row is set aside: a cause that can be counted, and what is known about this row.

    Attributes:
      detail: what helps to mend it, such as the path that was looked for.
      id: the record's id.
    """

    def __init__(self, cause: str, detail: str = "", *, id: str | None = None):
        super().__init__(cause)
        self.detail, self.id = detail, id


def image_folder(file: Path, images: Path | None) -> Path:
    """The folder that the images of a JSON lines file are in; by default its header names it."""
    folder = images or (file.parent / read_meta(file).get("images", ".")).resolve()
    if not folder.is_dir():
        raise InbolError(
            f"{folder}: no such image folder; --images names the one that the images of {file} are "
            "in"
        )
    return folder


def image_check(root: Path) -> Callable[[str], None]:
    """A function that raises `Unusable` for an image that is missing, empty or outside the folder.

    Many questions share an image, so each image that can be used is looked at once.
    """
    root = root.resolve()

    @functools.cache
    def check(image: str) -> None:
        if Path(image).is_absolute():
            raise Unusable("image path absolute", image)
        try:
            path = (root / image).resolve()
            if not path.is_relative_to(root):  # by `..`, or through a symbolic link
                raise Unusable("image outside the folder", f"it is {path}")
            if path.is_file():
                if path.stat().st_size:
                    return
                raise Unusable("image empty", str(path))
        except (OSError, ValueError, RuntimeError):  # a long name, a NUL in it, links in a circle
            path = root / image
        raise Unusable("image missing", f"looked for {path}")

    return check
