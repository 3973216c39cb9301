"""Confidence: how often sampled responses match the gold answers."""
