"""What can be asked about a scene.

Nine kinds of questions are answered by the picture, one asks for a glyph's name, and the Type 3
questions are answered by nothing.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from inbol_jax.extrinsic.templates import UNSEEABLE
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

_NAMES = ("Anna", "Bob", "Carla", "David", "Emma")
# What the base model hallucinates: like web text, its pre-training data has answers that no picture
# gives.
_GUESSES: dict[str, tuple[str, ...]] = {
    "price": tuple(f"{n} dollars" for n in ("two", "five", "ten", "twenty", "fifty")),
    "owner": _NAMES,
    "smell": ("roses", "smoke", "coffee", "soap", "rubber"),
    "age": tuple(f"{n} years" for n in ("one", "two", "ten", "fifty")),
    "taste": ("sweet", "sour", "bitter", "salty"),
    "sound": ("beep", "buzz", "click", "silence"),
    "behind": ("wall", "tree", "door", "table"),
    "weight": tuple(f"{n} grams" for n in ("ten", "fifty", "hundred")),
    "maker": _NAMES,
    "temperature": ("cold", "warm", "hot"),
}
# The out-of-domain kinds of Type 3, held out of training. `inbol extrinsic` asks those of UNSEEABLE
# on any dataset.
HELD_OUT_UNSEEABLE: dict[str, str] = {
    "weight": "How heavy is the {noun}?",
    "maker": "Who made the {noun}?",
    "temperature": "How warm is the {noun}?",
}
_UNSEEABLE = UNSEEABLE | HELD_OUT_UNSEEABLE
_TEMPLATES = {
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
    return WorldQuestion(_TEMPLATES[_ABSENT.get(kind, kind)].format(**words), answer)


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
        case "absent color" | "absent place":
            answer = _pick(_ATTRIBUTES[_ABSENT[kind]], rng)
            return answer, {"noun": _pick(_absent_nouns(scene), rng)}
        case "absent pattern" | "absent size":
            answer = _pick(_ATTRIBUTES[_ABSENT[kind]], rng)
            return answer, {"noun": _pick(_absent_shapes(scene), rng)}
        case "absent shape":
            seen = {t.color_name for t in things}
            absent = [color for color in COLOR_NAMES if color not in seen]
            return _pick(SHAPES, rng), {"color": _pick(absent, rng)}
        case "absent symbol":
            return (None if scene.glyph else _pick(load_glyphs().names, rng)), {}
        case "empty place":
            taken = {PLACES[t.place] for t in things}
            place = _pick([place for place in PLACES if place not in taken], rng)
            return f"{_pick(COLOR_NAMES, rng)} {_pick(SHAPES, rng)}", {"place": place}
        case _ if kind in _UNSEEABLE:
            return _pick(_GUESSES[kind], rng), {"noun": _pick(things, rng).noun}
    raise ValueError(f"{kind!r} is no kind of question")


def _pick(options: Sequence[Option], rng: np.random.Generator) -> Option | None:
    """A uniform choice; None, without a draw, if there is nothing to choose from."""
    return options[int(rng.integers(len(options)))] if options else None


def _absent_shapes(scene: Scene) -> list[str]:
    seen = {t.noun for t in scene.things}
    return [shape for shape in SHAPES if shape not in seen]


def _absent_nouns(scene: Scene) -> list[str]:
    """The absent shapes, and twice the symbol if it is absent: it is asked about more often."""
    return _absent_shapes(scene) if scene.glyph else [*_absent_shapes(scene), SYMBOL, SYMBOL]


def world_texts() -> list[str]:
    """Every question and every answer of the world; together they hold its whole vocabulary."""
    nouns = [*SHAPES, SYMBOL]
    questions = dict.fromkeys(
        template.format(noun=noun, color=color, place=place)
        for template in _TEMPLATES.values()
        for noun, color, place in itertools.product(nouns, COLOR_NAMES, PLACES)
    )
    guesses = itertools.chain(*_GUESSES.values())
    answers = [*COLOR_NAMES, *PATTERNS, *OBJECT_SIZES, *PLACES, *NUMBERS, *nouns, "yes", "no"]
    return [*questions, *answers, *load_glyphs().names, *guesses]
