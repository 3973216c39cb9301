"""Writes parameters as safetensors files in Hugging Face's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.numpy import save_file

from inbol_jax.artifacts import atomically, write_json
from inbol_jax.models.weights import table_row
from inbol_jax.processes import is_main, to_host


def write_tensors(
    tensors: Mapping[str, np.ndarray], file: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file. Raises OSError if the disk refuses."""
    try:
        save_file(dict(tensors), file, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(None, str(error)) from error


def save_params(
    folder: Path,
    params: Mapping[str, Any],
    unread: Mapping[str, np.ndarray] | None = None,
    *,
    max_shard_size: str = "5GB",
) -> None:
    """Writes model.safetensors, or several shards with an index, one file in memory at a time.

    Each file is written whole or not at all, and the index last. Files of an earlier checkpoint
    that was split differently are removed. If there are several processes, all must call this: the
    main process writes what is gathered from them.

    Args:
      unread: further tensors by their keys, in the checkpoint's layout.
    """
    leaves, unread = flatten_dict(params, sep="/"), unread or {}
    rows = {row.key: row for row in sorted(map(table_row, leaves))}
    split = split_state_dict_into_shards_factory(
        {key: leaves[row.path] for key, row in rows.items()} | dict(unread),
        get_storage_size=lambda x: x.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    index = folder / "model.safetensors.index.json"
    if is_main():
        # Without an index, a crash leaves no mixture of two checkpoints that would load.
        index.unlink(missing_ok=True)
    # Every process gathers every tensor, which is a collective; the main one keeps and writes it.
    for name, keys in split.filename_to_tensors.items():
        tensors = {key: unread[key] for key in keys if key in unread}
        for row in (rows[key] for key in keys if key in rows):
            x = to_host(leaves[row.path])
            if is_main():
                tensors[row.key] = np.ascontiguousarray(row.to_hf(x))
        if is_main():
            with atomically(folder / name) as file:
                write_tensors(tensors, file, {"format": "pt"})
    if not is_main():
        return
    if split.is_sharded:
        write_json(index, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    for file in (*folder.glob("model-*-of-*.safetensors"), folder / "model.safetensors"):
        if file.name not in split.filename_to_tensors:
            file.unlink(missing_ok=True)
