import itertools

import numpy as np
from world_oracle import EXPORTED, visible

import inbol_jax.world.pretrain as pretrain_module
from inbol_jax.world.pretrain import PretrainBatches
from inbol_jax.world.splits import Split


def test_splits_share_no_scene_and_no_glyph(scenes_of, monkeypatch):
    scenes = {split: scenes_of(split, 400)[1] for split in EXPORTED}
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
        assert len(ranks) > 20
    assert sorted(b for split in Split for b in split.buckets) == list(range(20))
    for a, b in itertools.combinations(EXPORTED, 2):
        assert not set(a.glyphs) & set(b.glyphs)
    for a, b in itertools.combinations(Split, 2):
        assert not {visible(s) for s in scenes[a]} & {visible(s) for s in scenes[b]}
