"""Generator `evidence_removed`: an example's own question about its image without what answers it,
which is masked, blurred or cropped away.

The record says where this evidence is (a column `evidence`, or labelled `boxes`), or the model
finds it by occlusion: the cells of a grid are covered one after the other, and those that cost the
model most of its confidence in the right answer are removed with half a cell around each, as many
of them as it takes to change the answer.
"""

import functools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from inbol_jax.artifacts import atomically, fingerprint, write_atomically
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.contents import words
from inbol_jax.extrinsic.generators import (
    CannotPropose,
    GeneratorContext,
    ImageQuestion,
    Proposal,
    Reply,
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
GRID = 4  # cells per side, for occlusion
COVERED = (1, 2, 4)  # cells covered at a time, in search of the fewest that change the answer
MARGIN = 0.05  # of a box's sides, removed on each side of it
LEAST_LEFT = 0.25  # share of the image that a crop must leave
MAX_SIDE = 672  # pixels of the images that occlusion draws
CELLS: tuple[Box, ...] = tuple(
    (x / GRID, y / GRID, 1 / GRID, 1 / GRID) for y in range(GRID) for x in range(GRID)
)


def evidence_boxes(example: VQAExample) -> list[Box] | None:
    """Boxes of what answers the question, in pixels; None if the record does not say.

    The column `evidence` lists them as [left, top, width, height] or {"box": [...]}. Of the column
    `boxes`, which lists {"box": [...], "label": "dog"}, those count whose label's words are all in
    the question or in an answer.

    Raises:
      InbolError: if the column holds something else.
    """
    said = words(" ".join((example.question, *example.answer_texts)))
    for column in ("evidence", "boxes"):
        items = example.extra.get(column)
        if items is None:
            continue
        if not isinstance(items, list):
            raise InbolError(f"{column} not a list")
        boxes = []
        for item in items:
            record = item if isinstance(item, dict) else {"box": item}
            label = record.get("label")
            named = words(label) if isinstance(label, str) else set()
            if column == "evidence" or (named and named <= said):
                boxes.append(_parse_box(record.get("box"), column))
        if boxes:
            return boxes
    return None


def _parse_box(value: Any, column: str) -> Box:
    numbers = value if isinstance(value, list) and len(value) == 4 else [None]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
        raise InbolError(f"{column} without four numbers")
    left, top, width, height = map(float, numbers)
    if width <= 0 or height <= 0:
        raise InbolError(f"{column} without width or height")
    return left, top, width, height


def remove(image: Image.Image, boxes: Sequence[Box], how: str) -> tuple[Image.Image, str]:
    """Returns the RGB image without what is in the boxes, and how that was done.

    Args:
      boxes: in pixels.
      how: "mask" fills the boxes with the image's mean colour. "blur" leaves nothing in them that
        is finer than a quarter of the box. "crop" keeps the largest part beside all boxes, or masks
        if that would leave less than a quarter of the image.

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
        how = "mask"
    result = image.copy()
    mean = tuple(int(c) for c in np.asarray(image, np.float32).mean(axis=(0, 1)).round())
    for edge in edges:
        result.paste(mean if how == "mask" else _blurred(image.crop(edge)), edge)
    return result, how


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


def _blurred(patch: Image.Image) -> Image.Image:
    # The patch is shrunk to a few pixels first: a blur alone would leave its own edges sharp enough
    # to read large letters by.
    tiny = patch.resize((2, 2), Image.Resampling.BOX)
    smooth = tiny.resize(patch.size, Image.Resampling.BILINEAR)
    return smooth.filter(ImageFilter.GaussianBlur(max(1.0, min(patch.size) / 4)))


def _choose_way(example: VQAExample, ways: Sequence[str]) -> str:
    """One of the ways by the example's id, so that it is the same in every run and order."""
    # What is blurred keeps its color.
    if re.search(r"\bcolou?r", example.question, re.IGNORECASE):
        ways = [way for way in ways if way != "blur"]
    return ways[zlib.crc32(example.id.encode()) % len(ways)]


def _find_evidence(
    examples: Sequence[VQAExample], context: GeneratorContext
) -> dict[str, list[Box] | CannotPropose]:
    """By id the evidence of the examples whose record does not say where it is, in shares of the
    image's sides, or why there is none."""
    if context.model is None:
        return {}
    ask = functools.partial(
        context.model, n=1, temperature=0.0, max_new_tokens=12, label="finding evidence"
    )
    unsaid = [e for e in examples if not _says_where(e)]
    whole = ask(
        [
            ImageQuestion(e.question, context.root / e.image, e.image, options=e.options)
            for e in unsaid
        ]
    )
    evidence: dict[str, list[Box] | CannotPropose] = {}
    known: list[tuple[VQAExample, Reply]] = []  # with the model's right answer
    for example, replies in zip(unsaid, whole, strict=True):
        about = example.answers, example.metric, example.options, example.question
        if replies and score(replies[0].text, *about) >= CORRECT_AT:
            known.append((example, replies[0]))
        else:
            evidence[example.id] = CannotPropose("model does not know the answer")

    def ask_without(trials: Sequence[Sequence[list[Box]]]) -> list[list[list[Reply]]]:
        """Per example and trial the replies without the boxes of the trial."""
        asked = []
        for (example, _), boxes_of in zip(known, trials, strict=True):
            asked += [_cover(example, context.root, boxes) for boxes in boxes_of]
        replies = iter(ask(asked))
        return [[next(replies) for _ in boxes_of] for boxes_of in trials]

    trials = []  # per example: the boxes of one, two and four cells
    replies_per_cell = ask_without([[[cell] for cell in CELLS]] * len(known))
    for (_, before), replies in zip(known, replies_per_cell, strict=True):
        losses = np.array([_lost(before, reply) for reply in replies])
        order = np.argsort(-losses, kind="stable")
        trials.append([_grow([CELLS[i] for i in order[:n]]) for n in COVERED])
    for (example, before), tried, replies in zip(known, trials, ask_without(trials), strict=True):
        evidence[example.id] = CannotPropose("no occlusion changes the answer")
        for boxes, reply in zip(tried, replies, strict=True):
            if reply and answer_key(reply[0].text) != answer_key(before.text):
                evidence[example.id] = boxes
                break
    return evidence


def _says_where(example: VQAExample) -> bool:
    """Whether the record says where its evidence is, even if it cannot be read."""
    try:
        return evidence_boxes(example) is not None
    except InbolError:
        return True


def _lost(before: Reply, after: Sequence[Reply]) -> float:
    """How much of the answer's probability an occlusion costs: more than 1 if the answer changes,
    the more the surer the model is of the new one."""
    if not after:
        return 0.0
    p = math.exp(after[0].logprob)
    if answer_key(after[0].text) != answer_key(before.text):
        return 1.0 + p
    return math.exp(before.logprob) - p


def _cover(example: VQAExample, root: Path, cells: Sequence[Box]) -> ImageQuestion:
    """The example's question about its image without these cells."""
    how = _choose_way(example, ("mask", "blur"))

    def draw() -> Image.Image:
        image = load_image(root / example.image)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return remove(image, _in_pixels(cells, image), how)[0]

    name = f"{example.image} without {fingerprint([cells, how])}"
    return ImageQuestion(
        example.question, draw, name, root / example.image, options=example.options
    )


def _grow(cells: Sequence[Box]) -> list[Box]:
    """The cells with half a cell around each, within the image: a thing seldom ends with a cell."""
    half = 0.5 / GRID
    grown = []
    for x, y, width, height in cells:
        left, top = max(0.0, x - half), max(0.0, y - half)
        right, bottom = min(1.0, x + width + half), min(1.0, y + height + half)
        grown.append((left, top, right - left, bottom - top))
    return grown


def _in_pixels(cells: Sequence[Box], image: Image.Image) -> list[Box]:
    w, h = image.size
    return [(x * w, y * h, width * w, height * h) for x, y, width, height in cells]


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
    columns = {"evidence", "boxes"}
    if context.model is None and not any(columns & e.extra.keys() for e in context.pool):
        raise InbolError(
            f"--generators {NAME}: needs a column `evidence` or `boxes` in the data, or --model to "
            "find it by occlusion"
        )


@register_generator(NAME, prepare=_find_evidence, check=_check)
def evidence_removed(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image without what answers it."""
    cells = context.prepared.get(example.id)
    if isinstance(cells, CannotPropose):
        raise cells
    by, ways = "boxes", ("mask", "blur", "crop")
    try:
        boxes = evidence_boxes(example)
        if boxes is None and cells is None:
            raise CannotPropose("record does not say where")
        image = load_image(context.root / example.image)
        if boxes is None:
            boxes, by, ways = _in_pixels(cells, image), "occlusion", ("mask", "blur")
        changed, how = remove(image, boxes, _choose_way(example, ways))
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
    if example.options:
        extra["options"] = list(example.options)
    answer = usual_answer(example)
    yield Proposal(example.question, NAME, answer=answer, image=name, extra=extra)
