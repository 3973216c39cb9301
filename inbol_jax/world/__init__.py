"""The embedded VQA world: scenes, questions, splits, and the tiny checkpoint pre-trained on it."""
