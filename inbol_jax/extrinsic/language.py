"""In which language a question is written, by the model of py3langid (Lui & Baldwin 2012)."""

import functools
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from inbol_jax.extrinsic.config import LANGUAGES

# The least probability of a language. A wrong guess costs a good question, so the unsure ones pass.
LEAST_PROBABILITY = 0.6


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def language(text: str) -> str | None:
    """One of `LANGUAGES`; None if none of them is probable enough."""
    name, probability = _identifier().classify(text)
    return str(name) if probability >= LEAST_PROBABILITY else None


def usual_language(texts: Iterable[str]) -> str | None:
    """The language of most of the first thousand texts; None if no text has one."""
    counts = Counter(language(text) for text in islice(texts, 1000))
    del counts[None]
    return counts.most_common(1)[0][0] if counts else None
