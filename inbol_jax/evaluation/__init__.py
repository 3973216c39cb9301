"""Predictions of several models on the same questions, their metrics, and the pages to read."""
