"""Datasets of questions about images, read from disk."""
