"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from inbol_jax.artifacts import atomically, read_json, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig
from inbol_jax.models.lora import adapter_row, target_modules, trainable_params
from inbol_jax.models.reading import open_tensors
from inbol_jax.models.weights import canonical_key, module_key, module_name, table_row
from inbol_jax.models.writing import write_tensors
from inbol_jax.processes import is_main, to_host
from inbol_jax.sharding import parameter_sharding

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE = "inbol_base_fingerprint"  # metadata of the weights: which base they were trained on
_ROOT = "base_model.model."  # what PEFT puts in front of the keys of transformers' modules
# Options of PEFT that do not change what a saved adapter computes, or that LoraConfig holds.
# Any other option that is set is refused.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "megatron_config", "megatron_core",
    "modules_to_save", "peft_version", "rank_pattern", "runtime_config",
    "qalora_group_size", "target_modules", "task_type", "r", "lora_alpha", "lora_dropout",
    "use_rslora",
}  # fmt: skip
_ALLOWED = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # the other ways to initialise also change the base
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Returns the path or hub id of the base that an adapter names, or raises InbolError.

    A relative path may start from the adapter's own folder.
    """
    name = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InbolError(
            f"{folder / CONFIG}: base_model_name_or_path is missing; "
            "load the base model, and this folder as its adapter"
        )
    beside = folder / name
    return str(beside) if beside.is_dir() and not Path(name).is_dir() else name


def load_adapter(
    folder: Path,
    params: Mapping[str, Any],
    *,
    base_fingerprint: Callable[[], str],
    mesh: Mesh | None = None,
) -> tuple[LoraConfig, dict[str, Any]]:
    """Reads an adapter for a base model.

    Args:
      params: parameters of the base.
      base_fingerprint: called only if the file says which base it was trained on.
      mesh: devices that the arrays are split over.
    Returns:
      the adapter's options, and {"params", "lora"}: the base's parameters, with those
      replaced that the adapter holds whole, and the adapter's, f32.
    Raises:
      InbolError: if the adapter belongs to another base, is of a type that is not supported, or is
        damaged.
    """
    config, complete = _read_config(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise InbolError(f"{file} is missing: the folder holds no safetensors adapter")
    base, whole = flatten_dict(params, sep="/"), trainable_params(params, config)
    modules = target_modules(params, config)
    # Rows of all that the options name: their keys tell what a tensor in the file is.
    adapters = [adapter_row(f"{module}/{side}") for module in modules for side in "ab"]
    rows = {row.key: row for row in [*map(table_row, whole), *adapters]}
    read: dict[str, jax.Array] = {}
    with open_tensors(file) as tensors:
        trained_on = (tensors.metadata() or {}).get(_BASE)
        if trained_on is not None and trained_on != base_fingerprint():
            raise InbolError(
                f"{file}: trained on another base model "
                f"(fingerprint {trained_on}, this one has {base_fingerprint()})"
            )
        for key in tensors.keys():  # noqa: SIM118, a safetensors file is no dict
            # base_model.model.X.lora_A.weight -> X.lora_A.weight. PEFT wraps what is trained whole:
            # X.modules_to_save.weight and X.base_layer.weight are X.weight.
            name = key.removeprefix(_ROOT).replace(".modules_to_save.", ".")
            row = rows.get(canonical_key(name.replace(".base_layer.", "."), rows))
            if row is None:
                raise InbolError(
                    f"{file}: {key} is nothing that {CONFIG} names, or the adapter was made for "
                    "another base model"
                )
            x, own = tensors.get_tensor(key), base.get(row.path)
            if x.ndim != len(row.order) or (own is not None and row.from_hf(x).shape != own.shape):
                raise InbolError(f"{file}: {key} has shape {x.shape}, the base another")
            # An adapter is f32, what it replaces has the base's dtype.
            x = np.ascontiguousarray(row.from_hf(x), np.float32 if own is None else own.dtype)
            sharding = parameter_sharding(mesh, row.axes, x.shape) if mesh else None
            read[row.path] = jax.device_put(x, sharding)
    lora = {path: x for path, x in read.items() if path not in base}
    if not complete:
        modules = sorted({path.rpartition("/")[0] for path in lora})
    needed = [*whole, *(f"{module}/{side}" for module in modules for side in "ab")]
    missing = [path for path in needed if path not in read]
    if missing or not lora:
        raise InbolError(f"{file}: does not hold what {CONFIG} names (missing: {missing[:1]})")
    for module in modules:
        a, b, kernel = lora[f"{module}/a"], lora[f"{module}/b"], base[f"{module}/kernel"]
        # a is [in, rank] and b [rank, out], of any rank
        if (a.shape[0], *b.shape) != (kernel.shape[0], a.shape[1], kernel.shape[1]):
            raise InbolError(f"{file}: lora_A and lora_B of {module} do not fit the base")
    variables = {"params": base | {path: read[path] for path in whole}, "lora": lora}
    return config, {name: unflatten_dict(flat, sep="/") for name, flat in variables.items()}


def _read_config(folder: Path) -> tuple[LoraConfig, bool]:
    """Returns PEFT's options, and whether every module that they name has an adapter.

    Raises InbolError for an option that is not supported.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise InbolError(f"{folder} is not an adapter folder: {CONFIG} is missing")
    options = read_json(file)
    for name, value in {"peft_type": None, **options}.items():
        allowed = _ALLOWED.get(name)
        if value not in allowed if allowed else value and name not in _HARMLESS:
            raise InbolError(f"{file}: {name} = {value!r} is not supported")

    def names(value: Any) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(sorted(value or ()))

    try:
        config = LoraConfig(
            rank=options["r"],
            alpha=float(options["lora_alpha"]),
            targets=names(options["target_modules"]),
            rslora=bool(options.get("use_rslora")),
            trainable=names(options.get("modules_to_save")),
        )
    except (KeyError, TypeError, ValueError, InbolError) as error:
        raise InbolError(f"{file}: not a LoRA configuration ({error!r})") from error
    return config, not (options.get("layers_to_transform") or options.get("exclude_modules"))


def save_adapter(
    folder: Path,
    variables: Mapping[str, Any],
    config: LoraConfig,
    *,
    base: str,
    base_fingerprint: str,
) -> None:
    """Writes the adapters, and the modules that are trained whole beside them, as PEFT loads them.

    Args:
      variables: {"params", "lora"}.
      base: path or hub id of the base model.
    """
    params, lora = (flatten_dict(variables[name], sep="/") for name in ("params", "lora"))
    whole = trainable_params(params, config)
    leaves = [(adapter_row(path), x) for path, x in lora.items()]
    leaves += [(table_row(path), params[path]) for path in whole]
    tensors = {}
    for row, x in leaves:
        tensors[_ROOT + module_key(row.key)] = np.ascontiguousarray(row.to_hf(to_host(x)))
    if not is_main():
        return
    # .../q_proj/a -> .../q_proj/kernel, whose module PEFT names as a target
    kernels = {f"{path[:-1]}kernel": x for path, x in lora.items() if path.endswith("/a")}
    ranks = {module_name(path): a.shape[1] for path, a in kernels.items()}
    options = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.rslora,
        "target_modules": sorted(ranks),
        "modules_to_save": sorted(set(map(module_name, whole))) or None,
        "rank_pattern": {re.escape(k): rank for k, rank in ranks.items() if rank != config.rank},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    write_json(folder / CONFIG, options)
    with atomically(folder / WEIGHTS) as file:
        write_tensors(tensors, file, {"format": "pt", _BASE: base_fingerprint})
