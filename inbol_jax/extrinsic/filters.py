"""The filters of generated (Type 3) questions: functions that say why they reject a question.

`FILTERS` lists them in the order in which they are applied. Each rejection is counted under the
filter's name.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import Context, Proposal, asked_key
from inbol_jax.extrinsic.grammar import fault
from inbol_jax.records import VQAExample
from inbol_jax.responses.vqa_accuracy import answer_key

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


def ill_formed(candidate: Candidate, context: Context) -> str | None:
    """Rejects a question of fewer than three words or more than 300 characters, without a question
    mark at its end, with line breaks or control characters, or with what a template left behind
    ("{noun}", "<image>", "Answer:")."""
    question = candidate.proposal.question
    if len(question.split()) < 3:
        return "fewer than three words"
    if not question.rstrip().endswith("?"):
        return "no question mark at its end"
    if len(question) > 300:
        return "longer than 300 characters"
    match = _LEFT_BEHIND.search(question)
    return f"holds {match[0]!r}" if match else None


def ungrammatical(candidate: Candidate, context: Context) -> str | None:
    """Rejects a text that is not one well-formed question in English: of several sentences, without
    a question word or a verb, with a word twice, or with an article that no noun can follow. A
    dataset in another language is not judged."""
    return fault(candidate.proposal.question) if context.in_english else None


def present(candidate: Candidate, context: Context) -> str | None:
    """Rejects a question of `mismatched` if the thing that the image is to lack is in it, or may
    be."""
    proposal = candidate.proposal
    if not proposal.absent or context.contents.absent(candidate.example.image, proposal.subject):
        return None
    return f"{proposal.subject!r} may be in the image"


def answer_present(candidate: Candidate, context: Context) -> str | None:
    """Rejects a question if what answers it elsewhere is among this image's annotations.

    Questions with an image of their own pass, because the annotations of the image before its
    evidence was removed hold the answer by construction. So do the answers yes and no, and numbers.
    """
    answer = candidate.proposal.answer
    spared = not any(map(str.isalpha, answer)) or answer_key(answer) in ("yes", "no")
    if candidate.proposal.image is not None or spared:
        return None
    if not context.contents.present(candidate.example.image, answer):
        return None
    return f"{answer!r} is among the image's annotations"


def duplicate(candidate: Candidate, context: Context) -> str | None:
    """Rejects a question that the dataset asks about the same image, or that was kept before;
    case, punctuation and spaces aside. It comes last, and remembers what passes."""
    key = asked_key(candidate.image, candidate.proposal.question)
    if key in context.asked:
        return "asked already"
    context.asked.add(key)
    return None


class Filter(NamedTuple):
    """A filter that judges questions one by one.

    Attributes:
      reject: the reason in words, or None if the question passes.
      with_objects: whether it is on by default also if each image's objects are listed. It is then
        a fact that a thing is missing, and what the other filters would reject are good questions.
    """

    reject: Callable[[Candidate, Context], str | None]
    with_objects: bool = False


# In the order in which they are applied.
FILTERS: dict[str, Filter] = {
    "ill_formed": Filter(ill_formed, with_objects=True),
    "ungrammatical": Filter(ungrammatical),
    "present": Filter(present, with_objects=True),
    "answer_present": Filter(answer_present),
    "duplicate": Filter(duplicate, with_objects=True),
}


def get_filters(names: Iterable[str], *, lists_objects: bool) -> dict[str, Filter]:
    """The filters of these names, in the order in which they are applied.

    Args:
      names: none stand for the default ones.
      lists_objects: whether the dataset lists each image's objects.

    Raises:
      InbolError: if there is no filter of a name.
    """
    names = [*names]
    for name in names:
        if name not in FILTERS:
            choices = ", ".join(FILTERS)
            raise InbolError(f"--filters {name}: there is no such filter; choose among {choices}")
    if not names:
        names = [name for name, made in FILTERS.items() if made.with_objects >= lists_objects]
    return {name: made for name, made in FILTERS.items() if name in names}
