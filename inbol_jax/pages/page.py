"""HTML pages from templates that escape everything, and images as data URIs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from inbol_jax.artifacts import write_atomically
from inbol_jax.data.folder import Unusable, image_check
from inbol_jax.data.images import ImageError, data_uri, load_image

MAX_SIDE = 256  # pixels of an image
MAX_TEXT = 300  # characters of a question or an answer on a card


class EmbeddedImage(NamedTuple):
    """An image of a page: a data URI and whether to enlarge it with hard edges, or a note on why it
    cannot be shown."""

    uri: str = ""
    small: bool = False
    note: str = ""


def write_page(file: Path, templates: Path, context: Mapping[str, Any]) -> None:
    """Writes a page atomically, from the template in `templates` with the name of the file.

    Everything is escaped. The filter `short` cuts a text.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = short
    text = environment.get_template(f"{file.name}.jinja").render(context)
    # A lone surrogate in an answer is no reason to stop.
    write_atomically(file, text.encode("utf-8", "replace"))


def short(text: str) -> str:
    """A text of at most `MAX_TEXT` characters; the end of a longer one is cut off."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def embed(folder: Path | None, image: str) -> EmbeddedImage:
    """An image as a PNG data URI of at most 256 pixels per side, which holds nothing but pixels.

    A picture must never cost the page: if it cannot be shown, the note says why.

    Args:
      folder: the dataset's image folder; None if there is none.
      image: the path of the image, relative to the folder.
    """
    if folder is None:
        return EmbeddedImage(note="no image folder for this dataset")
    try:
        image_check(folder)(image)
        pixels = load_image(folder / image)
    except Unusable as cause:
        return EmbeddedImage(note=str(cause))
    except ImageError as error:
        return EmbeddedImage(note=error.cause)
    pixels.thumbnail((MAX_SIDE, MAX_SIDE))
    uri = data_uri(pixels, optimize=True)
    return EmbeddedImage(uri, small=max(pixels.size) < MAX_SIDE // 2)
