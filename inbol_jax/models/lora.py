"""Low-rank adapters. Source: Hu et al. 2021 (arXiv 2106.09685).

Adapters live in a variable collection of their own, `lora`:
{module path: {"a": f32[in, rank], "b": f32[rank, out]}}. Without that collection the model is the
base model, so that the reference of DPO needs no second copy of the weights.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding

from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig
from inbol_jax.models.weights import WeightRow, module_name, table_row
from inbol_jax.sharding import parameter_sharding


def _matches(name: str, patterns: Sequence[str], below: str = "") -> bool:
    return any(re.fullmatch(rf"(.*\.)?({pattern}){below}", name) for pattern in patterns)


def target_modules(params: Mapping[str, Any], config: LoraConfig) -> list[str]:
    """Returns the sorted paths of the modules that get an adapter.

    Raises InbolError if a target matches no dense layer.
    """
    kernels = [path for path in flatten_dict(params, sep="/") if path.endswith("/kernel")]
    names = {path: module_name(path) for path in kernels}
    for pattern in config.targets:
        if not any(_matches(name, [pattern]) for name in names.values()):
            raise InbolError(
                f"LoRA target {pattern!r} fits no dense layer of the model, "
                f"for instance {list(names.values())[-1]}"
            )
    # Whole names, or what follows a dot: "q_proj" fits "...self_attn.q_proj", and not "q_proj2".
    targets = {path for path, name in names.items() if _matches(name, config.targets)}
    # A module that is trained whole needs no adapter.
    whole = trainable_params(params, config)
    return sorted(path.removesuffix("/kernel") for path in targets.difference(whole))


def trainable_params(params: Mapping[str, Any], config: LoraConfig) -> list[str]:
    """Returns the sorted paths of the parameters that `config.trainable` names.

    Raises InbolError if the model does not have such a module.
    """
    names = {path: module_name(path) for path in flatten_dict(params, sep="/")}
    below = r"(\..*)?"
    for pattern in config.trainable:
        if not any(_matches(name, [pattern], below) for name in names.values()):
            raise InbolError(f"trainable module {pattern!r} is not in the model")
    return sorted(path for path, name in names.items() if _matches(name, config.trainable, below))


def init_lora(
    params: Mapping[str, Any], config: LoraConfig, key: jax.Array, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Returns new adapters, which change nothing yet: `a` is uniform as PEFT draws it, `b` is zero.

    Args:
      params: arrays or shapes.
      mesh: devices that the adapters are split over.
    Raises:
      InbolError: if the rank is greater than the smaller side of a matrix, or as `target_modules`.
    """
    flat = flatten_dict(params, sep="/")
    lora = {}
    for path in target_modules(params, config):
        # kernel [in, out] + scale * a [in, rank] @ b [rank, out]
        size, out = flat[f"{path}/kernel"].shape
        if config.rank > min(size, out):
            raise InbolError(
                f"a rank of {config.rank} is more than {module_name(f'{path}/kernel')} can have, "
                f"which is a matrix of {size} x {out}; choose at most {min(size, out)}"
            )
        # PEFT's kaiming_uniform(sqrt(5)) is uniform within 1 / sqrt(in). With b = 0, a b is 0.
        # Keyed by the path: one target more or less does not change how the others start.
        module_key, bound = jax.random.fold_in(key, zlib.crc32(path.encode())), size**-0.5
        a = jax.random.uniform(module_key, (size, config.rank), jnp.float32, -bound, bound)
        lora |= {f"{path}/a": a, f"{path}/b": jnp.zeros((config.rank, out), jnp.float32)}
    if mesh:
        for path, x in lora.items():
            lora[path] = jax.device_put(x, adapter_sharding(mesh, path, x.shape))
    return unflatten_dict(lora, sep="/")


def adapter_row(path: str) -> WeightRow:
    """Returns the row of the weight table for `a` or `b`, made from the row of their kernel."""
    module, _, side = path.rpartition("/")
    # The kernel's axes (in, out) give a the axes (in, rank) and b (rank, out).
    key, _, (into, out), order = table_row(f"{module}/kernel")
    key = f"{key.removesuffix('.weight')}.lora_{side.upper()}.weight"
    return WeightRow(key, path, (into, "rank") if side == "a" else ("rank", out), order)


def adapter_sharding(mesh: Mesh, path: str, shape: Sequence[int]) -> NamedSharding:
    """Returns the sharding of `a` or `b`; the axis shared with the kernel is split alike."""
    return parameter_sharding(mesh, adapter_row(path).axes, shape)


def merge_lora(
    params: Mapping[str, Any], lora: Mapping[str, Any], config: LoraConfig
) -> dict[str, Any]:
    """Returns the parameters with the adapters added to the kernels."""
    merged, adapters = flatten_dict(params, sep="/"), flatten_dict(lora, sep="/")
    for path, a in adapters.items():
        if path.endswith("/a"):
            module, scale = path.removesuffix("a"), config.scale(a.shape[1])
            kernel, b = merged[f"{module}kernel"], adapters[f"{module}b"]
            merged[f"{module}kernel"] = _merged(kernel, a, b, scale)
    return unflatten_dict(merged, sep="/")


@jax.jit
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    # [in, rank] @ [rank, out], added in float32 and rounded once to the kernel's dtype
    update = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
    return (kernel.astype(jnp.float32) + scale * update).astype(kernel.dtype)
