"""Reads a checkpoint's safetensors files into parameters, one tensor at a time."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, SingleDeviceSharding
from safetensors import SafetensorError, safe_open

from inbol_jax.artifacts import parse_json
from inbol_jax.errors import InbolError
from inbol_jax.models.weights import WeightRow, canonical_key, table_row
from inbol_jax.prompts import FILE
from inbol_jax.sharding import parameter_sharding

# Buffers that old versions of transformers saved beside the weights.
_IGNORED = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")
_DTYPES = ("F32", "F16", "BF16")
_ROWS = 1 << 12  # of two tensors that are compared, at a time
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
    """Returns which of these files are in a checkpoint's folder.

    Raises:
      InbolError: if one is a link to a place outside. A hub cache links to its own `blobs`.
    """
    root = folder.resolve()
    places = {root, root.parents[1] / "blobs"} if root.parent.name == "snapshots" else {root}
    files = [folder / name for name in names if (folder / name).is_file()]
    for file in files:
        if not places & {*file.resolve().parents}:
            raise InbolError(
                f"{file} is a link out of the checkpoint's folder; copy the file there"
            )
    return files


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the sorted files that a checkpoint consists of, whatever else lies in its folder.

    Raises:
      InbolError: as `weight_files` and `own_files`.
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
        names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
        files = [folder / name for name in names]
        present = [file.is_file() for file in files]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InbolError(f"{index}: not an index of safetensors files ({error})") from error
    for name, file, there in zip(names, files, present, strict=True):
        if Path(name).name != name:
            raise InbolError(f"{index}: {name!r} is not a file name")
        if not there:
            raise InbolError(f"{file} is missing: {index.name} names it; copy or download it again")
    return files


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


def has_own_head(folder: Path) -> bool:
    """Whether a head is stored that differs from the embedding: then they are not tied.

    transformers decides so whatever the config says, as some leave it out and so take a default.
    """
    with ExitStack() as opened:
        parts = {}
        for file in weight_files(folder):
            tensors = opened.enter_context(open_tensors(file))
            for key in tensors.keys():  # noqa: SIM118, a safetensors file is no dict
                if match := re.search(r"(lm_head|embed_tokens)\.weight$", key):
                    parts[match[1]] = tensors.get_slice(key)
        if len(parts) < 2:
            return False
        head, embedding = parts.values()
        if head.get_shape() != embedding.get_shape():
            return True
        count = head.get_shape()[0]
        # In chunks of rows, and only until the first that differs: memory holds no whole embedding.
        chunks = [slice(i, min(i + _ROWS, count)) for i in range(0, count, _ROWS)]
        return any((head[chunk] != embedding[chunk]).any() for chunk in chunks)


class _StoredTensor(NamedTuple):
    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


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
    leaves, files = flatten_dict(shapes, sep="/"), weight_files(folder)
    rows = {row.key: row for row in map(table_row, leaves)}
    stored = _find_tensors(files, rows, tied=tied)
    missing, unknown = sorted(rows.keys() - stored.keys()), sorted(stored.keys() - rows.keys())
    if missing or unknown:
        where = files[0] if len(files) == 1 else folder
        raise InbolError(
            f"{where}: {len(missing)} keys missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )
    for name, tensor in stored.items():
        shape = leaves[rows[name].path].shape
        # All tensors are checked before the first one is read.
        _check_tensor(tensor, tuple(shape[i] for i in rows[name].hf_order))
    params = {}
    for file in files:
        with open_tensors(file) as tensors:
            for name, tensor in stored.items():
                if tensor.file == file:
                    row, part = rows[name], tensors.get_slice(tensor.key)
                    params[row.path] = _place(part, row, leaves[row.path].shape, dtype, mesh)
    return unflatten_dict(params, sep="/")


def _find_tensors(
    files: list[Path], rows: Mapping[str, WeightRow], *, tied: bool
) -> dict[str, _StoredTensor]:
    """Maps each key, in the table's spelling, to its file and to its spelling there."""
    stored: dict[str, _StoredTensor] = {}
    for file in files:
        with open_tensors(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118, a safetensors file is no dict
                name = canonical_key(key, rows)
                if name in stored:
                    raise InbolError(f"{file}: {key} and {stored[name].key} are the same parameter")
                if _IGNORED.search(name) or (tied and name == "language_model.lm_head.weight"):
                    continue
                part = tensors.get_slice(key)
                stored[name] = _StoredTensor(file, key, tuple(part.get_shape()), part.get_dtype())
    return stored


def _check_tensor(tensor: _StoredTensor, expected: tuple[int, ...]) -> None:
    file, key, shape, dtype = tensor
    if shape != expected:
        raise InbolError(f"{file}: {key} has shape {shape}, config.json says {expected}")
    if dtype not in _DTYPES:
        raise InbolError(f"{file}: {key} is of type {dtype}, which is none of {', '.join(_DTYPES)}")


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

    sharding = SingleDeviceSharding(jax.local_devices()[0])
    if mesh:
        sharding = parameter_sharding(mesh, row.axes, shape)
    return jax.make_array_from_callback(shape, sharding, part)
