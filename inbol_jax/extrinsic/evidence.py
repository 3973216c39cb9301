"""Questions whose evidence is taken out of the image: what answers them is masked, blurred or cropped away.

Where the evidence lies is said by the record (a column `evidence`, or labelled `boxes`), or found by occlusion: cells of a grid are
covered one after the other, and those that cost the model most of its confidence in the right answer are removed, as many as it
takes to change the answer, with half a cell around each.
"""

import functools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from inbol_jax.artifacts import atomically, fingerprint
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.facts import words
from inbol_jax.extrinsic.generators import (
    Asked,
    Context,
    Proposal,
    Reply,
    register_generator,
    usual_answer,
)
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, answer_key, score

Box = tuple[
    float, float, float, float
]  # left, top, width, height in pixels of the upright image, as COCO has it

NAME = "evidence_removed"
FOLDER = "evidence_removed"  # below the image folder: a record's image and its question's come from one folder
GRID = 4  # cells a side, for occlusion
COVERED = (1, 2, 4)  # cells covered at a time, in search of the fewest that change the answer
MARGIN = 0.05  # of a box's sides, removed on each side of it
LEAST_LEFT = 0.25  # share of the image that a crop must leave
MAX_SIDE = 672  # pixels of the images that occlusion draws


def evidence_boxes(example: VQAExample) -> list[Box] | None:
    """Boxes of what answers the question, None where the record does not say.

    The column `evidence` lists them: [left, top, width, height], or {"box": [...]}. Of a column `boxes`, {"box": [...], "label": "dog"},
    those count whose label's words are all in the question or in an answer.

    Raises:
      InbolError: where the column holds something else.
    """
    for column in ("evidence", "boxes"):
        if (found := example.extra.get(column)) is None:
            continue
        if not isinstance(found, list):
            raise InbolError(f"{column} not a list")
        said = words(" ".join((example.question, *example.answers)))
        boxes = []
        for item in found:
            label = item.get("label") if isinstance(item, dict) else None
            if column == "evidence" or (
                isinstance(label, str) and words(label) and words(label) <= said
            ):
                boxes.append(_box(item.get("box") if isinstance(item, dict) else item, column))
        if boxes:
            return boxes
    return None


def _box(value: Any, column: str) -> Box:
    if not (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    ):
        raise InbolError(f"{column} without four numbers")
    if value[2] <= 0 or value[3] <= 0:
        raise InbolError(f"{column} without width or height")
    left, top, width, height = map(float, value)
    return left, top, width, height


def remove(image: Image.Image, boxes: Sequence[Box], how: str) -> tuple[Image.Image, str]:
    """The image without what is in the boxes, and how that was done.

    Args:
      image: RGB.
      how: "mask" fills them with the image's mean colour; "blur" leaves nothing finer than a quarter of the box; "crop" keeps the largest
        part beside all of them, or masks where that would leave less than a quarter of the image.

    Raises:
      InbolError: where no box lies within the image.
    """
    w, h = image.size
    inside = []
    for left, top, width, height in boxes:
        dx, dy = MARGIN * width, MARGIN * height
        x0, y0 = max(0, math.floor(left - dx)), max(0, math.floor(top - dy))
        x1, y1 = min(w, math.ceil(left + width + dx)), min(h, math.ceil(top + height + dy))
        if x0 < x1 and y0 < y1 and left < w and top < h and left + width > 0 and top + height > 0:
            inside.append((x0, y0, x1, y1))
    if not inside:
        raise InbolError("evidence outside the image")
    if how == "crop":
        x0, y0, x1, y1 = (f(box[i] for box in inside) for i, f in enumerate((min, min, max, max)))
        parts = ((0, 0, x0, h), (x1, 0, w, h), (0, 0, w, y0), (0, y1, w, h))
        part = max(parts, key=lambda p: (p[2] - p[0]) * (p[3] - p[1]))
        if (part[2] - part[0]) * (part[3] - part[1]) >= LEAST_LEFT * w * h:
            return image.crop(part), "crop"
        how = "mask"
    result = image.copy()
    mean = tuple(int(c) for c in np.asarray(image, np.float32).mean(axis=(0, 1)).round())
    for x0, y0, x1, y1 in inside:
        fill: Any = mean
        if how == "blur":
            # Shrunk to a few pixels first: a blur alone would leave the box's own edges sharp enough to read large letters by.
            patch = image.crop((x0, y0, x1, y1))
            fill = patch.resize((2, 2), Image.Resampling.BOX).resize(
                patch.size, Image.Resampling.BILINEAR
            )
            fill = fill.filter(ImageFilter.GaussianBlur(max(1.0, min(patch.size) / 4)))
        result.paste(fill, (x0, y0, x1, y1))
    return result, how


def _how(example: VQAExample, ways: Sequence[str]) -> str:
    """One of the ways, by the id: the same in every run and order. What is blurred keeps its color: no way to take a color away."""
    ways = [
        way
        for way in ways
        if way != "blur" or not re.search(r"\bcolou?r", example.question, re.IGNORECASE)
    ]
    return ways[zlib.crc32(example.id.encode()) % len(ways)]


def _prepare(examples: Sequence[VQAExample], context: Context) -> None:
    """Finds the evidence of those whose record does not say: {(NAME, id): boxes}, relative to width and height."""
    if context.model is None:
        return
    ask = functools.partial(
        context.model, n=1, temperature=0.0, max_new_tokens=12, label="finding evidence"
    )
    unsaid = [e for e in examples if not _said(e)]
    whole = ask([Asked(e.question, context.root / e.image, e.image) for e in unsaid])
    right = [
        (e, r[0])
        for e, r in zip(unsaid, whole, strict=True)
        if r and score(r[0].text, e.answers, e.metric) >= CORRECT_AT
    ]
    cells = [(x / GRID, y / GRID, 1 / GRID, 1 / GRID) for y in range(GRID) for x in range(GRID)]
    replies = iter(ask([_covered(e, context, (cell,)) for e, _ in right for cell in cells]))
    ranked = {}
    for example, before in right:
        lost = [_lost(before, next(replies)) for _ in cells]
        ranked[example.id] = [
            cells[i] for i in sorted(range(len(cells)), key=lambda i: (-lost[i], i))
        ]
    replies = iter(
        ask([_covered(e, context, _grown(ranked[e.id][:k])) for e, _ in right for k in COVERED])
    )
    for example, before in right:
        changed = [
            k
            for k in COVERED
            if (after := next(replies)) and answer_key(after[0].text) != answer_key(before.text)
        ]
        if changed:
            context.prepared[NAME, example.id] = _grown(ranked[example.id][: changed[0]])
        else:
            context.set_aside[NAME, "no occlusion changes the answer"] += 1
    if wrong := len(unsaid) - len(right):
        context.set_aside[NAME, "model does not know the answer"] += wrong


def _said(example: VQAExample) -> bool:
    """Whether the record says where its evidence is, be it in a way that cannot be read."""
    try:
        return evidence_boxes(example) is not None
    except InbolError:
        return True


def _lost(before: Reply, after: Sequence[Reply]) -> float:
    """How much of the answer's probability an occlusion costs: all of it, and more, where the answer changes."""
    if not after:
        return 0.0
    p = math.exp(after[0].logprob)
    return (
        math.exp(before.logprob) - p
        if answer_key(after[0].text) == answer_key(before.text)
        else 1.0 + p
    )


def _covered(example: VQAExample, context: Context, cells: Sequence[Box]) -> Asked:
    how = _how(example, ("mask", "blur"))

    def draw() -> Image.Image:
        image = load_image(context.root / example.image)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return remove(image, _pixels(cells, image), how)[0]

    return Asked(example.question, draw, f"{example.image} without {fingerprint([cells, how])}")


def _grown(cells: Sequence[Box]) -> list[Box]:
    """The cells with half a cell around each, within the image: a thing seldom ends where a cell does, and what is left may answer."""
    half = 0.5 / GRID
    grown = []
    for x, y, width, height in cells:
        left, top = max(0.0, x - half), max(0.0, y - half)
        grown.append(
            (left, top, min(1.0, x + width + half) - left, min(1.0, y + height + half) - top)
        )
    return grown


def _pixels(cells: Sequence[Box], image: Image.Image) -> list[Box]:
    w, h = image.size
    return [(x * w, y * h, width * w, height * h) for x, y, width, height in cells]


def _check(context: Context) -> None:
    try:
        with atomically(context.root / FOLDER / ".writable", sync=False):
            pass
        (context.root / FOLDER / ".writable").unlink()
    except InbolError as error:
        raise InbolError(
            f"--generators {NAME}: {context.root} cannot be written, and images without their evidence go into {FOLDER}/ there"
        ) from error
    if context.model is None and not any(
        "evidence" in e.extra or "boxes" in e.extra for e in context.pool
    ):
        raise InbolError(
            f"--generators {NAME}: needs a column `evidence` or `boxes` in the data, or --model to find it by occlusion"
        )


@register_generator(NAME, prepare=_prepare, check=_check)
def evidence_removed(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image without what answers it."""
    by, ways = "boxes", ("mask", "blur", "crop")
    try:
        boxes = evidence_boxes(example)
        cells = context.prepared.get((NAME, example.id)) if boxes is None else None
        if boxes is None and cells is None:
            if context.model is None:  # else it was asked, and counted
                context.set_aside[NAME, "record does not say where"] += 1
            return
        image = load_image(context.root / example.image)
        if cells is not None:
            boxes, by, ways = _pixels(cells, image), "occlusion", ways[:2]
        result, how = remove(image, boxes, _how(example, ways))
    except InbolError as error:
        context.set_aside[NAME, error.cause if isinstance(error, ImageError) else str(error)] += 1
        return
    jpeg = example.image.lower().endswith(
        (".jpg", ".jpeg")
    )  # the format, too, must not tell which images were changed
    name = f"{FOLDER}/{fingerprint([example.image, boxes, how])}.{'jpg' if jpeg else 'png'}"
    with atomically(context.root / name, sync=False) as temporary:
        result.save(
            temporary,
            "JPEG" if jpeg else "PNG",
            **({"quality": 95, "subsampling": 0} if jpeg else {}),
        )
    removed = {
        "image": example.image,
        "how": how,
        "by": by,
        "boxes": [[round(v, 2) for v in box] for box in boxes],
    }
    yield Proposal(
        example.question, NAME, answer=usual_answer(example), image=name, extra={"removed": removed}
    )
