from pathlib import Path

import pytest

from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.config import ImportConfig
from inbol_jax.data.importing import import_data
from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import VQADataset, load_dataset_folder


@pytest.fixture
def read(tmp_path):
    """Imports the set that the options name into `out/data/NAME`, by default its file's name, and
    reads it. No record may be set aside unless the test says so."""

    def read(max_rejected=0.0, name=None, **options) -> VQADataset:
        for option in ("images", "annotations"):
            if option in options:
                options[option] = Path(options[option])
        options["id"] = options.get("id") and str(options["id"])
        out = tmp_path / "out/data" / (name or Path(options["id"] or "hub").stem)
        folder = import_data(ImportConfig(out, max_rejected=max_rejected, **options))
        dataset = load_dataset_folder(folder)
        rows = read_jsonl(folder / "rejected.jsonl")
        dataset.rejected.extend(Rejection(**row) for row in rows)
        return dataset

    return read
