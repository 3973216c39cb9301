import pytest

import inbol_jax.world.export as export_module
from inbol_jax.world.export import examples


@pytest.fixture
def scenes_of(monkeypatch):
    """(examples, scenes) of a split: the scene is caught where it would be drawn."""
    monkeypatch.setattr(export_module, "render", lambda scene, rng, sketch=False: scene)
    return lambda split, n, seed=0: list(zip(*examples(split, n, seed), strict=True))
