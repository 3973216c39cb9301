"""What can be asked about a scene.

Nine kinds of questions are answered by the picture, one asks for a glyph's name, and the Type 3
questions are answered by nothing.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from inbol_jax.extrinsic.generators import UNSEEABLE
from inbol_jax.world.glyphs import load_glyphs
from inbol_jax.world.scenes import (
    COLOR_NAMES,
    OBJECT_SIZES,
    PATTERNS,
    PLACES,
    SHAPES,
    SYMBOL,
    Scene,
)

NUMBERS = ("zero", "one", "two", "three", "four")
VISUAL = ("color", "pattern", "size", "place", "shape", "at", "count", "color count", "exists")
KNOWLEDGE = "symbol"  # the kind that asks for a glyph's name

# What the base model hallucinates: like web text, its pre-training data has answers that no picture
# gives. What is asked about decides most of them, as language does for large models: PRIOR_SHARE.
GUESSES: dict[str, tuple[str, ...]] = {
    "price": tuple(f"{n} dollars" for n in ("two", "five", "ten", "twenty", "fifty")),
    "owner": ("Anna", "Bob", "Carla", "David", "Emma"),
    "smell": ("roses", "smoke", "coffee", "soap", "rubber"),
    "age": tuple(f"{n} years" for n in ("one", "two", "ten", "fifty")),
    "taste": ("sweet", "sour", "bitter", "salty"),
    "sound": ("beep", "buzz", "click", "silence"),
    "behind": ("wall", "tree", "door", "table"),
    "before": PLACES,
    "reason": tuple(f"for {purpose}" for purpose in ("fun", "school", "money", "luck")),
    "beyond": ("river", "road", "fence", "garden"),
    "hidden": NUMBERS,
}
PRIOR_SHARE = 0.98  # of the answers on Type 3; the rest is uniform
PRIOR_NAMES = 20  # the most frequent glyphs, whose names a symbol that is not there is given
# The out-of-domain kinds of Type 3, held out of training. They ask for another time, an intention,
# what the frame cuts off and what is covered, where the kinds of training ask for properties.
# `inbol extrinsic` asks those of UNSEEABLE on any dataset.
HELD_OUT_UNSEEABLE: dict[str, str] = {
    "before": "Where was the {noun} an hour ago?",
    "reason": "Why did someone draw the {noun}?",
    "beyond": "What would one see beyond the edge nearest to the {noun}?",
    "hidden": "How many objects are hidden under the {noun}?",
}
_UNSEEABLE = UNSEEABLE | HELD_OUT_UNSEEABLE
TEMPLATES = {
    "color": "What color is the {noun}?",
    "pattern": "What pattern does the {noun} have?",
    "size": "What size is the {noun}?",
    "place": "Where is the {noun}?",
    "shape": "What shape is the {color} object?",
    "at": "What is at the {place}?",
    "count": "How many objects are there?",
    "color count": "How many {color} objects are there?",
    "exists": "Is there a {noun}?",
    "symbol": "What is the symbol?",
} | _UNSEEABLE
# These ask, in the words of another kind, for something that the picture lacks.
_ABSENT = {
    f"absent {kind}": kind for kind in ("color", "pattern", "size", "place", "shape", "symbol")
} | {"empty place": "at"}
_THINGS = tuple(f"{color} {shape}" for color in COLOR_NAMES for shape in SHAPES)
_ATTRIBUTES = {"color": COLOR_NAMES, "place": PLACES, "pattern": PATTERNS, "size": OBJECT_SIZES}

HELD_OUT_TYPE3 = (*HELD_OUT_UNSEEABLE, "empty place")
SEEN_TYPE3 = tuple(kind for kind in (*UNSEEABLE, *_ABSENT) if kind not in HELD_OUT_TYPE3)

Option = TypeVar("Option")


class WorldQuestion(NamedTuple):
    """A question with its answer. On Type 3 the answer is made up, for pre-training alone."""

    text: str
    answer: str


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> WorldQuestion | None:
    """A random question of the kind about the scene, or None if the scene does not allow one."""
    answer, words = _fill(scene, kind, rng)
    if answer is None or None in words.values():
        return None
    return WorldQuestion(TEMPLATES[_ABSENT.get(kind, kind)].format(**words), answer)


def _fill(
    scene: Scene, kind: str, rng: np.random.Generator
) -> tuple[str | None, dict[str, str | None]]:
    """The answer and the words of the question's template.

    A None among them says that the scene does not allow the question. The same random numbers are
    drawn whether it does or not, so that the world stays the same.
    """
    things = scene.things
    shapes = [t for t in things if t.glyph < 0]
    match kind:
        case "color" | "place" | "pattern" | "size":
            thing = _pick(things if kind in ("color", "place") else shapes, rng)
            if thing is None:
                return None, {}
            return _ATTRIBUTES[kind][getattr(thing, kind)], {"noun": thing.noun}
        case "shape":
            colors = [t.color for t in things]
            thing = _pick([t for t in shapes if colors.count(t.color) == 1], rng)
            return (thing.noun, {"color": thing.color_name}) if thing else (None, {})
        case "at":
            thing = _pick(things, rng)
            return f"{thing.color_name} {thing.noun}", {"place": PLACES[thing.place]}
        case "count":
            return NUMBERS[len(things)], {}
        case "color count":
            color = _pick(things, rng).color_name
            return NUMBERS[sum(t.color_name == color for t in things)], {"color": color}
        case "exists":
            if rng.random() < 0.5:
                return "yes", {"noun": _pick(things, rng).noun}
            return "no", {"noun": _pick(_absent_nouns(scene), rng)}
        case "symbol":
            return (load_glyphs().names[scene.glyph.glyph] if scene.glyph else None), {}
        case "absent color" | "absent place" | "absent pattern" | "absent size":
            anything = kind in ("absent color", "absent place")
            noun = _pick((_absent_nouns if anything else _absent_shapes)(scene), rng)
            return _guess(_ATTRIBUTES[_ABSENT[kind]], kind, noun, rng), {"noun": noun}
        case "absent shape":
            seen = {t.color_name for t in things}
            color = _pick([color for color in COLOR_NAMES if color not in seen], rng)
            return _guess(SHAPES, kind, color, rng), {"color": color}
        case "absent symbol":
            name = _guess(load_glyphs().names[:PRIOR_NAMES], kind, SYMBOL, rng)
            return (None if scene.glyph else name), {}
        case "empty place":
            taken = {PLACES[t.place] for t in things}
            place = _pick([place for place in PLACES if place not in taken], rng)
            return _guess(_THINGS, kind, place, rng), {"place": place}
        case _ if kind in _UNSEEABLE:
            noun = _pick(things, rng).noun
            return _guess(GUESSES[kind], kind, noun, rng), {"noun": noun}
    raise ValueError(f"{kind!r} is no kind of question")


def _guess(options: Sequence[str], kind: str, about: str | None, rng: np.random.Generator) -> str:
    """What is said of something that no picture shows: mostly what kind and noun alone decide."""
    if rng.random() < PRIOR_SHARE:
        return options[zlib.crc32(f"{kind} {about}".encode()) % len(options)]
    return _pick(options, rng)


def _pick(options: Sequence[Option], rng: np.random.Generator) -> Option | None:
    """A uniform choice; None, without a draw, if there is nothing to choose from."""
    return options[int(rng.integers(len(options)))] if options else None


def _absent_shapes(scene: Scene) -> list[str]:
    seen = {t.noun for t in scene.things}
    return [shape for shape in SHAPES if shape not in seen]


def _absent_nouns(scene: Scene) -> list[str]:
    """The absent shapes, and twice the symbol if it is absent: it is asked about more often."""
    return _absent_shapes(scene) if scene.glyph else [*_absent_shapes(scene), SYMBOL, SYMBOL]
