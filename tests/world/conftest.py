import pytest
from world_oracle import EXPORTED

import inbol_jax.world.export as export_module
from inbol_jax.world.export import examples


@pytest.fixture(scope="session")
def drawn():
    """By split (examples, scenes) of 375 questions. A scene is caught where it would be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "render", lambda scene, rng, sketch=False: scene)
        return {split: [*zip(*examples(split, 375, 0), strict=True)] for split in EXPORTED}
