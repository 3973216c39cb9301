"""Low-rank adapters: which modules have one, how they start, how they are merged. Source: Hu et al. 2021 (arXiv 2106.09685).

Adapters live in a variable collection of their own, `lora`: {module path: {"a": f[in, rank], "b": f[rank, out]}}. A model applied without
it is the base model, so that the reference of DPO needs no second copy of the weights.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding

from inbol_jax.errors import InbolError
from inbol_jax.models.weights import module_name, table_row
from inbol_jax.sharding import parameter_sharding


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Options of the adapters.

    Attributes:
      rank: of the update.
      alpha: its scale times the rank (with rslora: times the square root of the rank).
      dropout: share of the adapters' inputs that training sets to zero.
      targets: modules that get an adapter: names, or regular expressions, of a module's whole Hugging Face name or of what follows one of
        its dots. By default every dense layer of the decoder.
      rslora: scale by alpha / sqrt(rank), as Kalajdzievski 2023 (arXiv 2312.03732).
      trainable: modules that are trained whole beside the adapters, named likewise, with all that is below them.
    """

    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (r"language_model\..*_proj",)
    rslora: bool = False
    trainable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1 or not self.targets:
            raise InbolError(
                f"adapters need a rank of at least 1, a dropout from 0 to less than 1 and targets, not {self}"
            )
        for pattern in (*self.targets, *self.trainable):
            try:
                re.compile(pattern)
            except re.error as error:
                raise InbolError(
                    f"{pattern!r} is neither a module's name nor a regular expression ({error})"
                ) from error

    def scale(self, rank: int) -> float:
        """What the product of an adapter of that rank is multiplied with."""
        return self.alpha / (rank**0.5 if self.rslora else rank)


def _matches(name: str, patterns: tuple[str, ...], below: str = "") -> bool:
    return any(re.fullmatch(rf"(.*\.)?({pattern}){below}", name) for pattern in patterns)


def target_modules(params: Mapping[str, Any], config: LoraConfig) -> list[str]:
    """Paths of the modules that get an adapter, in order.

    Raises:
      InbolError: for a target that no dense layer answers to.
    """
    dense = [
        path.removesuffix("/kernel")
        for path in flatten_dict(dict(params), sep="/")
        if path.endswith("/kernel")
    ]
    for pattern in config.targets:
        if not any(_matches(module_name(f"{path}/kernel"), (pattern,)) for path in dense):
            raise InbolError(
                f"LoRA target {pattern!r} fits no dense layer of the model, for instance {module_name(dense[-1] + '/kernel')}"
            )
    whole = set(trainable_params(params, config))
    return sorted(
        path
        for path in dense
        if _matches(module_name(f"{path}/kernel"), config.targets) and f"{path}/kernel" not in whole
    )


def trainable_params(params: Mapping[str, Any], config: LoraConfig) -> list[str]:
    """Paths of the parameters of `config.trainable`, in order.

    Raises:
      InbolError: for a module that the model does not have.
    """
    names = {path: module_name(path) for path in flatten_dict(dict(params), sep="/")}
    for pattern in config.trainable:
        if not any(_matches(name, (pattern,), r"(\..*)?") for name in names.values()):
            raise InbolError(f"trainable module {pattern!r} is not in the model")
    return sorted(
        path for path, name in names.items() if _matches(name, config.trainable, r"(\..*)?")
    )


def init_lora(
    params: Mapping[str, Any], config: LoraConfig, key: jax.Array, mesh: Mesh | None = None
) -> dict[str, Any]:
    """New adapters: `a` uniform in +-1 / sqrt(in) as PEFT draws it, `b` zero, so that they change nothing yet. f32 leaves.

    Args:
      params: arrays or shapes.
      mesh: where the adapters go.
    """
    flat = flatten_dict(dict(params), sep="/")
    lora = {}
    for path in target_modules(params, config):
        size, out = flat[f"{path}/kernel"].shape
        own = jax.random.fold_in(
            key, zlib.crc32(path.encode())
        )  # one target more or less changes no other's start
        lora[f"{path}/a"] = jax.random.uniform(
            own, (size, config.rank), jnp.float32, -(size**-0.5), size**-0.5
        )
        lora[f"{path}/b"] = jnp.zeros((config.rank, out), jnp.float32)
    if mesh:
        lora = {
            path: jax.device_put(x, adapter_sharding(mesh, f"{path[:-1]}kernel", path[-1], x.shape))
            for path, x in lora.items()
        }
    return unflatten_dict(lora, sep="/")


def adapter_sharding(mesh: Mesh, kernel: str, side: str, shape: Sequence[int]) -> NamedSharding:
    """Where `a` or `b` of the dense layer with that kernel lies: split as the kernel is, on the side that they share."""
    into, out = table_row(kernel).axes
    return parameter_sharding(mesh, (into, "rank") if side == "a" else ("rank", out), shape)


def merge_lora(
    params: Mapping[str, Any], lora: Mapping[str, Any], config: LoraConfig
) -> dict[str, Any]:
    """Parameters with the adapters added to the kernels: in float32, then rounded to the kernel's dtype."""
    merged = flatten_dict(dict(params), sep="/")
    adapters = flatten_dict(dict(lora), sep="/")
    for path in {path.rpartition("/")[0] for path in adapters}:
        a, b, kernel = adapters[f"{path}/a"], adapters[f"{path}/b"], merged[f"{path}/kernel"]
        merged[f"{path}/kernel"] = _merged(kernel, a, b, config.scale(a.shape[1]))
    return unflatten_dict(merged, sep="/")


@jax.jit
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    update = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
    return (kernel.astype(jnp.float32) + scale * update).astype(kernel.dtype)
