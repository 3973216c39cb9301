"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, in and out."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from inbol_jax.artifacts import atomically, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models.config import read_json
from inbol_jax.models.lora import LoraConfig, adapter_sharding, target_modules, trainable_params
from inbol_jax.models.weights import canonical, module_name, open_tensors, table_row, write_tensors
from inbol_jax.processes import is_main, to_host
from inbol_jax.sharding import parameter_sharding

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE = "inbol_base_fingerprint"  # in the metadata of the weights: which base they were trained on
_ROOT = "base_model.model."
# Options of PEFT that change nothing about what a saved adapter computes, or that LoraConfig holds. Any other that is set is refused.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "megatron_config", "megatron_core", "modules_to_save", "peft_type", "peft_version", "rank_pattern", "runtime_config",
    "qalora_group_size", "target_modules", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora",
}  # fmt: skip
_ALLOWED = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}  # the others also change the base


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def load_adapter(
    folder: Path,
    params: Mapping[str, Any],
    *,
    base_fingerprint: Callable[[], str],
    mesh: Mesh | None = None,
) -> tuple[LoraConfig, dict[str, Any], dict[str, Any]]:
    """Reads an adapter for a base model.

    Args:
      params: of the base.
      base_fingerprint: called where the file says which base it was trained on.
      mesh: where the arrays go.
    Returns: its options; the collection `lora`, f32; and the base's parameters with those that the adapter holds whole put in.
    Raises:
      InbolError: for an adapter of another base, a kind of adapter that is not supported, or a damaged file.
    """
    (config, options), prefix = _read_config(folder), f"{folder / WEIGHTS}: "
    if not (folder / WEIGHTS).is_file():
        raise InbolError(f"{folder / WEIGHTS} is missing: the folder holds no safetensors adapter")
    merged = flatten_dict(dict(params), sep="/")
    paths = {table_row(path).theirs: path for path in merged}
    lora: dict[str, Any] = {}
    found: set[str] = set()  # parameters that the adapter holds whole
    with open_tensors(folder / WEIGHTS) as tensors:
        made_for = (tensors.metadata() or {}).get(_BASE)
        if made_for is not None and made_for != base_fingerprint():
            raise InbolError(
                f"{prefix}trained on another base model (fingerprint {made_for}, this one has {base_fingerprint()})"
            )
        for key in tensors.keys():
            name = canonical(
                key.removeprefix(_ROOT)
                .replace(".modules_to_save.", ".")
                .replace(".base_layer.", ".")
            )
            adapter = re.fullmatch(r"(.+)\.lora_([AB])\.weight", name)
            path = paths.get(f"{adapter[1]}.weight" if adapter else name)
            if path is None or (adapter and not path.endswith("/kernel")):
                raise InbolError(
                    f"{prefix}{key} belongs to no parameter of this base model: the adapter was made for another"
                )
            row, whole, x = table_row(path), merged[path], tensors.get_tensor(key)
            if adapter:  # torch keeps both as [out, in]
                side, x = "ab"["AB".index(adapter[2])], x.T
                target = f"{path.removesuffix('kernel')}{side}"
                expected = (
                    (whole.shape[0], x.shape[1]) if side == "a" else (x.shape[0], whole.shape[1])
                )
            else:
                target, x, expected = (
                    path,
                    row.load(x) if x.ndim == len(row.order) else x,
                    whole.shape,
                )
            if x.shape != tuple(expected):
                raise InbolError(
                    f"{prefix}{key} has shape {x.shape}, this base model needs {tuple(expected)}: the adapter was made for another"
                )
            x = np.ascontiguousarray(x, np.float32 if adapter else whole.dtype)
            place = None
            if mesh:
                place = (
                    adapter_sharding(mesh, path, side, x.shape)
                    if adapter
                    else parameter_sharding(mesh, row.axes, x.shape)
                )
            (lora if adapter else merged)[target] = jax.device_put(x, place)
            if not adapter:
                found.add(target)
    try:
        _check_complete(options, config, params, lora, found)
    except InbolError as error:
        raise InbolError(f"{prefix}{error}") from None
    return config, unflatten_dict(lora, sep="/"), unflatten_dict(merged, sep="/")


def _check_complete(
    peft: Mapping[str, Any],
    config: LoraConfig,
    params: Mapping[str, Any],
    lora: Mapping[str, Any],
    found: set[str],
) -> None:
    """Raises InbolError where an adapter lacks what its configuration names, or holds what that does not.

    Args:
      lora: arrays by path.
      found: parameters that it holds whole.
    """
    if not lora:
        raise InbolError("holds no lora_A or lora_B")
    for path in lora:
        pair = path[:-1] + ("b" if path.endswith("a") else "a")
        if pair not in lora or lora[path[:-1] + "a"].shape[1] != lora[path[:-1] + "b"].shape[0]:
            raise InbolError(f"lora_A and lora_B of {path[:-2]} do not fit together")
    partial = [path for path in target_modules(params, config) if f"{path}/a" not in lora]
    if partial and not (peft.get("layers_to_transform") or peft.get("exclude_modules")):
        raise InbolError(
            f"the adapter of {module_name(partial[0] + '/kernel')} is missing: {CONFIG} names it as a target"
        )
    whole = set(trainable_params(params, config))
    if absent := sorted(whole - found):
        raise InbolError(f"{absent[0]} is missing: {CONFIG} says that it was trained whole")
    if unnamed := sorted(found - whole):
        raise InbolError(
            f"holds {unnamed[0]} whole, which is not among modules_to_save of {CONFIG}"
        )


def base_of(folder: Path) -> str:
    """Path or hub id of the base model that an adapter names. A relative path may start from the adapter's own folder.

    Raises:
      InbolError: when it names none.
    """
    name = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InbolError(
            f"{folder / CONFIG}: base_model_name_or_path is missing; load the base model, and this folder as its adapter"
        )
    beside = folder / name
    return str(beside) if beside.is_dir() and not Path(name).is_dir() else name


def _read_config(folder: Path) -> tuple[LoraConfig, dict[str, Any]]:
    """The options of an adapter as ours, and as its file has them."""
    file = folder / CONFIG
    if not file.is_file():
        raise InbolError(f"{folder} is not an adapter folder: {CONFIG} is missing")
    peft = read_json(file)
    if peft.get("peft_type") != "LORA":
        raise InbolError(
            f"{file}: peft_type = {peft.get('peft_type')!r} is not supported (supported: 'LORA')"
        )
    for name, value in peft.items():
        if value not in _ALLOWED[name] if name in _ALLOWED else value and name not in _HARMLESS:
            raise InbolError(f"{file}: {name} = {value!r} is not supported")

    def names(value: Any) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(sorted(value or ()))

    try:
        config = LoraConfig(
            rank=peft["r"],
            alpha=float(peft["lora_alpha"]),
            dropout=float(peft.get("lora_dropout") or 0.0),
            targets=names(peft["target_modules"]),
            rslora=bool(peft.get("use_rslora")),
            trainable=names(peft.get("modules_to_save")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InbolError(f"{file}: not a LoRA configuration ({error!r})") from error
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error
    return config, peft


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
      base: path or hub id of the base model, for PEFT.
    """
    params, lora = (flatten_dict(dict(variables[name]), sep="/") for name in ("params", "lora"))
    tensors = {}
    for path, x in lora.items():
        module, _, side = path.rpartition("/")
        tensors[f"{_ROOT}{module_name(f'{module}/kernel')}.lora_{side.upper()}.weight"] = (
            np.ascontiguousarray(to_host(x).T)
        )
    whole = trainable_params(params, config)
    for path in whole:
        row = table_row(path)
        tensors[f"{_ROOT}{module_name(path)}.{row.theirs.rpartition('.')[2]}"] = (
            np.ascontiguousarray(row.save(to_host(params[path])))
        )
    if not is_main():
        return
    ranks = {
        module_name(path[:-1] + "kernel"): x.shape[1]
        for path, x in lora.items()
        if path.endswith("/a")
    }
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": base,
            "inference_mode": True,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.rslora,
            "target_modules": sorted(ranks),
            "modules_to_save": sorted({module_name(path) for path in whole}) or None,
            "rank_pattern": {
                re.escape(name): rank for name, rank in ranks.items() if rank != config.rank
            },
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        },
    )
    with atomically(folder / WEIGHTS) as file:
        write_tensors(tensors, file, {"format": "pt", _BASE: base_fingerprint})
