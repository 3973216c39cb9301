"""Images from disk: any common file becomes upright 8-bit RGB, or an error that names the file.

All images of the project are opened here.
"""

import base64
import contextlib
import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from inbol_jax.errors import InbolError

MAX_PIXELS = 40_000_000  # 120 MB of RGB; more is a mistake or a decompression bomb

# The tag of EXIF and TIFF; from 5 on the sides are swapped.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of TIFF: 0 is white, or not; 1 is unsigned
# Raster formats that Pillow decodes by itself. EPS would run Ghostscript, and the header of a
# container such as ICO hides the sizes of its images.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# `catch_warnings` swaps the filters of the whole process: two threads that are inside at once could
# leave the wrong ones behind.
_HEADER_LOCK = threading.Lock()


class ImageError(InbolError):
    """An image that cannot be used; `cause` is one of a few phrases, which can be counted."""

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


def load_image(path: Path | BinaryIO) -> Image.Image:
    """Reads an image of any suffix in one of `FORMATS`; of several frames, the first one.

    EXIF orientation is applied, transparency is composited on white, and 16 bits are reduced to
    their upper 8 rather than clipped. The size is checked before anything is decoded.

    Returns:
      mode RGB, upright, without metadata.
    Raises:
      ImageError: if the file is missing, no image, truncated, corrupt, of pixels without a defined
        range (float, signed, 32 bits), or larger than `MAX_PIXELS`; the message names file and
        cause.
    """
    with _opened(path, f"{path}: ") as image:
        image.load()
        with contextlib.suppress(Exception):  # damaged metadata of a sound image
            # Decoding a TIFF has applied and dropped the orientation already.
            ImageOps.exif_transpose(image, in_place=True)
        rgb = _to_rgb(image)
    rgb.info.clear()  # nobody is to apply the orientation a second time
    return rgb


def image_size(path: Path) -> tuple[int, int]:
    """Returns width and height of what `load_image` gives; reads the header alone.

    Raises ImageError as `load_image`, but not for what only decoding shows.
    """
    with _opened(path, f"{path}: ") as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION) in _TURNED  # XMP says it as well
        # Pillow has swapped the size already that a tag of TIFF turns.
        swapped = image.format == "TIFF" and image.tag_v2.get(_ORIENTATION) in _TURNED
    return (height, width) if turned != swapped else (width, height)


def image_suffix(data: bytes) -> str:
    """The suffix (".jpg", ".png" ...) of an encoded image, by its header; nothing is decoded.

    Raises:
      ImageError: if it is no image in one of `FORMATS`, or has more pixels than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("an image without a byte", "image empty")
    with _opened(io.BytesIO(data)) as image:
        suffix = str(image.format).lower()
    return ".jpg" if suffix == "jpeg" else f".{suffix}"


@contextlib.contextmanager
def _opened(path: Path | BinaryIO, label: str = "") -> Iterator[Image.Image]:
    """The image of which the header alone was read; what fails in the block is an ImageError."""
    try:
        with _HEADER_LOCK, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            _check_header(image)
            yield image
    except Exception as error:  # on damaged files, decoders raise errors of many types
        fault, cause = _fault(error)
        raise ImageError(f"{label}{fault}", cause) from error


def _check_header(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        fault = f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}"
        raise ImageError(f"{fault}; scale the image down", "image too large")
    # Floating-point, 32-bit and signed pixels. A PGM of 16 bits has mode "I" as well.
    tags = image.tag_v2 if image.format == "TIFF" else {}
    signed = {*tags.get(_SAMPLE_FORMAT, ())} - {1}
    if image.mode == "F" or (image.mode == "I" and tags) or signed:
        why = "its pixels have no defined range; save it with 8 or 16 bits, unsigned"
        raise ImageError(f"cannot be read as an image ({why})", "image mode not supported")


def _fault(error: Exception) -> tuple[str, str]:
    """What is wrong with an image, for a message, and the cause that is counted."""
    if isinstance(error, ImageError):
        return str(error), error.cause
    if isinstance(error, BOMBS):
        limit = f"too many pixels, the limit is {MAX_PIXELS:,}; scale the image down"
        return limit, "image too large"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}", "not an image"
    about, cause = str(error) or type(error).__name__, "image damaged"
    if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a decoder
        about, cause = error.strerror, "image unreadable"
        if isinstance(error, FileNotFoundError):
            cause = "image missing"
    return f"cannot be read as an image ({about})", cause


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # 16 bits; convert() would clip all values above 255 to white
        wide = np.asarray(image)
        if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:
            wide = 0xFFFF - wide  # as Pillow does with 8 bits
        grey = (np.clip(wide, 0, 0xFFFF) >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[wide == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def data_uri(image: Image.Image, **options: Any) -> str:
    """The image as a PNG data URI; `options` are those of Pillow's encoder."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def pixel_hash(image: Image.Image) -> bytes:
    """Sixteen bytes that two images of `load_image` share if their pixels are equal."""
    digest = hashlib.blake2b(f"{image.width} x {image.height}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()
