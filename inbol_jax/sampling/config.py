"""Options of sampling."""

import dataclasses
import math

from inbol_jax.defaults import NumNewTokens, NumSamples
from inbol_jax.errors import InbolError


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How responses are drawn.

    The truncations are made in transformers' order: top-k, then top-p of what is left, then min-p.
    """

    n: NumSamples = dataclasses.field(default=10, kw_only=True)
    """Responses per question."""
    temperature: float = 1.0
    """Divides the logits before a token is drawn; 0 is greedy decoding."""
    top_p: float = 1.0
    """Tokens are drawn from the smallest set whose total probability is at least this; 1 keeps all
    tokens."""
    max_new_tokens: NumNewTokens = 12
    """A response that has not ended by itself is cut after this number of tokens."""
    top_k: int = 0
    """Tokens are drawn from this number of the most probable ones; 0 keeps all tokens."""
    min_p: float = 0.0
    """Tokens less probable than this share of the most probable token's probability are not
    drawn."""
    stop_tokens: tuple[int, ...] = ()
    """Ids of tokens that end a response at once, beside the model's own end token. They count as
    tokens of the response, but are not part of its text."""
    stop: tuple[str, ...] = ()
    """Strings at the first of which the finished text of a response is cut."""

    def __post_init__(self) -> None:
        rules = {
            "n": (self.n >= 1, "at least one sample is needed"),
            "temperature": (
                0 <= self.temperature < math.inf,
                "a finite number of at least 0 is needed",
            ),
            "top_p": (0 < self.top_p <= 1, "must be greater than 0 and at most 1"),
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1 is needed"),
            "top_k": (self.top_k >= 0, "at least 1 is needed, or 0 for all tokens"),
            "min_p": (0 <= self.min_p < 1, "must be at least 0 and less than 1"),
            "stop_tokens": (min(self.stop_tokens, default=0) >= 0, "token ids are not negative"),
            "stop": (all(self.stop), "an empty string would stop every response"),
        }
        for name, (is_met, rule) in rules.items():
            if not is_met:
                raise InbolError(f"--{name.replace('_', '-')} {getattr(self, name)}: {rule}")
