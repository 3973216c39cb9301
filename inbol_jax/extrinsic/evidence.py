"""Generator `evidence_removed`: an example's own question about its image without what answers it.

The model of `--model` finds that by occlusion: the evidence is in that part of the image without
which the model says what it says to a grey image. The part gets the image's mean colour.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.altered import find_blinding, propose_altered
from inbol_jax.extrinsic.generators import CannotPropose, Context, Proposal, register_generator
from inbol_jax.records import VQAExample

# Left, top, width, height, as shares of the image's sides.
Window = tuple[float, float, float, float]

NAME = "evidence_removed"
MARGIN = 0.05  # of a window's sides, covered on each side of it
# What occlusion covers: 0.6 of the sides in each corner, so that each part has the centre.
WINDOWS: tuple[Window, ...] = tuple((x, y, 0.6, 0.6) for y in (0, 0.4) for x in (0, 0.4))


def cover(image: Image.Image, window: Window) -> Image.Image:
    """The RGB image whose mean colour fills the window and its margin."""
    left, top, width, height = (
        share * side for share, side in zip(window, (*image.size, *image.size), strict=True)
    )
    # Of a window of 10 x 10 pixels at (4, 4) the margin is half a pixel: 3.5 to 14.5 becomes 3 to
    # 15.
    dx, dy = MARGIN * width, MARGIN * height
    edges = (
        max(0, math.floor(left - dx)),
        max(0, math.floor(top - dy)),
        min(image.width, math.ceil(left + width + dx)),
        min(image.height, math.ceil(top + height + dy)),
    )
    mean = tuple(int(c) for c in np.asarray(image, np.float32).mean(axis=(0, 1)).round())
    covered = image.copy()
    covered.paste(mean, edges)
    return covered


def _find_evidence(examples: Sequence[VQAExample], context: Context) -> dict[str, Window]:
    """By id the window without which the model guesses. It answers 6 times per question."""
    found = find_blinding(examples, context, _covered, "finding evidence")
    return {id: WINDOWS[i] for id, i in found.items() if i < len(WINDOWS)}


def _covered(example: VQAExample, image: Image.Image) -> list[Image.Image]:
    """The image without each of the windows, and a grey one."""
    covered = (cover(image, window) for window in WINDOWS)
    return [*covered, Image.new("RGB", image.size, "grey")]


def _check(context: Context) -> None:
    if context.model is None:
        raise InbolError(f"--generators {NAME}: needs --model, which finds evidence by occlusion")


@register_generator(NAME, prepare=_find_evidence, check=_check, own_question=True)
def evidence_removed(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image without what answers it."""
    if (window := context.prepared.get(example.id)) is None:
        raise CannotPropose("model does not say where the evidence is")
    how = {"how": "covered", "window": window}
    yield propose_altered(example, context, NAME, lambda image: cover(image, window), how)
