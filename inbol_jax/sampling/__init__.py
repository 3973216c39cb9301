"""The vectorised sampler: prefill a question once, fork it into n continuations, decode them together."""

from inbol_jax.sampling.sampler import Samples, SamplingOptions, sample

__all__ = ["Samples", "SamplingOptions", "sample"]
