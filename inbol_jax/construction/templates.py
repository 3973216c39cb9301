"""The refusals that a model is taught: predefined templates in several phrasings.

The caption of the paper's Figure 5 speaks of a predefined refusal template and does not give it: this list is our own.
"""

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

from inbol_jax.errors import InbolError

# At most six words each: the embedded model learns these with a closed word vocabulary.
SHORT_REFUSALS: tuple[str, ...] = (
    "I don't know.",
    "I am not sure about this.",
    "Sorry, I cannot answer that.",
    "The image does not show that.",
)

# With the reason: what the model does not know, and what the image does not show.
_UNKNOWN_TO_THE_MODEL: tuple[str, ...] = (
    "I am not sure what the answer is, so I would rather not guess.",
    "I do not know enough about this subject to give a reliable answer.",
    "This is beyond what I know, so I cannot give an answer that you could rely on.",
)
_NOT_IN_THE_IMAGE: tuple[str, ...] = (
    "I'm sorry, but the image does not contain the information needed to answer this question.",
    "I cannot tell from this image, because the relevant part is not visible.",
    "There is not enough information in the image to answer this question.",
    "This question asks about something that is not in the image, so I cannot answer it.",
)

LONG_REFUSALS: tuple[str, ...] = (
    "I don't know the answer to this question.",
    *_UNKNOWN_TO_THE_MODEL,
    *_NOT_IN_THE_IMAGE,
)
REFUSALS: tuple[str, ...] = (*SHORT_REFUSALS, *LONG_REFUSALS)

# Name -> refusals for what the model does not know, and for Type 3. "reason" alone tells these apart.
TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "one": (REFUSALS[:1], REFUSALS[:1]),
    "short": (SHORT_REFUSALS, SHORT_REFUSALS),
    "long": (LONG_REFUSALS, LONG_REFUSALS),
    "reason": (_UNKNOWN_TO_THE_MODEL, _NOT_IN_THE_IMAGE),
    "all": (REFUSALS, REFUSALS),
}


@dataclasses.dataclass(frozen=True)
class RefusalMix:
    """Which refusals are taught, and how much of each set.

    Attributes:
      parts: name in `TEMPLATES` and share of each set.

    Raises:
      InbolError: where a name is not known or there twice, or the shares are not above 0 or do not add up to 1.
    """

    parts: tuple[tuple[str, float], ...] = (("one", 1.0),)

    def __post_init__(self) -> None:
        for name, _ in self.parts:
            if name not in TEMPLATES:
                raise InbolError(
                    f"--templates or --refusal-mix {name!r}: choose one of {', '.join(TEMPLATES)}"
                )
        shares = [share for _, share in self.parts]
        if (
            len(dict(self.parts)) < len(self.parts)
            or not all(share > 0 for share in shares)
            or abs(sum(shares) - 1) > 1e-6
        ):
            raise InbolError(
                "--refusal-mix: each set once, with a share above 0, and the shares must add up to 1"
            )

    def pick(self, key: str, question_type: int | None) -> str:
        """The refusal for a question: the same key gets the same one, whatever the order of construction.

        Args:
          key: what identifies the question; a seed may be part of it.
          question_type: 3 where the image lacks the answer.
        """
        names = [name for name, _ in self.parts]
        if len(names) > 1:
            edges = list(itertools.accumulate(share for _, share in self.parts))[:-1]
            names = [names[bisect.bisect_right(edges, _hash(f"{key}:set") / 2**64)]]
        return pick_refusal(key, TEMPLATES[names[0]][question_type == 3])


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
    return templates[_hash(key) % len(templates)]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
