"""The filters of generated (Type 3) questions: functions that say whether they reject one.

`FILTERS` lists them in the order in which they are applied. Each rejection is counted under the
filter's name.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from inbol_jax.extrinsic.generators import Context, Proposal, asked_key
from inbol_jax.records import VQAExample

# What a template left behind, and control characters.
_LEFT_BEHIND = re.compile(
    r"[{}\x00-\x1f\x7f-\x9f\ufffd]|<\|?[a-z_]+\|?>|\b(?:answer|question|user|assistant)\s*:",
    re.IGNORECASE,
)


class Candidate(NamedTuple):
    """A proposal with the example that it was made from."""

    example: VQAExample
    proposal: Proposal

    @property
    def image(self) -> str:
        return self.proposal.image or self.example.image

    @property
    def id(self) -> str:
        return f"{self.example.id}-{self.proposal.generator}"


def ill_formed(candidate: Candidate, context: Context) -> bool:
    """Rejects a question of fewer than three words or more than 300 characters, without a question
    mark at its end, with line breaks or control characters, or with what a template left behind
    ("{noun}", "<image>", "Answer:")."""
    question = candidate.proposal.question
    if question == candidate.example.question:  # what the dataset asks is well-formed enough
        return False
    has_form = question.rstrip().endswith("?") and len(question.split()) >= 3
    return not has_form or len(question) > 300 or _LEFT_BEHIND.search(question) is not None


def present(candidate: Candidate, context: Context) -> bool:
    """Rejects a question of `mismatched` if the thing that the image is to lack is in it, or may
    be."""
    proposal = candidate.proposal
    image = candidate.example.image
    return proposal.absent and not context.contents.absent(image, proposal.subject)


def duplicate(candidate: Candidate, context: Context) -> bool:
    """Rejects a question that the dataset asks about the same image, or that was kept before;
    case, punctuation and spaces aside. It comes last, and remembers what passes."""
    key = asked_key(candidate.image, candidate.proposal.question)
    if key in context.asked:
        return True
    context.asked.add(key)
    return False


Filter = Callable[[Candidate, Context], bool]

# In the order in which they are applied.
FILTERS: dict[str, Filter] = {
    filter.__name__: filter for filter in (ill_formed, present, duplicate)
}
