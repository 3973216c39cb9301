"""What a question is beside its text: any number of images, perhaps options, and a metric."""

import contextlib
import functools
import string
from collections.abc import Mapping, Sequence
from typing import Any

from inbol_jax.errors import InbolError

# How responses are matched with gold answers (`responses.matching` computes them): a gold answer in
# a sentence, the VQA soft score of ten annotators, exact match after normalisation, yes or no,
# multiple choice, numbers with a tolerance. The first is the default.
METRICS = ("inclusion", "vqa", "exact", "yes_no", "choice", "numeric")

LETTERS = string.ascii_uppercase  # of the options of a multiple-choice question

# The path of a question's image; a tuple if there are several, or none.
ImagePaths = str | tuple[str, ...]


def lettered(options: Sequence[str]) -> list[str]:
    """The options as a model is shown them: "A. red", "B. blue"."""
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def with_options(question: str, options: Sequence[str]) -> str:
    """The question, and each option on a line of its own."""
    return "\n".join((question, *lettered(options)))


def image_columns(image: ImagePaths) -> dict[str, Any]:
    """The column `image` of one image, `images` (a list) of several or none.

    So each column has one type, and readers of tables take the lines as they are.
    """
    return {"image": image} if isinstance(image, str) else {"images": list(image)}


def read_image_columns(row: Mapping[str, Any]) -> ImagePaths:
    """What `image_columns` wrote; `image` may be a list as well.

    Text alone must be said (`"images": []`): a row without both columns lacks its image.

    Raises:
      ValueError: saying what is wrong, in a phrase that can be counted.
    """
    image, images = row.get("image"), row.get("images")
    if image is not None and images is not None:
        raise ValueError("both image and images")
    paths = image if images is None else images
    if images is not None and not isinstance(images, list):
        raise ValueError("images not a list")
    if isinstance(paths, list):
        if not all(isinstance(path, str) and path.strip() for path in paths):
            raise ValueError("images not a list of strings")
        return paths[0] if len(paths) == 1 else tuple(paths)
    if paths is not None and not isinstance(paths, str):
        raise ValueError("image not a string")
    if not paths or not paths.strip():
        raise ValueError("image missing")
    return paths


def image_paths(image: ImagePaths) -> tuple[str, ...]:
    """All paths, whatever their number."""
    return (image,) if isinstance(image, str) else image


class WithImages:
    """A record with images, whatever their number."""

    __slots__ = ()
    image: ImagePaths

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of the images, in the order in which the model sees them."""
        return image_paths(self.image)


class WithOptions(WithImages):
    """A question with images and perhaps options."""

    __slots__ = ()
    question: str
    options: tuple[str, ...]

    @property
    def whole(self) -> str:
        """The question with its options, as a page shows it; it tells two questions apart."""
        return with_options(self.question, self.options)


@functools.cache
def parse_metric(metric: str) -> tuple[str, float | None]:
    """Name and option of a metric: "numeric:0.01" is ("numeric", 0.01), "vqa" is ("vqa", None).

    Raises:
      InbolError: if it is none of `METRICS`, or has an option that it does not take.
    """
    name, colon, option = metric.partition(":")
    if name not in METRICS:
        raise InbolError(f"metric {metric!r} is not known; choose one of {', '.join(METRICS)}")
    if not colon:
        return name, None
    with contextlib.suppress(ValueError):
        if name == "numeric" and 0 <= (tolerance := float(option)) < 1:
            return name, tolerance
    raise InbolError(
        f"metric {metric!r}: only numeric takes an option, a relative tolerance "
        'from 0 to below 1 ("numeric:0.05")'
    )
