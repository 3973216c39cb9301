"""What can be asked about a scene: nine kinds that the picture answers, glyph names, and Type 3 questions that nothing answers."""

import dataclasses

import numpy as np

from inbol_jax.extrinsic.templates import UNSEEABLE
from inbol_jax.world.glyphs import N_GLYPHS, load_glyphs
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
# What the base model hallucinates: it is pre-trained on answers that a picture cannot give, as web text does.
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
# Held out of training: the out-of-domain kinds of Type 3. The rest are those that `extrinsic` generates on any dataset.
HELD_OUT_UNSEEABLE: dict[str, str] = {
    "weight": "How heavy is the {noun}?",
    "maker": "Who made the {noun}?",
    "temperature": "How warm is the {noun}?",
}
SEEN_TYPE3 = (
    *UNSEEABLE,
    "absent color",
    "absent pattern",
    "absent size",
    "absent place",
    "absent shape",
    "absent symbol",
)
HELD_OUT_TYPE3 = (*HELD_OUT_UNSEEABLE, "empty place")
_ALL_UNSEEABLE = UNSEEABLE | HELD_OUT_UNSEEABLE

_QUESTION = {
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
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A question with its answer; for Type 3, `answer` is what the base model's pre-training makes up."""

    kind: str
    question: str
    answer: str


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Asked | None:
    """A random question of the kind about the scene, or None where the scene does not allow one."""

    def pick(options):  # a uniform choice, None of nothing
        return options[int(rng.integers(len(options)))] if len(options) else None

    def asked(answer: str | None, template: str = "", **words: str | None) -> Asked | None:
        if answer is None or None in words.values():
            return None
        return Asked(
            kind, (template or _QUESTION[kind.removeprefix("absent ")]).format(**words), answer
        )

    shapes = [t for t in scene.things if t.glyph < 0]
    absent = [s for s in SHAPES if all(t.noun != s for t in scene.things)]
    match kind:
        case "color" | "place":
            thing = pick(scene.things)
            return asked(
                thing.color_name if kind == "color" else PLACES[thing.place], noun=thing.noun
            )
        case "pattern" | "size":
            thing = pick(shapes)
            return thing and asked(
                PATTERNS[thing.pattern] if kind == "pattern" else OBJECT_SIZES[thing.size],
                noun=thing.noun,
            )
        case "shape":
            thing = pick([t for t in shapes if sum(o.color == t.color for o in scene.things) == 1])
            return thing and asked(thing.noun, color=thing.color_name)
        case "at":
            thing = pick(scene.things)
            return asked(f"{thing.color_name} {thing.noun}", place=PLACES[thing.place])
        case "count":
            return asked(NUMBERS[len(scene.things)])
        case "color count":
            color = pick(scene.things).color
            return asked(
                NUMBERS[sum(t.color == color for t in scene.things)], color=COLOR_NAMES[color]
            )
        case "exists":
            present = rng.random() < 0.5
            return asked(
                "yes" if present else "no",
                noun=pick(scene.things).noun if present else pick(_with_symbol(scene, absent)),
            )
        case "symbol":
            return asked(load_glyphs().names[scene.glyph.glyph]) if scene.glyph else None
        case "absent color" | "absent place":
            return asked(
                pick(COLOR_NAMES if kind == "absent color" else PLACES),
                noun=pick(_with_symbol(scene, absent)),
            )
        case "absent pattern" | "absent size":
            return asked(
                pick(PATTERNS if kind == "absent pattern" else OBJECT_SIZES), noun=pick(absent)
            )
        case "absent shape":
            return asked(
                pick(SHAPES),
                color=pick(
                    [c for c in COLOR_NAMES if all(t.color_name != c for t in scene.things)]
                ),
            )
        case "absent symbol":
            return None if scene.glyph else asked(load_glyphs().names[rng.integers(N_GLYPHS)])
        case "empty place":
            place = pick(
                [p for i, p in enumerate(PLACES) if all(t.place != i for t in scene.things)]
            )
            return asked(f"{pick(COLOR_NAMES)} {pick(SHAPES)}", _QUESTION["at"], place=place)
        case _:
            return asked(pick(_GUESSES[kind]), _ALL_UNSEEABLE[kind], noun=pick(scene.things).noun)


def _with_symbol(scene: Scene, absent: list[str]) -> list[str]:
    """The absent nouns, with the symbol where there is none: twice, for it is one of two things that are asked about by name."""
    return absent if scene.glyph else [*absent, SYMBOL, SYMBOL]


def world_texts() -> list[str]:
    """Every question and answer of the world, as texts that together hold its whole vocabulary."""
    things = [*SHAPES, SYMBOL]
    texts = [t.format(noun=n, color=c, place=p) for t in (*_QUESTION.values(), *_ALL_UNSEEABLE.values())
             for n in things for c in COLOR_NAMES for p in PLACES]  # fmt: skip
    answers = [
        *COLOR_NAMES,
        *PATTERNS,
        *OBJECT_SIZES,
        *PLACES,
        *NUMBERS,
        *things,
        "yes",
        "no",
        *load_glyphs().names,
    ]
    return [*dict.fromkeys(texts), *answers, *(g for guesses in _GUESSES.values() for g in guesses)]
