"""Pixels of a picture, by a checkpoint's own image processor."""

from typing import Any

import numpy as np
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig

_NORMALISATION = ("pixel_mean", "pixel_scale")


def prepare_picture(
    config: ModelConfig, processor: Any, picture: Image.Image, *, alone: bool = True
) -> dict[str, np.ndarray]:
    """Returns the arrays [tiles, ...] of a picture, by an image processor.

    It scales and cuts the picture; what it would subtract and divide by goes with the pixels,
    for the device, if the family's shapes have a place for it. Names, dtypes and shapes of a
    tile are those of `ModelConfig.image_shapes`.

    Args:
      alone: whether it is the only picture of its question.
    Raises:
      InbolError: if the processor fails, or gives what is not finite, of another size, or no
        pixels of 8 bits.
    """
    of_tile = config.image_shapes(1)
    names = [name for name in of_tile if name not in _NORMALISATION]
    raw = len(names) < len(of_tile)  # whether the device normalises
    options = dict(getattr(processor, "images_kwargs", {}))  # as in the processor's own call
    if raw:
        options |= {"do_rescale": False, "do_normalize": False}
    # Some processors cut an image into tiles only if it is the only one of its row.
    shown = picture if alone or config.cuts_several else [[picture, picture]]
    try:
        batch = processor.image_processor(shown, return_tensors="np", **options)
        batch = config.prepared(batch)
        arrays = {name: np.asarray(batch[name]) for name in names}
        # Some processors give a row's tiles as [1, tiles, ...].
        arrays = {n: x[0] if x.ndim > len(of_tile[n][0]) else x for n, x in arrays.items()}
        tiles = len(arrays["pixel_values"]) // of_tile["pixel_values"][0][0]
        if raw:
            if (kind := arrays["pixel_values"].dtype) != np.uint8:
                raise ValueError(f"it gives pixels of {kind}, those of 8 bits are needed")
            arrays |= _normalisation(processor.image_processor, tiles)
        arrays = {name: x.astype(of_tile[name][1]) for name, x in arrays.items()}
    except Exception as error:
        raise InbolError(f"its image processor fails ({first_line(error)})") from error
    for name, x in arrays.items():
        if x.shape[1:] != (expected := of_tile[name][0][1:]):
            raise InbolError(
                f"its image processor gives {name} of {x.shape[1:]}, config.json says {expected}"
            )
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise InbolError("its image processor gives pixels that are not finite")
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


def first_line(error: Exception) -> str:
    """What an exception says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
