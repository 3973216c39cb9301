"""Pictures that the rows of a set hold or refer to, written once each into the dataset folder."""

import hashlib
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import write_atomically
from inbol_jax.data.config import DataConfig
from inbol_jax.data.images import ImageError, image_suffix
from inbol_jax.data.rows import Unusable


def picture_name(value: Any, config: DataConfig, folder: Path) -> str | None:
    """The name in `data.jsonl` of the picture that a row holds or refers to, None if it has none.

    The picture is written as it is into the dataset folder, under the hash of its bytes, so that
    one that many questions share is there once. If the set has an image folder, nothing is written.

    Raises:
      Unusable: if the value is neither bytes nor a path nor an object with either, or is no image
        in a known format.
    """
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        return None
    if config.images:
        if isinstance(value, str):
            return value
        raise Unusable("picture in the row itself (leave --data.images out)")
    data = _read(value, config) if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise Unusable("image not a picture or path")
    digest = hashlib.sha256(data).hexdigest()[:32]
    try:
        name = f"images/{digest[:2]}/{digest}{image_suffix(data)}"
    except ImageError as error:
        raise Unusable(error.cause) from None
    if not (folder / name).exists():
        write_atomically(folder / name, data, sync=False)
    return name


def _read(name: str, config: DataConfig) -> bytes:
    """Reads a picture among the set's files, or those that `datasets` downloaded; no other."""
    assert config.id is not None
    local = Path(config.id)
    if local.exists():
        roots = [local if local.is_dir() else local.parent]
    else:
        import datasets

        roots = [Path(datasets.config.HF_DATASETS_CACHE), Path(datasets.config.HF_CACHE_HOME)]
    roots = [root.resolve() for root in roots]
    try:
        path = (roots[0] / name).resolve()
        if not any(path.is_relative_to(root) for root in roots):
            raise Unusable("image outside the set's files")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        raise Unusable("image missing") from None
