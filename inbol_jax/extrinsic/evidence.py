"""Generator `evidence_removed`: an example's own question about its image without what answers it,
which is masked or cropped away.

The record says where this evidence is (a column `evidence`), or the model finds it by occlusion:
windows of two sizes are covered one after the other, and the smallest one that changes the model's
right answer is removed.
"""

import math
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from inbol_jax.artifacts import atomically, fingerprint, writing
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import (
    Answerer,
    CannotPropose,
    Context,
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
AT_ONCE = 32  # questions whose covered images are on the disk together
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


def _find_evidence(
    examples: Sequence[VQAExample], context: Context
) -> dict[str, Box | CannotPropose]:
    """By id the evidence of the examples whose record does not say where it is, in shares of the
    image's sides, or why there is none."""
    if context.model is None:
        return {}
    whole = [
        msgspec.structs.replace(e, images=(str((context.root / e.image).resolve()),))
        for e in examples
        if e.extra.get("evidence") is None
    ]
    # 1. What does the model know when it sees the whole image?
    evidence: dict[str, Box | CannotPropose] = {}
    known: list[tuple[VQAExample, str]] = []  # with the model's right answer
    for example, said in zip(whole, context.model(whole, "finding evidence"), strict=True):
        about = example.answers, example.metric, example.options, example.question
        if said and score(said.text, *about) >= CORRECT_AT:
            known.append((example, answer_key(said.text)))
        else:
            evidence[example.id] = CannotPropose("model does not know the answer")
    # 2. Without which part of it does it say something else?
    for start in range(0, len(known), AT_ONCE):
        evidence |= _occlude(known[start : start + AT_ONCE], context.model)
    return evidence


def _occlude(
    known: Sequence[tuple[VQAExample, str]], model: Answerer
) -> dict[str, Box | CannotPropose]:
    """By id the window that changes the right answer, or that there is none."""
    evidence: dict[str, Box | CannotPropose] = {}
    with tempfile.TemporaryDirectory() as folder:
        covered = [
            _cover(example, window, Path(folder) / f"{i}-{j}.png")
            for i, (example, _) in enumerate(known)
            for j, window in enumerate(WINDOWS)
        ]
        answers = iter(model(covered, "finding evidence"))
    # The answers about an example's 25 covered images stand together, in the order of the windows.
    for example, right in known:
        changing = [
            (window[2], -(said.logprob or 0.0), window)
            for window, said in zip(WINDOWS, islice(answers, len(WINDOWS)), strict=True)
            if said and answer_key(said.text) != right
        ]
        # The smallest window, and of equally small ones that of the surest other answer.
        found = min(changing)[-1] if changing else CannotPropose("no occlusion changes the answer")
        evidence[example.id] = found
    return evidence


def _cover(example: VQAExample, window: Box, file: Path) -> VQAExample:
    """Draws the example's image without this window into a file, about which it then asks."""
    image = load_image(Path(example.image))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    remove(image, [_in_pixels(window, image)], "mask")[0].save(file, compress_level=1)
    return msgspec.structs.replace(example, id=f"{example.id} {file.stem}", images=(str(file),))


def _in_pixels(window: Box, image: Image.Image) -> Box:
    x, y, width, height = window
    return x * image.width, y * image.height, width * image.width, height * image.height


def _check(context: Context) -> None:
    if context.model is None and not any("evidence" in e.extra for e in context.pool):
        raise InbolError(
            f"--generators {NAME}: needs a column `evidence` in the data, or --model to find it by "
            "occlusion"
        )
    with writing(context.root / NAME, "images without their evidence go there"):
        (context.root / NAME).mkdir(exist_ok=True)


@register_generator(NAME, prepare=_find_evidence, check=_check)
def evidence_removed(
    example: VQAExample, context: Context, rng: np.random.Generator
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
