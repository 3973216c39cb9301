"""Generator `unreadable`: an example's own question about its own image, in which nothing can be
made out any more: out of focus, in the dark, or with a hand before the lens.

These are the flaws for which people say that they cannot answer a question about a photograph that
a blind person took (Chiu et al. 2020, "Assessing Image Quality Issues for Real-World Problems",
arXiv 2003.12511). The model of `--model` tells how much is needed: the least degree at which it
says what it says when nothing is left. Without a model nothing is left to be seen.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inbol_jax.extrinsic.altered import find_blinding, propose_altered
from inbol_jax.extrinsic.contents import words_of
from inbol_jax.extrinsic.generators import (
    CannotPropose,
    Context,
    Proposal,
    register_generator,
)
from inbol_jax.records import VQAExample

NAME = "unreadable"
DEGREES = 3  # of each flaw
BLUR = (0.06, 0.12, 0.5)  # standard deviation, as a share of the longer side
# Share of the light that is left, under the noise of a sensor: at most 8, 5 and 3 of 255 levels.
LIGHT = (0.03, 0.02, 0.01)
NOISE = 6.0  # standard deviation, in levels
GRAINS = 224  # of the noise along a side, at most
HAND = (0.85, 0.95, 1.0)  # share of the image that it covers, from one side
# A question about these has an answer in a dark or blurred image.
_OF_THE_FLAW = """blurry blurred bright brightness covered dark dawn day daytime dusk focus hand
    light lights lit night quality visible"""


def blurred(image: Image.Image, degree: int, rng: np.random.Generator) -> Image.Image:
    """Out of focus."""
    return image.filter(ImageFilter.GaussianBlur(BLUR[degree] * max(image.size)))


def dark(image: Image.Image, degree: int, rng: np.random.Generator) -> Image.Image:
    """Hardly any light, and the noise of a sensor."""
    light = np.asarray(image, np.float32) * LIGHT[degree]
    # The grain of a large picture is coarser, or it would go when the picture is made smaller.
    height, width = (min(side, GRAINS) for side in light.shape[:2])
    noise = rng.normal(0.0, NOISE, (height, width, 3))
    noise = noise[np.arange(image.height) * height // image.height]
    noise = noise[:, np.arange(image.width) * width // image.width]  # h w 3
    return Image.fromarray((light + noise).clip(0, 255).astype(np.uint8))


def covered(image: Image.Image, degree: int, rng: np.random.Generator) -> Image.Image:
    """A hand before the lens, too near to be sharp, from a random side."""
    width, height = image.size
    free_x, free_y = width * (1 - HAND[degree]), height * (1 - HAND[degree])
    box = [
        (0, 0, width - free_x, height),
        (free_x, 0, width, height),
        (0, 0, width, height - free_y),
        (0, free_y, width, height),
    ][rng.integers(4)]
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rectangle(box, 255)
    if degree < DEGREES - 1:
        mask = mask.filter(ImageFilter.GaussianBlur(0.02 * max(image.size)))
    # Skin before the lens: a dim red of some tone, which fades towards one end.
    tone = np.array((150.0, 90.0, 75.0)) * rng.uniform(0.4, 1.5)
    fading = np.linspace(*rng.uniform(0.2, 1.0, 2), width)[None, :, None]
    skin = np.broadcast_to(tone * fading, (height, width, 3)).clip(0, 255).astype(np.uint8)
    return Image.composite(Image.fromarray(skin), image, mask)


FLAWS: tuple[Callable[[Image.Image, int, np.random.Generator], Image.Image], ...]
FLAWS = (blurred, dark, covered)


def _seed(example: VQAExample) -> int:
    """By the example's id, so that its flaw is the same in every run and order."""
    return zlib.crc32(f"{NAME} {example.id}".encode())


def _by_degrees(example: VQAExample, image: Image.Image) -> list[Image.Image]:
    seed = _seed(example)
    flaw = FLAWS[seed % len(FLAWS)]
    return [flaw(image, degree, np.random.default_rng(seed)) for degree in range(DEGREES)]


def _find_degrees(examples: Sequence[VQAExample], context: Context) -> dict[str, int]:
    """By id the least degree at which the model guesses. It answers 4 times per question."""
    return find_blinding(examples, context, _by_degrees, "making images unreadable")


@register_generator(NAME, prepare=_find_degrees, own_question=True)
def unreadable(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """The example's own question about its image, made unreadable."""
    if not words_of(_OF_THE_FLAW).isdisjoint(words_of(example.question)):
        raise CannotPropose("question about light or sharpness")
    seed, degree = _seed(example), context.prepared.get(example.id)
    flaw = FLAWS[seed % len(FLAWS)]
    if degree is None:  # without a witness nothing may be left to be seen
        degree = DEGREES - 1
        asks_colour = any(w.startswith(("color", "colour")) for w in words_of(example.question))
        if flaw is blurred and (asks_colour or not context.in_english):
            flaw = covered  # a blur always leaves a colour
    rng = np.random.default_rng(seed)
    how = {"how": flaw.__name__, "degree": degree, "seed": seed}
    yield propose_altered(example, context, NAME, lambda image: flaw(image, degree, rng), how)
