"""Filters of generated questions: each says why it rejects one, and all that it rejects is counted under its name.

They come in the order of `FILTERS`, those that need a model last. A filter is a class with a name and one method; `Memory` is for
filters that compare a question with those before it.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.facts import ImageFacts, hash_texts
from inbol_jax.extrinsic.generators import Asked, Asks, Proposal
from inbol_jax.extrinsic.language import language, usual_language
from inbol_jax.extrinsic.minhash import NearDuplicates
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, answer_key, score
from inbol_jax.responses.refusal import is_refusal


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A proposal with the example that it was made from."""

    example: VQAExample
    proposal: Proposal

    @property
    def image(self) -> str:
        return self.proposal.image or self.example.image

    @property
    def id(self) -> str:
        return f"{self.example.id}-{self.proposal.generator}"


class Filter(Protocol):
    """Rejects questions. `name` is for `--filters`, in the records and in the trail."""

    name: str

    def reject(self, candidate: Candidate) -> str | None:
        """The reason in words, None where it passes."""


class Memory(Filter, Protocol):
    """A filter that compares with what has passed all filters before."""

    def remember(self, candidate: Candidate) -> None:
        """Takes note of a question that was kept."""


class BatchFilter(Protocol):
    """Rejects questions many at a time: a model is asked."""

    name: str

    def reject_many(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """A reason or None for each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """What filters are made from.

    Attributes:
      pool, facts, root: as in `generators.Context`.
      language: that questions must be in; "auto" for that of most of the pool's.
      near_duplicate: least similarity of two questions about one image that are one too many.
      leaks: `Leaks` of the evaluation splits; None without any.
      model: of `--model`; None without.
      samples: answers of the model to a question.
      agreement: share of them that must be the same for the question to count as answered.
    """

    pool: Sequence[VQAExample]
    facts: ImageFacts
    root: Path
    language: str = "auto"
    near_duplicate: float = 0.8
    leaks: "Leaks | None" = None
    model: Asks | None = None
    samples: int = 5
    agreement: float = 0.8


class IllFormed:
    """Not a question of three words or more that ends in a question mark; or longer than 300 characters, on several lines, with
    characters of control or replacement, or with what a template or a model left behind ("{noun}", "<image>", "Answer:")."""

    name = "ill_formed"
    _left_behind = re.compile(
        r"[{}\x00-\x1f\x7f-\x9f\ufffd]|<\|?[a-z_]+\|?>|\b(?:answer|question|user|assistant)\s*:",
        re.IGNORECASE,
    )

    def reject(self, candidate: Candidate) -> str | None:
        question = candidate.proposal.question
        if len(question.split()) < 3:
            return "fewer than three words"
        if not question.rstrip().endswith("?"):
            return "no question mark at its end"
        if len(question) > 300:
            return "longer than 300 characters"
        found = self._left_behind.search(question)
        return f"holds {found[0]!r}" if found else None


class WrongLanguage:
    """In another language than the dataset's questions, as far as script and function words tell (`language.py`)."""

    name = "language"

    def __init__(self, wanted: str | None):
        self._wanted = wanted

    def reject(self, candidate: Candidate) -> str | None:
        found = language(candidate.proposal.question)
        return (
            None
            if None in (found, self._wanted) or found == self._wanted
            else f"{found}, not {self._wanted}"
        )


class Present:
    """What the question takes to be missing is in the image, or may be; asked of `mismatched` and `false_premise`."""

    name = "present"

    def __init__(self, facts: ImageFacts):
        self._facts = facts

    def reject(self, candidate: Candidate) -> str | None:
        p = candidate.proposal
        return (
            f"{p.subject!r} may be in the image"
            if p.absent and not self._facts.absent(candidate.example.image, p.subject)
            else None
        )


class AnswerPresent:
    """What the question is answered with elsewhere is among this image's annotations. Not asked where the evidence was removed: there the
    example's own annotations hold the answer by construction; nor of yes and no."""

    name = "answer_present"

    def __init__(self, facts: ImageFacts):
        self._facts = facts

    def reject(self, candidate: Candidate) -> str | None:
        answer = candidate.proposal.answer
        if (
            candidate.proposal.image is not None
            or not answer
            or answer_key(answer) in ("yes", "no")
        ):
            return None
        known = any(c.isalpha() for c in answer) and self._facts.present(
            candidate.example.image, answer
        )
        return f"{answer!r} is among the image's annotations" if known else None


class Duplicate:
    """The same question about the same image is in the dataset or was kept before; case aside. Memory: some 80 bytes a question."""

    name = "duplicate"

    def __init__(self, examples: Iterable[VQAExample]):
        self._asked = {self._key(e.image, e.question) for e in examples}

    @staticmethod
    def _key(image: str, question: str) -> int:
        return hash_texts(image, question.strip().lower())

    def reject(self, candidate: Candidate) -> str | None:
        return (
            "asked already"
            if self._key(candidate.image, candidate.proposal.question) in self._asked
            else None
        )

    def remember(self, candidate: Candidate) -> None:
        self._asked.add(self._key(candidate.image, candidate.proposal.question))


class NearDuplicate:
    """Nearly the same question about the same image is in the dataset or was kept before (MinHash, `minhash.py`)."""

    name = "near_duplicate"

    def __init__(self, examples: Iterable[VQAExample], threshold: float):
        self._threshold = threshold
        self._texts = NearDuplicates()
        for example in examples:
            self._texts.add(example.image, example.question)

    def reject(self, candidate: Candidate) -> str | None:
        found = self._texts.similarity(candidate.image, candidate.proposal.question)
        return (
            f"similarity {found:.2f} to another question about the image"
            if found >= self._threshold
            else None
        )

    def remember(self, candidate: Candidate) -> None:
        self._texts.add(candidate.image, candidate.proposal.question)


class Leaks:
    """Questions with their images of evaluation splits: by the question's text (case, punctuation and spaces aside) and the image's pixels.
    The same picture in another file is found, one that was scaled or compressed anew is not. Memory: some 150 bytes a question.

    Attributes:
      unreadable: images of the splits that could not be decoded: with them nothing can be compared.
    """

    def __init__(self) -> None:
        self.unreadable = 0
        self._texts: set[int] = set()
        self._pairs: set[int] = set()

    def add(
        self,
        examples: Iterable[VQAExample],
        root: Path,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """Takes in a split; each of its images is read once where its questions come together. `advance` is called for each question."""
        image, digest = "", None
        for example in examples:
            if example.image != image:
                image, digest = example.image, _digest(root / example.image)
                self.unreadable += digest is None
            if digest is not None:
                text = self._text(example.question)
                self._texts.add(hash_texts(text))
                self._pairs.add(hash_texts(text, digest))
            advance()

    def __contains__(self, asked: tuple[str, Path]) -> bool:
        question, image = asked
        text = self._text(question)
        if (
            hash_texts(text) not in self._texts
        ):  # most are not, and their images need not be decoded
            return False
        digest = _digest(image)
        return digest is not None and hash_texts(text, digest) in self._pairs

    @staticmethod
    def _text(question: str) -> str:
        return " ".join(re.findall(r"\w+", question.lower()))


def _digest(image: Path) -> str | None:
    try:
        return pixel_hash(load_image(image)).hex()
    except ImageError:
        return None


class Leaked:
    """The same question about the same picture is in an evaluation split that `--against` names."""

    name = "leaked"

    def __init__(self, leaks: Leaks, root: Path):
        self._leaks, self._root = leaks, root

    def reject(self, candidate: Candidate) -> str | None:
        leaked = (candidate.proposal.question, self._root / candidate.image) in self._leaks
        return "in an evaluation split" if leaked else None


def settled(replies: Sequence[str], answer: str, agreement: float) -> str | None:
    """What the replies agree on, None where they do not: the known answer in at least half of them, or any one answer in `agreement`."""
    given = [reply for reply in replies if not is_refusal(reply)]
    if (
        answer
        and 2 * sum(score(reply, [answer]) >= CORRECT_AT for reply in given) >= len(replies) > 0
    ):
        return answer
    keys = [answer_key(reply) for reply in given]
    most = max(given, key=lambda reply: keys.count(answer_key(reply)), default=None)
    return (
        most
        if most is not None and keys.count(answer_key(most)) >= agreement * len(replies)
        else None
    )


class Answered:
    """The model answers it the same way each time: it would be answerable, as far as this model can tell. With `blank` the model sees a
    grey image in place of the question's own: what it answers the same way then, it answers from the text alone."""

    def __init__(
        self, name: str, model: Asks, root: Path, samples: int, agreement: float, *, blank: bool
    ):
        self.name, self._blank = name, blank
        self._model, self._root, self._samples, self._agreement = model, root, samples, agreement

    def reject_many(self, candidates: Sequence[Candidate]) -> list[str | None]:
        asked = [
            Asked(c.proposal.question, blank_image, "blank")
            if self._blank
            else Asked(c.proposal.question, self._root / c.image, c.image)
            for c in candidates
        ]
        label = "asking without image" if self._blank else "asking with image"
        replies = self._model(
            asked, n=self._samples, temperature=1.0, max_new_tokens=12, label=label
        )
        found: list[str | None] = []
        for candidate, texts in zip(candidates, replies, strict=True):
            answer = settled(
                [reply.text for reply in texts], candidate.proposal.answer, self._agreement
            )
            without = " without the image" if self._blank else ""
            found.append(
                "could not be asked"
                if not texts
                else None
                if answer is None
                else f"answered {answer!r}{without}"
            )
        return found


def blank_image() -> Image.Image:
    """A grey image, as good as none for models that cannot do without."""
    return Image.new("RGB", (64, 64), (127, 127, 127))


# In the order in which they are applied.
FILTERS: dict[str, Callable[[Sources], Filter | BatchFilter]] = {
    "ill_formed": lambda s: IllFormed(),
    "language": lambda s: WrongLanguage(
        usual_language(e.question for e in s.pool) if s.language == "auto" else s.language
    ),
    "present": lambda s: Present(s.facts),
    "answer_present": lambda s: AnswerPresent(s.facts),
    "duplicate": lambda s: Duplicate(s.pool),
    "near_duplicate": lambda s: NearDuplicate(s.pool, s.near_duplicate),
    "leaked": lambda s: Leaked(_given(s.leaks, "leaked", "--against"), s.root),
    "text_only": lambda s: Answered(
        "text_only",
        _given(s.model, "text_only", "--model"),
        s.root,
        s.samples,
        s.agreement,
        blank=True,
    ),
    "answered": lambda s: Answered(
        "answered",
        _given(s.model, "answered", "--model"),
        s.root,
        s.samples,
        s.agreement,
        blank=False,
    ),
}
NEED_MODEL = ("text_only", "answered")


def _given(value: Any, name: str, option: str) -> Any:
    if value is None:
        raise InbolError(f"--filters {name}: needs {option}")
    return value


def get_filters(names: Sequence[str], sources: Sources) -> list[Filter | BatchFilter]:
    """The filters of these names, in the order of `FILTERS`.

    Raises:
      InbolError: where there is none of a name, or it lacks what it needs.
    """
    check_filters(names)
    return [make(sources) for name, make in FILTERS.items() if name in names]


def check_filters(names: Iterable[str]) -> None:
    """Raises InbolError where there is no filter of a name."""
    for name in names:
        if name not in FILTERS:
            raise InbolError(
                f"--filters {name}: there is no such filter; choose among {', '.join(FILTERS)}"
            )
