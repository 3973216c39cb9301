"""The vectorised sampler: prefill a question once, decode n continuations of it together."""
