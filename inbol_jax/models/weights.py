"""Weights between Hugging Face's layout and ours: one table, read in both directions.

Every leaf of the model must match one row of the table, and every key of a checkpoint one leaf: an unmapped, missing or doubly mapped key
raises with its name.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inbol_jax.artifacts import atomically, write_json
from inbol_jax.errors import InbolError
from inbol_jax.processes import is_main, to_host
from inbol_jax.sharding import parameter_sharding


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      ours: path of the parameter; `{name}` or `{name:alternatives}` stands for a part of it that is carried over.
      theirs: key of the tensor.
      order: our axis i is their axis order[i]: torch keeps the kernels of dense layers as [out, in].
      axes: logical names of our axes, which `sharding.RULES` maps to a mesh.
    """

    ours: str
    theirs: str
    order: tuple[int, ...]
    axes: tuple[str, ...]

    def load(self, x: np.ndarray) -> np.ndarray:
        """Their array as ours."""
        return x.transpose(self.order)

    def save(self, x: np.ndarray) -> np.ndarray:
        """Our array as theirs."""
        return x.transpose(np.argsort(self.order))


def _vector(ours: str, theirs: str, axis: str = "norm") -> Row:
    return Row(ours, theirs, (0,), (axis,))


def _dense(
    ours: str, theirs: str, into: str, out: str, *, bias: str | None = None
) -> tuple[Row, ...]:
    """Kernel and bias of a dense layer, with the logical axes of its input, its output and its bias."""
    kernel = Row(f"{ours}/kernel", f"{theirs}.weight", (1, 0), (into, out))
    return (kernel, _vector(f"{ours}/bias", f"{theirs}.bias", bias or out))


_VISION, _TEXT = "vision_tower.vision_model", "language_model.model"
_VISION_LAYER, _TEXT_LAYER = f"{_VISION}.encoder.layers.{{i}}", f"{_TEXT}.layers.{{i}}"
TABLE: tuple[Row, ...] = (
    Row(
        "vision_tower/embeddings/patch_embedding",
        f"{_VISION}.embeddings.patch_embedding.weight",
        (2, 3, 1, 0),
        ("patch",) * 3 + ("norm",),
    ),
    _vector("vision_tower/embeddings/patch_bias", f"{_VISION}.embeddings.patch_embedding.bias"),
    _vector("vision_tower/embeddings/class_embedding", f"{_VISION}.embeddings.class_embedding"),
    Row(
        "vision_tower/embeddings/position_embedding",
        f"{_VISION}.embeddings.position_embedding.weight",
        (0, 1),
        ("position", "norm"),
    ),
    _vector(
        "vision_tower/pre_layernorm/scale", f"{_VISION}.pre_layrnorm.weight"
    ),  # the typo is theirs
    _vector("vision_tower/pre_layernorm/bias", f"{_VISION}.pre_layrnorm.bias"),
    _vector("vision_tower/post_layernorm/scale", f"{_VISION}.post_layernorm.weight"),
    _vector("vision_tower/post_layernorm/bias", f"{_VISION}.post_layernorm.bias"),
    _vector(
        "vision_tower/layers_{i}/layer_norm{n}/scale", f"{_VISION_LAYER}.layer_norm{{n}}.weight"
    ),
    _vector("vision_tower/layers_{i}/layer_norm{n}/bias", f"{_VISION_LAYER}.layer_norm{{n}}.bias"),
    *_dense(
        "vision_tower/layers_{i}/{m:[qkv]}_proj",
        f"{_VISION_LAYER}.self_attn.{{m}}_proj",
        "embed",
        "heads",
    ),
    *_dense(
        "vision_tower/layers_{i}/out_proj",
        f"{_VISION_LAYER}.self_attn.out_proj",
        "heads",
        "embed",
        bias="norm",
    ),
    *_dense("vision_tower/layers_{i}/fc1", f"{_VISION_LAYER}.mlp.fc1", "embed", "mlp"),
    *_dense("vision_tower/layers_{i}/fc2", f"{_VISION_LAYER}.mlp.fc2", "mlp", "embed", bias="norm"),
    Row(
        "vision_tower/head/probe",
        f"{_VISION}.head.probe",
        (0, 1, 2),
        ("position", "position", "norm"),
    ),
    Row(
        "vision_tower/head/in_proj_kernel",
        f"{_VISION}.head.attention.in_proj_weight",
        (1, 0),
        ("embed", "heads"),
    ),
    _vector("vision_tower/head/in_proj_bias", f"{_VISION}.head.attention.in_proj_bias", "heads"),
    Row(
        "vision_tower/head/out_proj_kernel",
        f"{_VISION}.head.attention.out_proj.weight",
        (1, 0),
        ("heads", "embed"),
    ),
    _vector("vision_tower/head/out_proj_bias", f"{_VISION}.head.attention.out_proj.bias"),
    _vector("vision_tower/head/layernorm_scale", f"{_VISION}.head.layernorm.weight"),
    _vector("vision_tower/head/layernorm_bias", f"{_VISION}.head.layernorm.bias"),
    Row(
        "vision_tower/head/{m:fc[12]}_kernel",
        f"{_VISION}.head.mlp.{{m}}.weight",
        (1, 0),
        ("embed", "mlp"),
    ),
    _vector("vision_tower/head/{m:fc[12]}_bias", f"{_VISION}.head.mlp.{{m}}.bias"),
    *_dense("multi_modal_projector/linear_1", "multi_modal_projector.linear_1", "embed", "mlp"),
    *_dense(
        "multi_modal_projector/linear_2",
        "multi_modal_projector.linear_2",
        "mlp",
        "embed",
        bias="norm",
    ),
    Row(
        "language_model/embed_tokens/embedding",
        f"{_TEXT}.embed_tokens.weight",
        (0, 1),
        ("vocab", "embed"),
    ),
    _vector(
        "language_model/layers_{i}/{m}_layernorm/scale", f"{_TEXT_LAYER}.{{m}}_layernorm.weight"
    ),
    *_dense(
        "language_model/layers_{i}/self_attn/{m:[qkv]}_proj",
        f"{_TEXT_LAYER}.self_attn.{{m}}_proj",
        "embed",
        "heads",
    ),
    *_dense(
        "language_model/layers_{i}/self_attn/o_proj",
        f"{_TEXT_LAYER}.self_attn.o_proj",
        "heads",
        "embed",
        bias="norm",
    ),
    *_dense(
        "language_model/layers_{i}/mlp/{m:gate|up}_proj",
        f"{_TEXT_LAYER}.mlp.{{m}}_proj",
        "embed",
        "mlp",
    ),
    *_dense(
        "language_model/layers_{i}/mlp/down_proj",
        f"{_TEXT_LAYER}.mlp.down_proj",
        "mlp",
        "embed",
        bias="norm",
    ),
    _vector("language_model/norm/scale", f"{_TEXT}.norm.weight"),
    Row("language_model/lm_head", "language_model.lm_head.weight", (1, 0), ("embed", "vocab")),
)

# Other spellings of the same keys: inside transformers' modules, and from its version 5.
_ALIASES = (
    (re.compile(r"^model\.(?=vision_tower|multi_modal_projector|language_model)"), ""),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^language_model\.(?!model\.|lm_head\.)"), "language_model.model."),
    (re.compile(r"^vision_tower\.(?!vision_model\.)"), "vision_tower.vision_model."),
)
# Buffers that old versions saved beside the weights.
IGNORED = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")
_DTYPES = ("F32", "F16", "BF16")


def canonical(key: str) -> str:
    """A key in the table's spelling."""
    for pattern, replacement in _ALIASES:
        key = pattern.sub(replacement, key)
    return key


def table_row(path: str) -> Row:
    """The row of a parameter, with its placeholders filled in.

    Raises:
      InbolError: when no row or more than one matches.
    """
    found = [
        row._replace(ours=path, theirs=row.theirs.format(**m.groupdict()))
        for row in TABLE
        if (m := _pattern(row.ours).fullmatch(path))
    ]
    if len(found) != 1:
        raise InbolError(f"parameter {path} matches {len(found)} rows of the weight table")
    return found[0]


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    literal, *rest = re.split(
        r"\{(\w+)(?::([^}]+))?\}", ours
    )  # text, name, alternatives, text, name, ...
    pattern = re.escape(literal)
    for name, alternatives, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        pattern += f"(?P<{name}>{alternatives or '[^/]+?'}){re.escape(text)}"
    return re.compile(pattern)


def module_name(path: str) -> str:
    """The module that holds a parameter, as transformers 5 calls it within LlavaForConditionalGeneration and PEFT in its files."""
    name = table_row(path).theirs.rpartition(".")[0]
    if name == "language_model.lm_head":
        return "lm_head"
    return "model." + name.replace("vision_tower.vision_model", "vision_tower").replace(
        "language_model.model", "language_model"
    )


def param_shardings(shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """The sharding of every leaf, by the table's logical axes. `shapes`: arrays or `jax.ShapeDtypeStruct`s."""
    flat = flatten_dict(dict(shapes), sep="/")
    return unflatten_dict(
        {
            path: parameter_sharding(mesh, table_row(path).axes, leaf.shape)
            for path, leaf in flat.items()
        },
        sep="/",
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or those that its index names.

    Raises:
      InbolError: when there is none, or one that the index names is missing.
    """
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if file.is_file():
        return [file]
    if not index.is_file():
        raise InbolError(f"{file} is missing: the folder holds no safetensors weights")
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InbolError(f"{index}: not an index of safetensors files ({error})") from error
    for name, shard in zip(names, files, strict=True):
        if Path(name).name != name:
            raise InbolError(f"{index}: {name!r} is not a file name")
        if not shard.is_file():
            raise InbolError(
                f"{shard} is missing: {index.name} names it; copy or download it again"
            )
    return files


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """A safetensors file, opened. What is wrong with it is said on one line.

    Raises:
      InbolError: when it cannot be read.
    """
    try:
        with safe_open(file, framework="np") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InbolError(
            f"{file}: not a readable safetensors file ({error}); copy or download it again"
        ) from error


def load_params(
    folder: Path,
    shapes: Mapping[str, Any],
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    """Reads a checkpoint's weights tensor by tensor, each straight into its place: no more than one is in host memory at a time.

    Args:
      shapes: the tree of parameters, as `jax.eval_shape` of the model's init gives it.
      dtype: of the arrays; by default that of the file.
      mesh: where they go (`param_shardings`); by default to the default device.
      tied: a head that is stored beside the embedding which it is tied to is passed over.
    Returns: nested dict of jax.Array.
    Raises:
      InbolError: a file missing, truncated or of another format; a key that is missing or unknown; a shape or dtype that disagrees.
    """
    wanted = {
        row.theirs: (path, row, leaf.shape)
        for path, leaf in flatten_dict(dict(shapes), sep="/").items()
        for row in [table_row(path)]
    }
    stored: dict[str, tuple[Path, str]] = {}
    files = weight_files(folder)
    for file in files:
        with open_tensors(file) as tensors:
            for key in tensors.keys():
                name = canonical(key)
                if name in stored:
                    raise InbolError(f"{file}: {key} and {stored[name][1]} are the same parameter")
                if not IGNORED.search(name) and not (
                    tied and name == "language_model.lm_head.weight"
                ):
                    stored[name] = file, key
    missing, unknown = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    if missing or unknown:
        where = files[0] if len(files) == 1 else folder
        raise InbolError(
            f"{where}: {len(missing)} keys missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}"
        )
    params = {}
    for file in files:
        with open_tensors(file) as tensors:
            for name, key in (
                (name, key) for name, (source, key) in stored.items() if source == file
            ):
                path, row, shape = wanted[name]
                params[path] = _place(file, key, tensors.get_slice(key), row, shape, dtype, mesh)
    return unflatten_dict(params, sep="/")


def _place(
    file: Path,
    key: str,
    theirs: Any,
    row: Row,
    shape: tuple[int, ...],
    dtype: Any,
    mesh: Mesh | None,
) -> jax.Array:
    expected = tuple(shape[i] for i in np.argsort(row.order))
    if tuple(theirs.get_shape()) != expected:
        raise InbolError(
            f"{file}: {key} has shape {tuple(theirs.get_shape())}, config.json says {expected}"
        )
    if theirs.get_dtype() not in _DTYPES:
        raise InbolError(
            f"{file}: {key} is of type {theirs.get_dtype()}, which is none of {', '.join(_DTYPES)}"
        )
    read: dict[Any, np.ndarray] = {}  # devices that hold the same part share one reading

    def part(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
        if bounds not in read:
            slices = tuple(slice(*bounds[i]) for i in np.argsort(row.order))
            read[bounds] = np.ascontiguousarray(row.load(theirs[slices]), dtype)
        return read[bounds]

    sharding = (
        parameter_sharding(mesh, row.axes, shape)
        if mesh
        else SingleDeviceSharding(jax.local_devices()[0])
    )
    return jax.make_array_from_callback(shape, sharding, part)


def write_tensors(
    tensors: Mapping[str, np.ndarray], file: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file. Raises OSError where the disk refuses, which the library calls otherwise."""
    try:
        save_file(dict(tensors), file, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(None, str(error)) from error


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes of "5GB", "200MiB" or "1000".

    Raises:
      InbolError: for anything else.
    """
    match = re.fullmatch(r"(\d+) ?([KMG]I?B|)", text.upper())
    if not match:
        raise InbolError(f"{text!r} is not a size, such as 5GB or 200MiB")
    return int(match[1]) * _UNITS[match[2]]


def save_params(folder: Path, params: Mapping[str, Any], *, max_shard_size: str = "5GB") -> None:
    """Writes weights in Hugging Face's layout: model.safetensors, or several files with an index, no more than one in memory at a time.

    Each is written whole or not at all, and the index last; files of an earlier, differently split checkpoint are removed. Of several
    processes all must call this: weights that are spread over them are gathered one by one, and the main one writes.
    """
    limit, shards, size = parse_size(max_shard_size), [[]], 0
    leaves = {
        row.theirs: (row, x)
        for path, x in flatten_dict(dict(params), sep="/").items()
        for row in [table_row(path)]
    }
    for key, (_, x) in sorted(leaves.items()):
        if shards[-1] and size + x.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += x.nbytes
    index = folder / "model.safetensors.index.json"
    if is_main():
        index.unlink(
            missing_ok=True
        )  # from here on until it is written, a crash leaves no mixture that would load
    count, weight_map = len(shards), {}
    for number, keys in enumerate(shards, 1):
        name = (
            "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        )
        tensors = {}
        for key in keys:
            row, x = leaves[key]
            whole = to_host(x)
            if is_main():
                tensors[key] = np.ascontiguousarray(row.save(whole))
        weight_map |= dict.fromkeys(keys, name)
        if is_main():
            with atomically(folder / name) as file:
                write_tensors(tensors, file, {"format": "pt"})
    if not is_main():
        return
    if count > 1:
        write_json(
            index,
            {
                "metadata": {"total_size": sum(x.nbytes for _, x in leaves.values())},
                "weight_map": weight_map,
            },
        )
    for file in (*folder.glob("model-*-of-*.safetensors"), folder / "model.safetensors"):
        if file.name not in weight_map.values():
            file.unlink(missing_ok=True)
