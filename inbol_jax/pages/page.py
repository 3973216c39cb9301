"""HTML and Markdown pages from templates, in which everything is escaped, and images as data URIs."""

import base64
import io
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import jinja2
from PIL import Image, ImageOps

from inbol_jax.artifacts import write_atomically

MAX_PIXELS = 20_000_000  # of a gallery image: more is refused before it is decoded


MAX_SIDE = 256


def write_page(file: Path, templates: Path, context: Mapping[str, Any]) -> None:
    """Renders the template of the file's name, in the folder `templates`, and writes the file atomically. In HTML everything is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    text = environment.get_template(f"{file.name}.jinja").render(context)
    write_atomically(
        file, text.encode("utf-8", "replace")
    )  # a lone surrogate in an answer is no reason to stop


def cell(text: Any) -> str:
    """Text for a Markdown table cell: one line, in which nothing is a pipe, a tag, a link, an image or an emphasis."""
    line = " ".join(str(text).split())
    return "".join(
        f"&#{ord(c)};" if c in "&<>|\\`*_[]~$" and not _inside_word(line, i) else c
        for i, c in enumerate(line)
    )


def _inside_word(line: str, i: int) -> bool:
    """Whether character i is an underscore as in `idk_it`, which Markdown leaves alone and readers of the source like to see."""
    return (
        line[i] == "_" and 0 < i < len(line) - 1 and line[i - 1].isalnum() and line[i + 1].isalnum()
    )


def embed(folder: Path | None, image: str) -> dict[str, Any]:
    """A gallery image as a PNG data URI of at most 256 pixels a side, read anew so that nothing but pixels gets through.

    Returns: {"uri", "small": whether to enlarge it with hard edges, "note": ""}; where it cannot be shown, uri is "" and the note
      says why: a picture must never cost the report.
    """

    def missing(note: str) -> dict[str, Any]:
        return {"uri": "", "small": False, "note": note}

    if folder is None:
        return missing("no image folder for this dataset")
    if not image or PurePath(image).is_absolute() or ".." in PurePath(image).parts:
        return missing("image path leads out of its folder")
    try:
        if not (folder / image).is_file():
            return missing("image file missing")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow's remarks on sizes (checked below) and on odd metadata
            with Image.open(folder / image) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return missing(f"image too large ({opened.width} x {opened.height})")
                opened.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG decodes smaller, hence faster
                upright = ImageOps.exif_transpose(opened)
                pixels = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        pixels.thumbnail((MAX_SIDE, MAX_SIDE))
        pixels.info = {}
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG", optimize=True)
    except Exception as error:  # decoders of broken files raise anything: struct.error, IndexError, SyntaxError, ...
        return missing(f"image cannot be read ({type(error).__name__})")
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"uri": uri, "small": max(pixels.size) < MAX_SIDE // 2, "note": ""}
