"""`inbol confidence`: fill a store, or try prompts."""

from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.confidence.try_prompts import try_prompts
from inbol_jax.sampling.engine_protocol import Engine


def confidence(config: ConfidenceConfig, engine: Engine) -> None:
    """Does what the options say, with the errors of `estimate` or `try_prompts`."""
    if config.try_prompts:
        try_prompts(config, engine)
    else:
        estimate(config, engine)
