"""What can be asked about a scene.

Nine kinds of questions are answered by the picture, one asks for a glyph's name, and the Type 3
questions are answered by nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

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
}
_EMPTY = {"empty place": "at"}

SEEN_TYPE3 = (*UNSEEABLE, *_ABSENT)
HELD_OUT_TYPE3 = (*HELD_OUT_UNSEEABLE, *_EMPTY)

Option = TypeVar("Option")


@dataclasses.dataclass(frozen=True, slots=True)
class WorldQuestion:
    """A question with its answer. On Type 3 the answer is made up, for pre-training alone."""

    kind: str
    text: str
    answer: str


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> WorldQuestion | None:
    """A random question of the kind about the scene, or None if the scene does not allow one."""
    if kind in _UNSEEABLE:
        answer, words = _pick(_GUESSES[kind], rng), {"noun": _pick(scene.things, rng).noun}
    elif kind in _ABSENT or kind in _EMPTY:
        answer, words = _ask_absent(scene, kind, rng)
    else:
        answer, words = _ask_visible(scene, kind, rng)
    if answer is None or None in words.values():
        return None
    template = _TEMPLATES[(_ABSENT | _EMPTY).get(kind, kind)]
    return WorldQuestion(kind, template.format(**words), answer)


# What the two functions below return: the answer and the words of the question's template. A None
# among them says that the scene does not allow the question. Each draws the same random numbers
# whether it does or not, so that the world stays the same.
_Filled = tuple[str | None, dict[str, str | None]]


def _ask_visible(scene: Scene, kind: str, rng: np.random.Generator) -> _Filled:
    """A question that the picture answers, or one for the glyph's name."""
    things = scene.things
    shapes = [t for t in things if t.glyph < 0]
    match kind:
        case "color":
            thing = _pick(things, rng)
            return thing.color_name, {"noun": thing.noun}
        case "place":
            thing = _pick(things, rng)
            return PLACES[thing.place], {"noun": thing.noun}
        case "pattern":
            thing = _pick(shapes, rng)
            return (PATTERNS[thing.pattern], {"noun": thing.noun}) if thing else (None, {})
        case "size":
            thing = _pick(shapes, rng)
            return (OBJECT_SIZES[thing.size], {"noun": thing.noun}) if thing else (None, {})
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
    raise ValueError(f"{kind!r} is no kind of question")


def _ask_absent(scene: Scene, kind: str, rng: np.random.Generator) -> _Filled:
    """A Type 3 question about something that this picture lacks, with an answer that is made up."""
    match kind:
        case "absent color":
            return _pick(COLOR_NAMES, rng), {"noun": _pick(_absent_nouns(scene), rng)}
        case "absent place":
            return _pick(PLACES, rng), {"noun": _pick(_absent_nouns(scene), rng)}
        case "absent pattern":
            return _pick(PATTERNS, rng), {"noun": _pick(_absent_shapes(scene), rng)}
        case "absent size":
            return _pick(OBJECT_SIZES, rng), {"noun": _pick(_absent_shapes(scene), rng)}
        case "absent shape":
            seen = {t.color_name for t in scene.things}
            absent = [color for color in COLOR_NAMES if color not in seen]
            return _pick(SHAPES, rng), {"color": _pick(absent, rng)}
        case "absent symbol":
            return (None if scene.glyph else _pick(load_glyphs().names, rng)), {}
        case "empty place":
            taken = {PLACES[t.place] for t in scene.things}
            place = _pick([place for place in PLACES if place not in taken], rng)
            return f"{_pick(COLOR_NAMES, rng)} {_pick(SHAPES, rng)}", {"place": place}
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
    words = [
        {"noun": noun, "color": color, "place": place}
        for noun in nouns
        for color in COLOR_NAMES
        for place in PLACES
    ]
    questions = dict.fromkeys(t.format(**w) for t in _TEMPLATES.values() for w in words)
    guesses = [guess for guesses in _GUESSES.values() for guess in guesses]
    answers = [*COLOR_NAMES, *PATTERNS, *OBJECT_SIZES, *PLACES, *NUMBERS, *nouns, "yes", "no"]
    return [*questions, *answers, *load_glyphs().names, *guesses]
