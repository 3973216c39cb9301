"""Writes parameters as safetensors files in Hugging Face's layout."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.numpy import save_file

from inbol_jax.artifacts import atomically, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models.weights import table_row
from inbol_jax.processes import is_main, to_host

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Returns the bytes of a size such as "5GB", "200MiB" or "1000", or raises InbolError."""
    match = re.fullmatch(r"(\d+) ?([KMG]I?B|)", text.upper())
    if not match or not int(match[1]):
        raise InbolError(f"{text!r} is not a size, such as 5GB or 200MiB")
    return int(match[1]) * _UNITS[match[2]]


def write_tensors(
    tensors: Mapping[str, np.ndarray], file: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file. Raises OSError if the disk refuses."""
    try:
        save_file(dict(tensors), file, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(None, str(error)) from error


def save_params(folder: Path, params: Mapping[str, Any], *, max_shard_size: str = "5GB") -> None:
    """Writes model.safetensors, or several shards with an index, one file in memory at a time.

    Each file is written whole or not at all, and the index last. Files of an earlier checkpoint
    that was split differently are removed. If there are several processes, all must call this: the
    main process writes what is gathered from them.
    """
    leaves = flatten_dict(params, sep="/")
    rows = {row.key: row for row in sorted(map(table_row, leaves))}
    split = split_state_dict_into_shards_factory(
        {key: leaves[row.path] for key, row in rows.items()},
        get_storage_size=lambda x: x.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=parse_size(max_shard_size),
    )
    index = folder / "model.safetensors.index.json"
    if is_main():
        # Without an index, a crash leaves no mixture of two checkpoints that would load.
        index.unlink(missing_ok=True)
    # Every process gathers every tensor, which is a collective; the main one keeps and writes it.
    for name, keys in split.filename_to_tensors.items():
        tensors = {}
        for row in (rows[key] for key in keys):
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
