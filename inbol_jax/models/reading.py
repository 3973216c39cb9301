"""Reads a checkpoint's safetensors files into parameters, one tensor at a time."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, make_single_device_sharding
from safetensors import SafetensorError, safe_open

from inbol_jax.artifacts import parse_json
from inbol_jax.errors import InbolError
from inbol_jax.models.weights import WeightRow, canonical_key, table_row
from inbol_jax.prompts import FILE
from inbol_jax.sharding import parameter_sharding

# Buffers that old versions of transformers saved beside the weights.
_IGNORED = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")
# SigLIP's attention pooling, which checkpoints hold and no family uses: it is not loaded, and
# copied from file to file when the model is saved.
_UNREAD = re.compile(r"^vision_tower\.vision_model\.head\.")
_HEAD = "language_model.lm_head.weight"
_DTYPES = ("F32", "F16", "BF16")
_INDEX = "model.safetensors.index.json"
# Config, tokenizer, processor and chat template of a checkpoint, as transformers names them.
OTHER_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("chat_template.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json"),
    *("merges.txt", "video_preprocessor_config.json"),
)
# Files that are copied with a checkpoint, and do not belong to what identifies it: how it is asked
# stands in every header beside its fingerprint.
COPIED_FILES = (*OTHER_FILES, FILE)


def own_files(folder: Path, names: Iterable[str] = COPIED_FILES) -> list[Path]:
    """Returns which of these files are in a checkpoint's folder."""
    return [folder / name for name in names if (folder / name).is_file()]


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the sorted files that a checkpoint consists of, whatever else lies in its folder.

    Raises InbolError as `weight_files`.
    """
    weights = [file.name for file in weight_files(folder)]
    index = [] if weights == ["model.safetensors"] else [_INDEX]
    return own_files(folder, sorted([*OTHER_FILES, *index, *weights]))


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a checkpoint: the only one, or those that its index names.

    Raises:
      InbolError: if a file is missing, or if the index is broken or leaves the folder.
    """
    whole, index = folder / "model.safetensors", folder / _INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise InbolError(f"{whole} is missing: the folder holds no safetensors weights")
    try:
        names = sorted(
            {Path(name) for name in parse_json(index.read_bytes())["weight_map"].values()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InbolError(f"{index}: not an index of safetensors files ({error})") from error
    for name in names:
        if len(name.parts) != 1 or not (folder / name).is_file():
            raise InbolError(
                f"{folder / name} is missing: {_INDEX} names it; copy or download it again"
            )
    return [folder / name for name in names]


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """Opens a safetensors file. Raises InbolError if it cannot be read."""
    try:
        with safe_open(file, framework="np") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InbolError(
            f"{file}: not a readable safetensors file ({error}); copy or download it again"
        ) from error


def stored_tensors(folder: Path) -> Iterator[tuple[Path, str, Any]]:
    """Yields each tensor of a checkpoint: its file, its key there, and the open file.

    Raises InbolError as `weight_files` and `open_tensors`.
    """
    for file in weight_files(folder):
        with open_tensors(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118, a safetensors file is no dict
                yield file, key, tensors


def unread_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint that the model does not use, by their keys."""
    return {
        name: tensors.get_tensor(key)
        for _, key, tensors in stored_tensors(folder)
        if _UNREAD.match(name := canonical_key(key, ()))
    }


def has_own_head(folder: Path) -> bool:
    """Whether a head is stored that differs from the embedding: then they are not tied.

    transformers decides so whatever the config says, as some leave it out and so take a default.
    """
    parts = {
        match[1]: tensors.get_tensor(key)
        for _, key, tensors in stored_tensors(folder)
        if (match := re.search(r"(lm_head|embed_tokens)\.weight$", key))
    }
    return len(parts) == 2 and not np.array_equal(*parts.values())


def load_params(
    folder: Path,
    shapes: Mapping[str, Any],
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    """Reads a checkpoint's weights. Host memory holds no more than one tensor at a time.

    Args:
      shapes: the tree of parameters, as `jax.eval_shape` of the model's init gives it.
      dtype: dtype of the arrays; by default that of the file.
      mesh: devices that the arrays are split over; by default the first device alone.
      tied: whether the head is tied to the embedding; a head that is stored as well is skipped.
    Returns:
      a nested dict of jax.Array.
    Raises:
      InbolError: if a file is missing, truncated or of another format, if a key is missing or
        unknown, or if a shape or dtype disagrees with the config.
    """
    leaves = flatten_dict(shapes, sep="/")
    rows = {row.key: row for row in map(table_row, leaves)}
    # All tensors are checked before the first one is read.
    stored: dict[str, str] = {}  # the table's spelling of a key -> the file's
    for file, key, tensors in stored_tensors(folder):
        name = canonical_key(key, rows)
        if _IGNORED.search(name) or _UNREAD.match(name) or (tied and name == _HEAD):
            continue
        if name in stored:
            raise InbolError(f"{file}: {key} and {stored[name]} are the same parameter")
        stored[name], found = key, tensors.get_slice(key)
        if found.get_dtype() not in _DTYPES:
            raise InbolError(f"{file}: {key} is of type {found.get_dtype()}, none of {_DTYPES}")
        if name in rows:
            ours, shape = leaves[rows[name].path].shape, tuple(found.get_shape())
            if shape != (expected := tuple(ours[i] for i in rows[name].hf_order)):
                raise InbolError(f"{file}: {key} has shape {shape}, config.json says {expected}")
    missing, unknown = sorted(rows.keys() - stored.keys()), sorted(stored.keys() - rows.keys())
    if missing or unknown:
        first, *others = weight_files(folder)
        raise InbolError(
            f"{folder if others else first}: {len(missing)} keys missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )
    params = {}
    for _, key, tensors in stored_tensors(folder):
        if row := rows.get(canonical_key(key, rows)):
            tensor = tensors.get_slice(key)
            params[row.path] = _place(tensor, row, leaves[row.path].shape, dtype, mesh)
    return unflatten_dict(params, sep="/")


def _place(
    tensor: Any, row: WeightRow, shape: tuple[int, ...], dtype: Any, mesh: Mesh | None
) -> jax.Array:
    """Reads each device's part of a safetensors slice straight onto that device."""
    read: dict[Any, np.ndarray] = {}  # devices that hold the same part share one reading

    def part(index: tuple[slice, ...]) -> np.ndarray:
        # The file's axis j is our axis hf_order[j]: the device's part alone is read, then turned.
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
        if bounds not in read:
            hf_slices = tuple(slice(*bounds[i]) for i in row.hf_order)
            read[bounds] = np.ascontiguousarray(row.from_hf(tensor[hf_slices]), dtype)
        return read[bounds]

    sharding = make_single_device_sharding(jax.local_devices()[0])
    if mesh:
        sharding = parameter_sharding(mesh, row.axes, shape)
    return jax.make_array_from_callback(shape, sharding, part)
