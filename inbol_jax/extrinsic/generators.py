"""Type 3 questions for any VQA dataset: generators propose, filters dispose, and each is counted.

Our own design: the paper's generation is not public. Two generators so far:
  unseeable   an attribute that no picture shows, of something that this picture does show ("How much does the star cost?")
  mismatched  a question that was asked of another image, about something that this one does not contain
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from inbol_jax.extrinsic.templates import UNSEEABLE
from inbol_jax.records import VQAExample


class Proposal(NamedTuple):
    """A question that its generator takes to be beyond the image. `subject`: what it presumes of the image."""

    question: str
    generator: str
    subject: str


# "What color is the STAR?": the thing that a question presumes. Questions of number and existence presume nothing.
_BEHIND = "have|has|do|does|is|are|in|on|at|of|with|look|like|made|smell|taste|make|say|cost|sound|feel|mean|show"
_SUBJECT = re.compile(rf"\bthe ([a-z][a-z' -]*?)(?= (?:{_BEHIND})\b|[?.,]|$)", re.IGNORECASE)
_ANSWERED_BY_ABSENCE = re.compile(r"^(?:how many|how much|is|are|was|were|do|does|did|can|could|has|have|what number)\b", re.IGNORECASE)
_WORD = re.compile(r"[a-z']+")


def words(text: str) -> set[str]:
    """The words of a text, lower case."""
    return set(_WORD.findall(text.lower()))


def subject(question: str) -> str | None:
    """The noun phrase that a question presumes to be in the image, lower case; None where there is none."""
    found = _SUBJECT.search(question)
    return found.group(1).lower() if found else None


class ImageFacts:
    """What is known of each image: its `objects` column where the dataset has one, and its own questions and answers.

    A phrase is taken to be absent when one of its words names something in other images and nothing in this one.
    """

    def __init__(self, examples: Sequence[VQAExample]):
        self._words: dict[str, set[str]] = {}
        self._annotated = all("objects" in e.extra for e in examples)
        for example in examples:
            known = self._words.setdefault(example.image, set())
            if self._annotated:
                known |= words(" ".join(map(str, example.extra["objects"])))
            else:
                known |= words(example.question) | words(" ".join(example.answers))
        self._vocabulary = Counter(word for known in self._words.values() for word in known)

    def absent(self, image: str, phrase: str) -> bool:
        """Whether the image lacks the thing; without an `objects` column this is a guess, from what was asked about it."""
        return any(self._vocabulary[word] and word not in self._words[image] for word in words(phrase))

    def present(self, image: str, phrase: str) -> bool:
        return words(phrase) <= self._words[image]


def unseeable(example: VQAExample, pool: Sequence[VQAExample], facts: ImageFacts, rng: np.random.Generator) -> Iterator[Proposal]:
    """Asks about the subject of the example's own question, or of another question about the same image's objects."""
    nouns = [s for s in (subject(example.question), *(str(o).lower() for o in example.extra.get("objects", ()))) if s]
    nouns = [n.split()[-1] for n in nouns if facts.present(example.image, n)]
    if nouns:
        template = list(UNSEEABLE)[rng.integers(len(UNSEEABLE))]
        noun = nouns[rng.integers(len(nouns))]
        yield Proposal(UNSEEABLE[template].format(noun=noun), "unseeable", noun)


def mismatched(example: VQAExample, pool: Sequence[VQAExample], facts: ImageFacts, rng: np.random.Generator) -> Iterator[Proposal]:
    """Borrows a question of another image; a few tries, for many subjects are in both."""
    for _ in range(20):
        other = pool[int(rng.integers(len(pool)))]
        presumed = subject(other.question)
        if presumed and other.image != example.image and not _ANSWERED_BY_ABSENCE.match(other.question):
            yield Proposal(other.question, "mismatched", presumed)


GENERATORS = {"unseeable": unseeable, "mismatched": mismatched}


def reject(proposal: Proposal, example: VQAExample, facts: ImageFacts, asked: Mapping[str, set[str]]) -> str | None:
    """The name of the first filter that rejects the proposal, None where it passes.

    present      what the question presumes is in the image after all
    duplicate    the same question about the same image exists, in the dataset or among the generated ones
    ill_formed   not a question of at least three words
    """
    if len(proposal.question.split()) < 3 or not proposal.question.rstrip().endswith("?"):
        return "ill_formed"
    if proposal.generator == "mismatched" and not facts.absent(example.image, proposal.subject):
        return "present"
    if proposal.question.strip().lower() in asked[example.image]:
        return "duplicate"
    return None


def propose(examples: Sequence[VQAExample], n: int, seed: int, counts: Counter) -> Iterator[dict[str, Any]]:
    """Up to n rows of Type 3 questions, alternating between the generators over images in random order.

    Args:
      counts: counts proposals by (generator, "kept" or the filter that rejected it).
    """
    facts = ImageFacts(examples)
    asked: dict[str, set[str]] = {}
    for example in examples:
        asked.setdefault(example.image, set()).add(example.question.strip().lower())
    rng = np.random.default_rng(seed)
    names = list(GENERATORS)
    made = 0
    for turn, index in enumerate(rng.permutation(len(examples))):
        if made == n:
            return
        example = examples[index]
        for proposal in GENERATORS[names[turn % len(names)]](example, examples, facts, rng):
            reason = reject(proposal, example, facts, asked)
            counts[proposal.generator, reason or "kept"] += 1
            if reason is None:
                asked[example.image].add(proposal.question.strip().lower())
                made += 1
                yield VQAExample(
                    f"{example.id}-{proposal.generator}",
                    example.image,
                    proposal.question,
                    (),
                    False,
                    {"kind": proposal.generator, "generator": proposal.generator, "filters": ["ill_formed", "present", "duplicate"]},
                ).to_json()
                break
