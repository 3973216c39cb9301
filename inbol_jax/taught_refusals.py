"""The refusals that a model is taught, in several phrasings, and which of them for which question.

The caption of the paper's Figure 5 mentions a predefined refusal template without giving it; this
list is our own.
"""

from inbol_jax.artifacts import hash64
from inbol_jax.errors import InbolError

# These have at most six words each. Their words are in the vocabulary of the embedded model.
SHORT_REFUSALS = (
    "I don't know.",
    "I am not sure about this.",
    "Sorry, I cannot answer that.",
    "The image does not show that.",
)

# These give the reason: the model does not know, or the image does not show.
UNKNOWN_TO_THE_MODEL = (
    "I am not sure what the answer is, so I would rather not guess.",
    "I do not know enough about this subject to give a reliable answer.",
    "This is beyond what I know, so I cannot give an answer that you could rely on.",
)
NOT_IN_THE_IMAGE = (
    "I'm sorry, but the image does not contain the information needed to answer this question.",
    "I cannot tell from this image, because the relevant part is not visible.",
    "There is not enough information in the image to answer this question.",
    "This question asks about something that is not in the image, so I cannot answer it.",
)

LONG_REFUSALS = (
    "I don't know the answer to this question.",
    *UNKNOWN_TO_THE_MODEL,
    *NOT_IN_THE_IMAGE,
)
REFUSALS = (*SHORT_REFUSALS, *LONG_REFUSALS)

# Name -> refusals for what the model does not know, and for Type 3. They differ in "reason" only.
TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "one": (REFUSALS[:1], REFUSALS[:1]),
    "short": (SHORT_REFUSALS, SHORT_REFUSALS),
    "long": (LONG_REFUSALS, LONG_REFUSALS),
    "reason": (UNKNOWN_TO_THE_MODEL, NOT_IN_THE_IMAGE),
    "all": (REFUSALS, REFUSALS),
}


def refusals_of(templates: str) -> tuple[str, ...]:
    """All refusals of a set, each once. Raises InbolError if none is called so."""
    if templates not in TEMPLATES:
        raise InbolError(f"--templates {templates!r}: choose one of {', '.join(TEMPLATES)}")
    unknown, not_in_the_image = TEMPLATES[templates]
    return tuple(dict.fromkeys(unknown + not_in_the_image))


def pick_refusal(templates: str, key: str, type: int | None, *, pictured: bool = True) -> str:
    """The refusal of a set for a question.

    Args:
      key: what identifies the question, perhaps with a seed; its hash alone chooses.
      type: of the question, 3 if the image lacks the answer.
      pictured: whether the question has an image; if not, the refusal speaks of none.
    """
    refusals = TEMPLATES[templates][pictured and type == 3]
    refusals = [refusal for refusal in refusals if pictured or "image" not in refusal]
    return refusals[hash64(key) % len(refusals)]
