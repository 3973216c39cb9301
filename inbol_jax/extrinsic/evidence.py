"""Generator `evidence_removed`: an example's own question about its image without what answers it,
which is masked or cropped away.

The record says where this evidence is (a column `evidence`), or the model finds it by occlusion:
the evidence was in that part without which the model says what it says to a grey image.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
import numpy as np
from PIL import Image

from inbol_jax.data.images import ImageError, load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.altered import find_blinding, keep
from inbol_jax.extrinsic.generators import (
    CannotPropose,
    Context,
    Proposal,
    register_generator,
)
from inbol_jax.records import VQAExample

# Left, top, width, height, as in COCO: in pixels of the upright image, or as shares of its sides.
Box = tuple[float, float, float, float]
Edges = tuple[int, int, int, int]  # left, top, right, bottom in pixels

NAME = "evidence_removed"
MARGIN = 0.05  # of a box's sides, removed on each side of it
LEAST_LEFT = 0.25  # share of the image that a crop must leave
# What occlusion covers: 0.6 of the sides in each corner, so that each part has the centre.
WINDOWS: tuple[Box, ...] = tuple((x, y, 0.6, 0.6) for y in (0, 0.4) for x in (0, 0.4))


def evidence_boxes(example: VQAExample) -> list[Box] | None:
    """Boxes of what answers the question, in pixels: the column `evidence`, a list of [left, top,
    width, height]. None if the record has no such column.

    Raises:
      InbolError: if the column holds something else.
    """
    if (column := example.extra.get("evidence")) is None:
        return None
    try:
        boxes = msgspec.convert(column, list[Box])
    except msgspec.ValidationError as error:
        raise InbolError("evidence is no list of [left, top, width, height]") from error
    if not boxes or not all(map(math.isfinite, chain(*boxes))):
        raise InbolError("evidence without numbers")
    if any(width <= 0 or height <= 0 for _, _, width, height in boxes):
        raise InbolError("evidence without width or height")
    return boxes


def remove(image: Image.Image, boxes: Sequence[Box], how: str) -> tuple[Image.Image, str]:
    """Returns the RGB image without what is in the boxes, and how that was done.

    Args:
      boxes: in pixels.
      how: "mask" fills the boxes with the image's mean colour. "crop" keeps the largest part beside
        all boxes, or masks if that would leave less than a quarter of the image.

    Raises:
      InbolError: if no box lies within the image.
    """
    edges = [edge for box in boxes if (edge := _edges_within(box, image.size))]
    if not edges:
        raise InbolError("evidence outside the image")
    if how == "crop":
        part = _largest_part_beside(edges, image.size)
        if _area(part) >= LEAST_LEFT * image.width * image.height:
            return image.crop(part), "crop"
    result = image.copy()
    mean = tuple(int(c) for c in np.asarray(image, np.float32).mean(axis=(0, 1)).round())
    for edge in edges:
        result.paste(mean, edge)
    return result, "mask"


def _edges_within(box: Box, size: tuple[int, int]) -> Edges | None:
    """The box with its margin, cut to the image; None if the box lies outside the image."""
    left, top, width, height = box
    w, h = size
    if left >= w or top >= h or left + width <= 0 or top + height <= 0:
        return None
    # Of a box of 10 x 10 pixels at (4, 4) the margin is half a pixel: 3.5 to 14.5 becomes 3 to 15.
    dx, dy = MARGIN * width, MARGIN * height
    return (
        max(0, math.floor(left - dx)),
        max(0, math.floor(top - dy)),
        min(w, math.ceil(left + width + dx)),
        min(h, math.ceil(top + height + dy)),
    )


def _largest_part_beside(edges: Sequence[Edges], size: tuple[int, int]) -> Edges:
    """The largest of the parts left of, right of, above and below all boxes."""
    w, h = size
    lefts, tops, rights, bottoms = zip(*edges, strict=True)
    beside = (0, 0, min(lefts), h), (max(rights), 0, w, h)
    return max((*beside, (0, 0, w, min(tops)), (0, max(bottoms), w, h)), key=_area)


def _area(edges: Edges) -> int:
    return (edges[2] - edges[0]) * (edges[3] - edges[1])


def _find_evidence(examples: Sequence[VQAExample], context: Context) -> dict[str, Box]:
    """By id the window without which the model guesses, in shares of the image's sides, of examples
    whose record does not say where the evidence is. The model answers 6 times per question."""
    asked = [example for example in examples if example.extra.get("evidence") is None]
    found = find_blinding(asked, context, _covered, "finding evidence")
    return {id: WINDOWS[i] for id, i in found.items() if i < len(WINDOWS)}


def _covered(example: VQAExample, image: Image.Image) -> list[Image.Image]:
    """The image without each of the windows, and a grey one."""
    covered = (remove(image, [_in_pixels(window, image)], "mask")[0] for window in WINDOWS)
    return [*covered, Image.new("RGB", image.size, "grey")]


def _in_pixels(window: Box, image: Image.Image) -> Box:
    x, y, width, height = window
    return x * image.width, y * image.height, width * image.width, height * image.height


def is_known(context: Context) -> bool:
    """Whether the data say where the evidence is, or a model can find it."""
    return context.model is not None or any("evidence" in e.extra for e in context.pool)


def _check(context: Context) -> None:
    if not is_known(context):
        raise InbolError(
            f"--generators {NAME}: needs a column `evidence` in the data, or --model to find it by "
            "occlusion"
        )


@register_generator(NAME, prepare=_find_evidence, check=_check, own_question=True)
def evidence_removed(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image without what answers it."""
    window = context.prepared.get(example.id)
    # By the example's id, so that it is the same in every run and order.
    by, how = "boxes", ("mask", "crop")[zlib.crc32(example.id.encode()) % 2]
    try:
        boxes = evidence_boxes(example)
        if boxes is None and window is None:
            raise CannotPropose("neither record nor model says where")
        image = load_image(context.root / example.image)
        if boxes is None:
            boxes, by, how = [_in_pixels(window, image)], "occlusion", "mask"
        changed, how = remove(image, boxes, how)
    except ImageError as error:
        raise CannotPropose(error.cause) from error
    except InbolError as error:
        raise CannotPropose(str(error)) from error
    rounded = [[round(v, 2) for v in box] for box in boxes]
    removed = {"image": example.image, "how": how, "by": by, "boxes": rounded}
    name = keep(changed, example, context, NAME, [boxes, how])
    yield Proposal(
        example.question, NAME, image=name, options=example.options, extra={"removed": removed}
    )
