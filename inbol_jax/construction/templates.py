"""Which of the refusals in `taught_refusals` a model is taught for which question."""

import bisect
import dataclasses
import itertools

from inbol_jax.artifacts import hash64
from inbol_jax.errors import InbolError
from inbol_jax.taught_refusals import (
    LONG_REFUSALS,
    NOT_IN_THE_IMAGE,
    REFUSALS,
    SHORT_REFUSALS,
    UNKNOWN_TO_THE_MODEL,
)

# Name -> refusals for what the model does not know, and for Type 3. They differ in "reason" only.
TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "one": (REFUSALS[:1], REFUSALS[:1]),
    "short": (SHORT_REFUSALS, SHORT_REFUSALS),
    "long": (LONG_REFUSALS, LONG_REFUSALS),
    "reason": (UNKNOWN_TO_THE_MODEL, NOT_IN_THE_IMAGE),
    "all": (REFUSALS, REFUSALS),
}


def refusals_of(name: str) -> tuple[str, ...]:
    """All refusals of a set, each once. Raises InbolError if none is called so."""
    if name not in TEMPLATES:
        raise InbolError(f"--templates {name!r}: choose one of {', '.join(TEMPLATES)}")
    unknown, not_in_the_image = TEMPLATES[name]
    return tuple(dict.fromkeys(unknown + not_in_the_image))


@dataclasses.dataclass(frozen=True)
class RefusalMix:
    """Which sets of refusals are taught.

    Attributes:
      parts: name in `TEMPLATES` and share of each set.

    Raises:
      InbolError: if a name is not known or there twice, or the shares are not above 0 or do not add
        up to 1.
    """

    parts: tuple[tuple[str, float], ...] = (("one", 1.0),)

    def __post_init__(self) -> None:
        for name, _ in self.parts:
            if name not in TEMPLATES:
                choices = ", ".join(TEMPLATES)
                raise InbolError(f"--templates or --refusal-mix {name!r}: choose one of {choices}")
        shares = [share for _, share in self.parts]
        repeated = len(dict(self.parts)) < len(self.parts)
        if repeated or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise InbolError(
                "--refusal-mix: each set once, with a share above 0; the shares must add up to 1"
            )

    def pick(self, key: str, question_type: int | None, *, pictured: bool = True) -> str:
        """The refusal for a question: hashes of the key alone choose the set and the template.

        Args:
          key: what identifies the question; a seed may be part of it.
          question_type: 3 if the image lacks the answer.
          pictured: whether the question has an image; if not, the refusal speaks of none.
        """
        # The set is the one in whose interval of [0, 1) the hash lies.
        ends = list(itertools.accumulate(share for _, share in self.parts))
        name, _ = self.parts[bisect.bisect_right(ends[:-1], hash64(f"{key}:set") / 2**64)]
        refusals = TEMPLATES[name][pictured and question_type == 3]
        refusals = [refusal for refusal in refusals if pictured or "image" not in refusal]
        return refusals[hash64(key) % len(refusals)]
