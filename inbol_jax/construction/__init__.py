"""Refusals: what the model is taught to say, and how a refusal is told from an answer."""
