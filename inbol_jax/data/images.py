"""Images from disk: any common file becomes upright 8-bit RGB, or an error that names the file."""

import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from inbol_jax.errors import InbolError

MAX_PIXELS = 40_000_000  # 120 MB of RGB; more is a mistake or a decompression bomb

# Raster formats that Pillow decodes by itself. Not EPS, which runs Ghostscript, nor containers such as ICO, whose header hides sizes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_ORIENTATION_TAG = 0x0112
# EXIF orientation -> what makes the image upright; 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# `catch_warnings` swaps the filters of the whole process: two threads inside at once could leave the wrong ones behind.
_HEADER_LOCK = threading.Lock()


class ImageError(InbolError):
    """An image that cannot be used.

    Args:
      message: names the file and says what is wrong.
      cause: one of a small set of phrases, to be counted.
    """

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


def load_image(path: Path) -> Image.Image:
    """Reads an image, the first frame where there are several.

    EXIF orientation is applied, transparency is composited on white, and 16 bits are reduced to their upper 8 rather than clipped.

    Args:
      path: of a file in one of `FORMATS`, whatever its suffix.

    Returns: mode RGB, upright, without metadata.

    Raises:
      ImageError: naming file and cause, where the file is missing, no image, truncated, corrupt, of a pixel type without a
        defined range (float), or larger than `MAX_PIXELS`, which is checked before anything is decoded.
    """
    try:
        with _open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                message = f"{path}: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}; scale the image down"
                raise ImageError(message, "image too large")
            if image.mode == "F":
                why = "floating-point pixels have no defined range; save it with 8 or 16 bits"
                raise ImageError(
                    f"{path}: cannot be read as an image ({why})", "image mode not supported"
                )
            image.load()
            # After load(): TIFF applies its orientation by itself and then drops the tag.
            transpose = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path}: too many pixels, the limit is {MAX_PIXELS:,}; scale the image down",
            "image too large",
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image in one of the formats {', '.join(FORMATS)}", "not an image"
        ) from error
    except ImageError:
        raise
    except OSError as error:
        cause = (
            "image damaged"
            if error.errno is None
            else "image missing"
            if isinstance(error, FileNotFoundError)
            else "image unreadable"
        )
        raise ImageError(
            f"{path}: cannot be read as an image ({error.strerror or error})", cause
        ) from error
    except Exception as error:  # on damaged files decoders raise whatever their parsing ran into: SyntaxError, struct.error, IndexError
        raise ImageError(
            f"{path}: cannot be read as an image ({error or type(error).__name__})", "image damaged"
        ) from error
    rgb = rgb if transpose is None else rgb.transpose(transpose)
    rgb.info.clear()  # nobody is to apply the orientation a second time
    return rgb


def image_suffix(data: bytes) -> str:
    """ ".jpg", ".png" and so on, by the header of an encoded image; nothing is decoded.

    Raises:
      ImageError: where it is no image in one of `FORMATS`, or has more pixels than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("an image without a byte", "image empty")
    try:
        with _open(io.BytesIO(data)) as image:
            pixels, suffix = image.width * image.height, (image.format or "").lower()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels, suffix = MAX_PIXELS + 1, ""
    except Exception as error:
        raise ImageError("not an image", "not an image") from error
    if pixels > MAX_PIXELS:
        raise ImageError(f"an image of more than {MAX_PIXELS:,} pixels", "image too large")
    return ".jpg" if suffix == "jpeg" else f".{suffix}"


def pixel_hash(image: Image.Image) -> bytes:
    """Sixteen bytes that two images share when their pixels are the same, whatever files hold them.

    Args:
      image: of `load_image`, so that orientation, palette and metadata make no difference.
    """
    digest = hashlib.blake2b(f"{image.width} x {image.height}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def _open(path: Path | BinaryIO) -> Image.Image:
    """Reads the header alone; Pillow's warning of very large images is raised as an error."""
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata of a sound image: taken as upright
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith(
        "I;16"
    ):  # 16 bits; convert() would clip all above 255 to white
        wide = np.asarray(image)
        grey = (np.clip(wide, 0, 0xFFFF) >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[wide == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
