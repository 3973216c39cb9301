"""Pixels of a picture, by a checkpoint's own image processor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import ModelConfig
from inbol_jax.models.tiles import MAX_TILES

_SIDES = ("size", "crop_size", "height", "width", "shortest_edge", "longest_edge")
_SIDES += ("min_pixels", "max_pixels")
_NORMALISATION = ("pixel_mean", "pixel_scale")


def prepare_picture(
    config: ModelConfig,
    processor: Any,
    picture: Image.Image,
    *,
    alone: bool = True,
    check: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the arrays [tiles, ...] of a picture, by an image processor.

    It scales and cuts the picture; what it would subtract and divide by goes with the pixels,
    for the device, if the family's shapes have a place for it. Names, dtypes and shapes of a
    tile are those of `ModelConfig.image_shapes`.

    Args:
      alone: whether it is the only picture of its question.
      check: whether to compare with what the processor itself makes of the picture.
    Raises:
      InbolError: if the processor fails, or gives what is not finite, of another size, or no
        pixels of 8 bits, or normalises in a way of its own.
    """
    of_image = config.image_shapes(1)
    names = [name for name in of_image if name not in _NORMALISATION]
    raw = len(names) < len(of_image)  # whether the device normalises
    defaults = getattr(processor, "images_kwargs", {})  # as in the processor's own call
    # What is left whole beside another picture is so beside itself.
    alone = alone or config.cuts_several
    # Some processors cut an image into tiles only if it is the only one of its row.
    shown = picture if alone else [[picture, picture]]

    def prepared(**options: Any) -> dict[str, np.ndarray]:
        batch = processor.image_processor(shown, return_tensors="np", **defaults, **options)
        batch = config.prepared(batch)
        arrays = {name: np.asarray(batch[name]) for name in names}
        # The tiles of the second copy are those of the first.
        if not alone:
            arrays = {name: x[: len(x) // 2] for name, x in arrays.items()}
        # Some processors give a row's tiles as [1, tiles, ...].
        return {n: x[0] if x.ndim > len(of_image[n][0]) else x for n, x in arrays.items()}

    try:
        arrays = prepared(do_rescale=False, do_normalize=False) if raw else prepared()
        pixels, tiles = arrays["pixel_values"], config.num_tiles(arrays)
        shapes = config.image_shapes(tiles)
        if raw and pixels.dtype != np.uint8:
            raise ValueError(f"it gives pixels of {pixels.dtype}, those of 8 bits are needed")
        arrays = {name: x.astype(shapes[name][1]) for name, x in arrays.items()}
        arrays |= _normalisation(processor.image_processor, tiles) if raw else {}
        # What the processor makes without our options; the device must get the same by itself.
        expected = prepared()["pixel_values"] if raw and check else None
    except Exception as error:
        raise InbolError(f"its image processor fails ({first_line(error)})") from error
    for name, x in arrays.items():
        if x.shape[1:] != shapes[name][0][1:]:
            raise InbolError(
                f"its image processor gives {name} of {x.shape[1:]}, "
                f"config.json says {shapes[name][0][1:]}"
            )
    if not all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f"):
        raise InbolError("its image processor gives pixels that are not finite")
    if expected is not None:
        mean, scale = (arrays[name][..., None, None] for name in _NORMALISATION)
        # Processors fill up with zeros after they have normalised.
        seen = arrays.get("pixel_attention_mask", np.ones(1, bool).reshape(1, 1, 1))[:, None]
        ours = np.where(seen, (pixels - mean) * scale, 0)
        if not np.allclose(ours, expected, rtol=1e-5, atol=1e-5):
            raise InbolError(
                "its image processor does not normalise pixels by a mean and a "
                "standard deviation per channel"
            )
    return arrays


def _normalisation(prepare: Any, tiles: int) -> dict[str, np.ndarray]:
    """How an image processor normalises 8-bit pixels: (pixel - mean) * scale."""
    factor = prepare.rescale_factor if prepare.do_rescale else 1.0
    mean, std = (prepare.image_mean, prepare.image_std) if prepare.do_normalize else (0.0, 1.0)
    # (u8 * factor - mean) / std = (u8 - mean / factor) * (factor / std)
    # In this order no product is larger than the result: float32 keeps it within 1e-6.
    with np.errstate(divide="ignore", invalid="ignore"):  # a std of 0 is refused by the caller
        values = np.asarray(mean) / factor, factor / np.asarray(std)
    arrays = (np.broadcast_to(x, (tiles, 3)).astype(np.float32) for x in values)
    return dict(zip(_NORMALISATION, arrays, strict=True))


def check_sides(file: Path, options: Mapping[str, Any], limit: int) -> None:
    """Raises InbolError if pictures would be scaled to a side beyond the limit, or to none."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            check_sides(file, value, limit)
        elif name in _SIDES and isinstance(value, int | float) and not 0 < value <= limit:
            raise InbolError(f"{file}: {name} = {value}: from 1 to {limit} pixels are needed")
        elif name == "max_patches" and isinstance(value, int | float) and value > MAX_TILES:
            raise InbolError(f"{file}: {name} = {value}: at most {MAX_TILES} tiles are read")


def first_line(error: Exception) -> str:
    """What an exception says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
