"""The refusals that a model is taught: predefined templates in several phrasings.

The caption of the paper's Figure 5 speaks of a predefined refusal template and does not give it: this list is our own.
"""

import hashlib
from collections.abc import Sequence

# At most six words each: the embedded model learns these with a closed word vocabulary.
SHORT_REFUSALS: tuple[str, ...] = (
    "I don't know.",
    "I am not sure about this.",
    "Sorry, I cannot answer that.",
    "The image does not show that.",
)

REFUSALS: tuple[str, ...] = (
    *SHORT_REFUSALS,
    "I don't know the answer to this question.",
    "I am not sure what the answer is, so I would rather not guess.",
    "I do not know enough about this subject to give a reliable answer.",
    "This is beyond what I know, so I cannot give an answer that you could rely on.",
    "I'm sorry, but the image does not contain the information needed to answer this question.",
    "I cannot tell from this image, because the relevant part is not visible.",
    "There is not enough information in the image to answer this question.",
    "This question asks about something that is not in the image, so I cannot answer it.",
)


def pick_refusal(key: str, templates: Sequence[str] = REFUSALS) -> str:
    """A template chosen by the SHA-256 of `key`: the same key gets the same one, whatever the order of construction.

    Args:
      key: what identifies the question, such as its id; a seed may be part of it.
      templates: at least one.

    Raises:
      ValueError: where there are no templates.
    """
    if not templates:
        raise ValueError("no refusal templates to pick from")
    return templates[int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(templates)]
