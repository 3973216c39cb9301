import numpy as np
import pytest

from inbol_jax.world.glyphs import MAX_WORDS, N_GLYPHS, SIZES, glyph_frequency, load_glyphs
from inbol_jax.world.scenes import sample_glyph


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
    cumulative = glyph_frequency()
    share = np.diff(cumulative, prepend=0)
    assert cumulative[-1] == pytest.approx(1)
    assert (np.diff(share) < 0).all()
    last = sample_glyph(np.random.default_rng(0), np.full(N_GLYPHS, 0.0))
    assert last == N_GLYPHS - 1, "rounding at the end of the distribution"
