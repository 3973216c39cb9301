"""What the objectives of all training stages share: their type, and a packed batch's
log-probabilities.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from inbol_jax.losses import token_logprobs
from inbol_jax.models.llava import Llava

Batch = Mapping[str, jax.Array]
Variables = Mapping[str, Any]
# name -> (sum, weight). The sums are divided once, when those of all devices and steps are in.
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# (variables, variables of an online reference or None, batch, dropout key or None) -> metrics.
# The metric "loss" is what is minimised.
Objective = Callable[[Variables, Variables | None, Batch, jax.Array | None], Metrics]

# Target positions per row whose logits exist at a time: 16 MiB per row for 32 thousand words. VQA
# answers are shorter, so they are not chunked.
CHUNK = 128


def target_logprobs(
    model: Llava,
    variables: Variables,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    chunk: int | None = CHUNK,
) -> jax.Array:
    """Log-probabilities of a packed batch's targets, f32[b, a]. Logits exist only at the targets.

    Args:
      key: key of the adapters' dropout; None for no dropout.
      chunk: positions per row whose logits exist at a time.
    """
    rngs = {} if key is None else {"dropout": key}
    hidden = model.apply(variables, batch, method=Llava.hidden, rngs=rngs)  # [b, t, d]
    hidden = jnp.take_along_axis(hidden, batch["target_index"][..., None], axis=1)  # [b, a, d]
    head = model.apply(variables, method=Llava.head)
    return token_logprobs(hidden, head, batch["targets"], chunk=chunk)


def token_counts(batch: Batch) -> Metrics:
    """Tokens per row, and the share of the batch that is padding.

    Rows that only fill up the batch count as padding.
    """
    rows = batch["valid"].astype(jnp.float32)
    tokens = jnp.sum((batch["segments"] >= 0).sum(1) * rows)
    size = jnp.float32(batch["segments"].size)
    return {"tokens": (tokens, rows.sum()), "padding": (size - tokens, size)}
