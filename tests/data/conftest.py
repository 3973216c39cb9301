from pathlib import Path

import pytest

from inbol_jax.data.config import DataConfig
from inbol_jax.data.importing import open_dataset


@pytest.fixture
def read(tmp_path):
    """Opens the set that the options name; no record may be set aside unless the test says so."""

    def read(max_rejected=0.0, **options):
        for name in ("dir", "images", "annotations"):
            if name in options:
                options[name] = Path(options[name])
        options["id"] = options.get("id") and str(options["id"])
        return open_dataset(DataConfig(**options), out=tmp_path / "out", max_rejected=max_rejected)

    return read
