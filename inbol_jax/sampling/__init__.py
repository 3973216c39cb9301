"""The vectorised sampler: prefill a question once, fork it into n continuations, decode them together."""
