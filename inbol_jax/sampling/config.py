"""Options of sampling."""

import dataclasses
from typing import Annotated

from inbol_jax.defaults import NEW_TOKENS, Bounded, Bounds, NumNewTokens, NumSamples


@dataclasses.dataclass(frozen=True)
class SamplingOptions(Bounded):
    """How responses are drawn.

    The truncations are made in transformers' order: top-k, then top-p of what is left.
    """

    n: NumSamples = dataclasses.field(default=10, kw_only=True)
    """Responses per question."""
    temperature: Annotated[float, Bounds(0)] = 1.0
    """Divides the logits before a token is drawn; 0 is greedy decoding."""
    top_p: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """Tokens are drawn from the smallest set whose total probability is at least this; 1 keeps all
    tokens."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """A response that has not ended by itself is cut after this number of tokens."""
    top_k: Annotated[int, Bounds(0)] = 0
    """Tokens are drawn from this number of the most probable ones; 0 keeps all tokens."""
