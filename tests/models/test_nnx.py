"""Models are made with Linen; `flax.nnx.bridge.ToNNX` makes a module of NNX of any of them."""

import jax
import numpy as np
from flax import nnx
from torch_reference import make_batch


def test_a_model_as_a_module_of_nnx_gives_the_same_logits(micro):
    tokens = micro.config.num_image_tokens
    batch = make_batch(micro.config, [tokens + 3, tokens + 6])
    # As one program: op by op takes ten times as long.
    module = nnx.jit(lambda: nnx.bridge.ToNNX(micro.model, rngs=nnx.Rngs(0)).lazy_init(batch))()
    graph, random = nnx.split(module)
    logits = jax.jit(lambda state, batch: nnx.merge(graph, state)(batch))
    ours = jax.jit(micro.model.apply)(micro.variables, batch)
    assert not np.allclose(logits(random, batch), ours)
    state = nnx.clone(random)
    nnx.replace_by_pure_dict(state, micro.variables["params"])
    assert np.array_equal(logits(state, batch), ours)
