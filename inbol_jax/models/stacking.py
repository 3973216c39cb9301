"""A decoder's layers as one: each parameter of all layers stacked in one array, as `Decoder` scans
them. One layer is compiled in place of all."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.layers import STACKED


def stack_layers(variables: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The variables with each parameter of the decoder's layers as one, [layers, ...], which lies
    on a mesh as they did. They are arrays or shapes with places.

    Raises InbolError if the layers are not alike: their windows differ, or some have no adapters.
    """
    result = {}
    for collection, tree in variables.items():
        decoder = dict(tree.get(config.decoder, {}))
        layers = [decoder.pop(f"layers_{i}", {}) for i in range(config.text.num_layers)]
        kinds = {*map(jax.tree.structure, layers)}
        if len(kinds) > 1 or len({*config.text.windows}) > 1:
            raise InbolError("--scan-layers: the model's layers are not alike; drop the option")
        decoder[STACKED] = jax.tree.map(_stack, *layers)
        result[collection] = {**tree, config.decoder: decoder}
    return result


def _stack(*parts: Any) -> Any:
    first, place = parts[0], getattr(parts[0], "sharding", None)
    if isinstance(place, NamedSharding):
        place = NamedSharding(place.mesh, PartitionSpec(None, *place.spec))
    if isinstance(first, jax.ShapeDtypeStruct):
        return first.update(shape=(len(parts), *first.shape), sharding=place)
    return jax.jit(lambda *parts: jnp.stack(parts), out_shardings=place)(*parts)


def unstack_layers(variables: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """What `stack_layers` stacked, layer by layer again; any other variables as they are."""
    result = dict(variables)
    for collection, tree in variables.items():
        decoder = dict(tree.get(config.decoder, {}))
        if stacked := decoder.pop(STACKED, {}):
            for i in range(config.text.num_layers):
                decoder[f"layers_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
            result[collection] = {**tree, config.decoder: decoder}
    return result
