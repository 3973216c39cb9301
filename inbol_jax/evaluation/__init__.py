"""Predictions of several models on the same questions, the metrics of the user's view, and the report."""
