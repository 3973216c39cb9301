"""Generator `evidence_removed`: an example's own question about its image without what answers it,
which is masked or cropped away.

The record says where this evidence is (a column `evidence`), or the model finds it by occlusion:
windows of two sizes are covered one after the other, and the smallest one that changes the model's
right answer is removed.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inbol_jax.artifacts import atomically, fingerprint, write_atomically
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import (
    CannotPropose,
    GeneratorContext,
    ImageQuestion,
    Proposal,
    register_generator,
    usual_answer,
)
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.vqa_accuracy import answer_key

# Left, top, width, height, as in COCO: in pixels of the upright image, or as shares of its sides.
Box = tuple[float, float, float, float]
Edges = tuple[int, int, int, int]  # left, top, right, bottom in pixels

# Of the generator, and of its folder below the image folder, so that one folder holds the images of
# records and of their questions.
NAME = "evidence_removed"
MARGIN = 0.05  # of a box's sides, removed on each side of it
LEAST_LEFT = 0.25  # share of the image that a crop must leave
MAX_SIDE = 672  # pixels of the images that occlusion draws
# What occlusion covers, the smallest first: quarters of the sides at 16 places, halves at 9.
WINDOWS: tuple[Box, ...] = tuple(
    (x / 4, y / 4, side / 4, side / 4)
    for side in (1, 2)
    for y in range(5 - side)
    for x in range(5 - side)
)


def evidence_boxes(example: VQAExample) -> list[Box] | None:
    """Boxes of what answers the question, in pixels: the column `evidence`, a list of [left, top,
    width, height]. None if the record has no such column.

    Raises:
      InbolError: if the column holds something else.
    """
    boxes = example.extra.get("evidence")
    if boxes is None:
        return None
    if not isinstance(boxes, list) or not boxes:
        raise InbolError("evidence not a list")
    return [_parse_box(box) for box in boxes]


def _parse_box(value: Any) -> Box:
    numbers = value if isinstance(value, list) and len(value) == 4 else [None]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
        raise InbolError("evidence without four numbers")
    left, top, width, height = map(float, numbers)
    if width <= 0 or height <= 0:
        raise InbolError("evidence without width or height")
    return left, top, width, height


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


def _find_evidence(
    examples: Sequence[VQAExample], context: GeneratorContext
) -> dict[str, Box | CannotPropose]:
    """By id the evidence of the examples whose record does not say where it is, in shares of the
    image's sides, or why there is none."""
    if context.model is None:
        return {}
    options = {"n": 1, "temperature": 0.0, "max_new_tokens": 12, "label": "finding evidence"}
    unsaid = [e for e in examples if e.extra.get("evidence") is None]
    whole = [
        ImageQuestion(e.question, context.root / e.image, e.image, options=e.options)
        for e in unsaid
    ]
    evidence: dict[str, Box | CannotPropose] = {}
    known: list[tuple[VQAExample, str]] = []  # with the model's right answer
    for example, replies in zip(unsaid, context.model(whole, **options), strict=True):
        about = example.answers, example.metric, example.options, example.question
        if replies and score(replies[0].text, *about) >= CORRECT_AT:
            known.append((example, answer_key(replies[0].text)))
        else:
            evidence[example.id] = CannotPropose("model does not know the answer")
    covered = [_cover(e, context.root, window) for e, _ in known for window in WINDOWS]
    answers = iter(context.model(covered, **options))
    for example, right in known:
        changing = [
            (box[2], -replies[0].logprob, box)
            for box, replies in zip(WINDOWS, islice(answers, len(WINDOWS)), strict=True)
            if replies and answer_key(replies[0].text) != right
        ]
        # The smallest window, and of equally small ones that of the surest other answer.
        found = min(changing)[-1] if changing else CannotPropose("no occlusion changes the answer")
        evidence[example.id] = found
    return evidence


def _cover(example: VQAExample, root: Path, window: Box) -> ImageQuestion:
    """The example's question about its image without this window."""

    def draw() -> Image.Image:
        image = load_image(root / example.image)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return remove(image, [_in_pixels(window, image)], "mask")[0]

    file, name = root / example.image, f"{example.image} without {window}"
    return ImageQuestion(example.question, draw, name, file, options=example.options)


def _in_pixels(window: Box, image: Image.Image) -> Box:
    x, y, width, height = window
    return x * image.width, y * image.height, width * image.width, height * image.height


def _check(context: GeneratorContext) -> None:
    probe = context.root / NAME / ".writable"
    try:
        write_atomically(probe, b"", sync=False)
        probe.unlink()
    except InbolError as error:
        raise InbolError(
            f"--generators {NAME}: {context.root} cannot be written, and images without their "
            f"evidence go into {NAME}/ there"
        ) from error
    if context.model is None and not any("evidence" in e.extra for e in context.pool):
        raise InbolError(
            f"--generators {NAME}: needs a column `evidence` in the data, or --model to find it by "
            "occlusion"
        )


@register_generator(NAME, prepare=_find_evidence, check=_check)
def evidence_removed(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image without what answers it."""
    window = context.prepared.get(example.id)
    if isinstance(window, CannotPropose):
        raise window
    # By the example's id, so that it is the same in every run and order.
    by, how = "boxes", ("mask", "crop")[zlib.crc32(example.id.encode()) % 2]
    try:
        boxes = evidence_boxes(example)
        if boxes is None and window is None:
            raise CannotPropose("record does not say where")
        image = load_image(context.root / example.image)
        if boxes is None:
            boxes, by, how = [_in_pixels(window, image)], "occlusion", "mask"
        changed, how = remove(image, boxes, how)
    except ImageError as error:
        raise CannotPropose(error.cause) from error
    except InbolError as error:
        raise CannotPropose(str(error)) from error
    # The format of the original, because it must not tell that the image was changed.
    if example.image.lower().endswith((".jpg", ".jpeg")):
        suffix, options = ".jpg", {"format": "JPEG", "quality": 95, "subsampling": 0}
    else:
        suffix, options = ".png", {"format": "PNG"}
    name = f"{NAME}/{fingerprint([example.image, boxes, how])}{suffix}"
    with atomically(context.root / name, sync=False) as temporary:
        changed.save(temporary, **options)
    rounded = [[round(v, 2) for v in box] for box in boxes]
    extra = {"removed": {"image": example.image, "how": how, "by": by, "boxes": rounded}}
    about = {"answer": usual_answer(example), "options": example.options, "extra": extra}
    yield Proposal(example.question, NAME, image=name, **about)
