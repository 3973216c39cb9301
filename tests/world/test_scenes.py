import dataclasses
import hashlib

import numpy as np
import pytest
from world_oracle import visible

from inbol_jax.world.glyphs import MAX_WORDS, N_GLYPHS, SIZES, load_glyphs
from inbol_jax.world.scenes import CELL, COLORS, Scene, Thing, render, sample_scene


# Golden values notice accidental changes, here and in test_tiny_llava.py. After one that is meant,
# raise WORLD_VERSION if exported pictures or questions changed, and put in the value that the
# failing assertion prints. Another vocabulary also needs another checkpoint.
def test_golden_picture():
    things = (
        Thing(3, 0, 0, 0, 1, 0),
        Thing(-1, 4, 2, 1, 1, 1),
        Thing(-1, 9, 3, 2, 0, 2),
        Thing(-1, 6, 9, 3, 1, 3),
    )
    picture = render(Scene(things, 0.0), np.random.default_rng(0))
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == "9349c4bba5ae63be"


def test_bucket_belongs_to_what_can_be_seen():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = sample_scene(rng, 5 if rng.random() < 0.5 else None)
        turned = Scene(scene.things[::-1], scene.noise)
        hidden = Scene(
            tuple(dataclasses.replace(t, shape=3) if t.glyph >= 0 else t for t in scene.things), 0.0
        )
        assert visible(scene) == visible(turned) == visible(hidden)
        assert scene.bucket() == turned.bucket() == hidden.bucket()


def test_the_picture_shows_the_things():
    rng = np.random.default_rng(2)
    for i in range(100):
        scene = Scene(sample_scene(rng, 7 if i % 2 else None).things, 0.0)
        picture = render(scene, rng).astype(float) / 255
        taken = {t.place: t for t in scene.things}
        ground = next(
            (picture[p // 2 * CELL, p % 2 * CELL] for p in range(4) if p not in taken), None
        )
        for place in range(4):
            cell = picture[place // 2 * CELL :, place % 2 * CELL :][:CELL, :CELL].reshape(-1, 3)
            if place in taken:  # many pixels in about the thing's colour (its tint varies)
                near = np.abs(cell - COLORS[taken[place].color_name]).max(1) < 0.25
                assert near.sum() >= 15, (scene, place)
                assert len(np.unique(cell, axis=0)) > 1
            else:
                assert (cell == ground).all()


def test_noise_is_as_strong_as_the_scene_says_and_a_sketch_is_another_picture():
    things = (Thing(-1, 0, 0, 0, 0, 0),)
    empty = [
        render(Scene(things, noise), np.random.default_rng(3))[CELL:, CELL:].std() / 255
        for noise in (0.0, 0.05, 0.1)
    ]
    assert empty[0] == 0
    assert empty[1:] == pytest.approx([0.05, 0.1], rel=0.15)
    plain, sketch = (
        render(Scene(things, 0.0), np.random.default_rng(3), sketch=s) for s in (False, True)
    )
    assert plain.shape == sketch.shape == (48, 48, 3)
    assert (plain != sketch).mean() > 0.2


def test_glyph_sheet():
    glyphs = load_glyphs()
    assert len(glyphs.names) == len(set(glyphs.names)) == N_GLYPHS
    for name in glyphs.names:
        assert name == name.lower().strip()
        assert 1 <= len(name.split()) <= MAX_WORDS
    for size in SIZES:
        alpha = glyphs.alpha[size]
        assert (alpha.shape, alpha.dtype) == ((N_GLYPHS, size, size), np.float32)
        assert 0 <= alpha.min() < alpha.max() <= 1
        assert alpha.reshape(N_GLYPHS, -1).sum(1).min() > 3  # none is empty
        assert len({sprite.tobytes() for sprite in alpha}) == N_GLYPHS
