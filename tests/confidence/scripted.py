"""An engine without a model: what it says follows from the question."""

import zlib

from inbol_jax.answers import Generation
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.prompts import BARE
from inbol_jax.sampling.config import SamplingOptions


class Scripted:
    """Counts what it is asked; `share` says which of how many processes it is."""

    def __init__(self, index=0, count=1):
        self.options, self.asked, self.judged = SamplingOptions(n=2), [], []
        self._share = index, count

    def settings(self):
        return {"model": "scripted"}

    def share(self):
        return self._share

    def choose_prompt(self, options, data):
        return BARE

    def generate(self, examples, images, *, prompt, label, set_aside):
        for i, example in enumerate(examples):
            self.asked.append(example.id)
            texts = (f"about {example.id}", example.answers[0] if i % 2 and example.answers else "")
            yield [(example, [Generation(text, -1.0 - len(text), 2) for text in texts])]

    def p_true(self, questions, images, *, prompt, total, label, set_aside):
        for example, text in questions:
            self.judged.append(example.id)
            yield [(example, zlib.crc32(text.encode()) % 1000 / 1000)]


def run(data, out, engine=None, **options):
    """Fills a store, with P(True). Returns the engine."""
    engine = engine or Scripted()
    options = {"p_true": True, "sampling": engine.options} | options
    estimate(ConfidenceConfig(data, out, **options), engine)
    return engine
