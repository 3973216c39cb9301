from collections import Counter, defaultdict

import numpy as np
import pytest
from world_oracle import EXPORTED, oracle

from inbol_jax.extrinsic.generators import UNSEEABLE
from inbol_jax.world.config import Split
from inbol_jax.world.glyphs import N_GLYPHS
from inbol_jax.world.questions import (
    HELD_OUT_TYPE3,
    HELD_OUT_UNSEEABLE,
    KNOWLEDGE,
    SEEN_TYPE3,
    VISUAL,
    ask,
)
from inbol_jax.world.scenes import sample_scene


def test_kinds_of_questions_by_split(drawn):
    kinds = {split: {e.extra["kind"] for e in found} for split, (found, _) in drawn.items()}
    assert kinds[Split.OOD_KINDS] == set(HELD_OUT_TYPE3)
    assert kinds[Split.OOD_KNOWLEDGE] == {KNOWLEDGE}
    assert kinds[Split.TRAIN] == {*VISUAL, KNOWLEDGE}
    for split in (Split.VALIDATION, Split.TEST, Split.OOD_STYLE):
        assert kinds[split] == {*VISUAL, KNOWLEDGE, *SEEN_TYPE3}
    assert not set(SEEN_TYPE3) & set(HELD_OUT_TYPE3)
    # What `inbol extrinsic` makes for training holds no held-out kind either.
    assert not set(UNSEEABLE) & set(HELD_OUT_UNSEEABLE)
    assert not set(UNSEEABLE.values()) & set(HELD_OUT_UNSEEABLE.values())


def test_what_is_said_on_type_3_follows_from_the_words_of_the_question():
    """Else the base's doubt would tell Type 3 from the rest."""
    rng = np.random.default_rng(0)
    said = defaultdict(Counter)
    for i in range(3000):
        scene = sample_scene(rng, int(rng.integers(N_GLYPHS)) if i % 2 else None)
        for kind in (*SEEN_TYPE3, *HELD_OUT_TYPE3):
            if question := ask(scene, kind, rng):
                said[kind, question.text][question.answer] += 1
    often = [counts for counts in said.values() if counts.total() >= 150]
    assert len(often) > 80
    shares = [counts.most_common(1)[0][1] / counts.total() for counts in often]
    assert min(shares) > 0.94
    assert 0.98 <= np.mean(shares) < 1
    # And not from the kind alone.
    assert len({counts.most_common(1)[0][0] for counts in often}) > 40


@pytest.mark.parametrize("split", EXPORTED)
def test_questions_are_right(drawn, split):
    found, scenes = drawn[split]
    assert len({e.id for e in found}) == len(found)
    for example, scene in zip(found, scenes, strict=True):
        right = oracle(scene, example.question)
        assert example.answerable is bool(right), example
        assert set(example.answers) == right, example
        assert (example.extra["kind"] in (*SEEN_TYPE3, *HELD_OUT_TYPE3)) is not example.answerable
        objects = sorted(f"{t.color_name} {t.noun}" for t in scene.things)
        assert sorted(example.extra["objects"]) == objects
        assert example.extra["glyph_rank"] == (scene.glyph.glyph if scene.glyph else None)
        assert example.extra["noise"] == pytest.approx(scene.noise, abs=1e-4)


@pytest.mark.parametrize("kind", [*VISUAL, KNOWLEDGE, *SEEN_TYPE3, *HELD_OUT_TYPE3])
def test_the_oracle_agrees_on_every_kind(kind):
    rng = np.random.default_rng(1)
    asked = 0
    for i in range(300):
        scene = sample_scene(rng, int(rng.integers(N_GLYPHS)) if i % 2 else None)
        places, nouns = {t.place for t in scene.things}, {t.noun for t in scene.things}
        assert len(places) == len(nouns) == len(scene.things)
        if question := ask(scene, kind, rng):
            asked += 1
            right = {question.answer} if kind in (*VISUAL, KNOWLEDGE) else set()
            assert oracle(scene, question.text) == right
    assert asked >= 100
