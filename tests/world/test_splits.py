import itertools

import numpy as np
import pretrain as pretrain_module
from pretrain import PretrainBatches
from world_oracle import EXPORTED, visible

from inbol_jax.world.config import Split
from inbol_jax.world.glyphs import HELD_OUT_ALPHABETS, load_glyphs


def test_splits_share_no_scene_and_no_glyph(drawn, monkeypatch):
    scenes = {split: of_split for split, (_, of_split) in drawn.items()}
    caught = []
    monkeypatch.setattr(
        pretrain_module,
        "render",
        lambda scene, rng: caught.append(scene) or np.zeros((48, 48, 3), np.uint8),
    )
    for i in range(100):
        PretrainBatches(0, 4, 100)[i]
    scenes[Split.PRETRAIN] = caught
    for split, of_split in scenes.items():
        # Equality: the split uses all that it owns.
        assert {s.bucket() for s in of_split} == set(split.buckets)
        ranks = {s.glyph.glyph for s in of_split if s.glyph}
        assert {r % 20 for r in ranks} <= set(split.glyphs)
        if split is not Split.PRETRAIN:
            held_out = [load_glyphs().names[r].startswith(HELD_OUT_ALPHABETS) for r in ranks]
            assert set(held_out) == {split is Split.OOD_KNOWLEDGE}
        assert len(ranks) > 20
    assert sorted(b for split in Split for b in split.buckets) == list(range(20))
    for a, b in itertools.combinations(EXPORTED, 2):
        shown = [{s.glyph.glyph for s in scenes[split] if s.glyph} for split in (a, b)]
        assert not shown[0] & shown[1]
    for a, b in itertools.combinations(Split, 2):
        assert not {visible(s) for s in scenes[a]} & {visible(s) for s in scenes[b]}
