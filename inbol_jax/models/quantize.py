"""The frozen kernels of a decoder in eight or four bits, under adapters that are trained (QLoRA).

Source: Dettmers et al. 2023 (arXiv 2305.14314), whose NF4 has 16 values at the quantiles of a
normal distribution. A quantised kernel is a `qwix.QArray` in the place of its array: values of one
type, and a scale per group of inputs and per output. It exists in memory alone: no file holds one.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig
from inbol_jax.models.lora import trainable_params

GROUP_SIZE = 64
"""Inputs that share a scale, as in the paper; fewer if that does not divide a kernel's inputs."""


def check_installed(kind: str) -> None:
    """Raises InbolError if kernels cannot be quantised here."""
    try:
        import qwix  # noqa: F401
    except ImportError as error:
        raise InbolError(f"--quantize {kind}: qwix is not installed; `pip install qwix`") from error


def quantize_decoder(
    params: Mapping[str, Any], decoder: str, kind: str, lora: LoraConfig
) -> dict[str, Any]:
    """Returns the parameters with the decoder's dense kernels quantised, but for those that are
    trained beside the adapters.

    The memory of a kernel is freed before the next one is quantised.

    Args:
      decoder: name of the decoder among the parameters.
      kind: "int8" or "nf4".
    """
    flat, keep = flatten_dict(params, sep="/"), trainable_params(params, lora)
    for path, kernel in flat.items():
        if path.startswith(f"{decoder}/") and path.endswith("/kernel") and path not in keep:
            flat[path] = _quantize(kernel, kind)
            if not isinstance(kernel, jax.core.Tracer):
                kernel.delete()
    return unflatten_dict(flat, sep="/")


@jax.jit(static_argnames="kind")
def _quantize(kernel: Float[Array, "in out"], kind: str) -> Any:
    import qwix

    # kernel [in, out] -> values [in, out] of 4 or 8 bits, scales [in / 64, out]; 96 inputs: groups
    # of 32. A scale per group bounds what one large weight costs the precision of the others.
    groups = {0: math.gcd(GROUP_SIZE, len(kernel))}
    return qwix.quantize(
        kernel.astype(jnp.float32),
        kind,
        channelwise_axes=(1,),
        tiled_axes=groups,
        scale_dtype=kernel.dtype,
    )
