"""What is right about a scene, found without the code that asks about it."""

import re

from inbol_jax.extrinsic.generators import UNSEEABLE
from inbol_jax.world.config import Split
from inbol_jax.world.glyphs import load_glyphs
from inbol_jax.world.questions import HELD_OUT_UNSEEABLE
from inbol_jax.world.scenes import OBJECT_SIZES, PATTERNS, PLACES, Scene

EXPORTED = tuple(s for s in Split if s is not Split.PRETRAIN)
NUMBER = ("zero", "one", "two", "three", "four")


def oracle(scene: Scene, question: str) -> set[str]:
    """Every right answer to a question, read from its words and the things of the scene alone."""
    if question == "How many objects are there?":
        return {NUMBER[len(scene.things)]}
    if word := re.fullmatch(r"How many (\w+) objects are there\?", question):
        return {NUMBER[sum(t.color_name == word[1] for t in scene.things)]}
    if word := re.fullmatch(r"Is there a (\w+)\?", question):
        return {"yes" if any(t.noun == word[1] for t in scene.things) else "no"}
    if word := re.fullmatch(r"What shape is the (\w+) object\?", question):
        return {t.noun for t in scene.things if t.color_name == word[1]}
    if word := re.fullmatch(r"What is at the (.+)\?", question):
        return {f"{t.color_name} {t.noun}" for t in scene.things if PLACES[t.place] == word[1]}
    if question == "What is the symbol?":
        return {load_glyphs().names[t.glyph] for t in scene.things if t.glyph >= 0}
    of_noun = {
        r"What color is the (\w+)\?": lambda t: t.color_name,
        r"What pattern does the (\w+) have\?": lambda t: PATTERNS[t.pattern],
        r"What size is the (\w+)\?": lambda t: OBJECT_SIZES[t.size],
        r"Where is the (\w+)\?": lambda t: PLACES[t.place],
    }
    for pattern, answer in of_noun.items():
        if word := re.fullmatch(pattern, question):
            return {answer(t) for t in scene.things if t.noun == word[1]}
    assert question in {
        t.format(noun=n)
        for t in (UNSEEABLE | HELD_OUT_UNSEEABLE).values()
        for n in (t.noun for t in scene.things)
    }
    return set()


def visible(scene: Scene) -> frozenset[tuple[int, ...]]:
    """What can be told apart in a picture: things without order, glyphs without their shape."""
    return frozenset(
        (t.glyph, -1 if t.glyph >= 0 else t.shape, t.color, t.pattern, t.size, t.place)
        for t in scene.things
    )
