"""What a model said to the questions of a dataset, judged against gold answers as it is read."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from inbol_jax.answers import AnswerStore, Asker, Generation, ImageHashes, Row, from_row, to_row
from inbol_jax.artifacts import check_name, file_fingerprint, meta_path, read_meta
from inbol_jax.confidence.confidence import proposed_answer
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.prompts import Prompt
from inbol_jax.questions import Probability
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.outcome import outcome

PLACES = ("data", "images")  # settings that say where the questions are, which no answer depends on
# Kadavath et al. 2022 (arXiv 2207.05221) ask without an image, with choices (A) and (B).
P_TRUE_PROMPT = (
    "{question}\nProposed answer: {answer}\n"
    "Is the proposed answer true or false? Answer with True or False."
)


def store_file(out: Path, name: str) -> Path:
    """The file with the samples of the dataset NAME, beside which its header is.

    Raises:
      InbolError: if the name cannot be that of a file.
    """
    check_name(name, "dataset")
    return out / "confidence" / f"{name}.jsonl"


def stores_in(folder: Path) -> list[Path]:
    """The stores of `inbol confidence` in a folder. What several processes wrote is one store, and
    stores of other commands, such as the answers to test questions, are none."""
    # Of several processes the first may have asked nothing: the header alone is always there.
    headers = folder.glob(meta_path(Path("*.jsonl")).name)
    files = sorted(header.with_name(header.name.removesuffix(".meta.json")) for header in headers)
    return [file for file in files if read_meta(file).get("command") == "confidence"]


def store_settings(file: Path) -> dict[str, Any]:
    """The settings of a store, which its header has; an InbolError if it has not."""
    settings = read_meta(file).get("settings", {})
    kinds = [("n", int), *((name, str) for name in (*PLACES, "model", "prompt", "system"))]
    if not all(isinstance(settings.get(name), kind) for name, kind in kinds):
        raise InbolError(
            f"{meta_path(file)}: not the header of a store of confidences; delete it, and give "
            "`inbol confidence` again"
        )
    return settings


def p_true_file(file: Path) -> Path:
    """Where the P(True) lines of a store are: the proposed answer, and how probable the model holds
    it that this is true."""
    return file.parent / "p_true" / file.name


def judged(example: VQAExample, said: Iterable[tuple[Generation, int]]) -> SampledQuestion:
    """The question with its samples, each distinct response judged once."""
    samples: list[Sample] = []
    for (text, logprob, tokens, cut), count in said:
        samples += [Sample(text, logprob, tokens, outcome(example, text), cut)] * count
    return SampledQuestion(example, tuple(samples))


def sampled_question(example: VQAExample, generations: Sequence[Generation]) -> SampledQuestion:
    """The question with its samples, as if they had been stored and read."""
    return judged(example, from_row(to_row(generations), len(generations)))


class Proposal(NamedTuple):
    """The answer that a model gave most often to a question, and is asked the truth of."""

    id: str
    key: str
    answer: str

    def row(self, p_true: float | None, **about: str) -> tuple[str, Row]:
        """A line of the store of P(True), by its key."""
        return self.key, {"id": self.id, "proposed": self.answer, "p_true": p_true, **about}


class Samples:
    """The questions of a dataset with n answers of one asker, of one prompt, to each of them.

    Attributes:
      keys: {id: key} of all questions.
      prompt, images: how they are put, and the hashes of their images.
    """

    def __init__(self, examples: Sequence[VQAExample], asker: Asker, store: AnswerStore, n: int):
        self._examples, self._asker, self.store, self._n = examples, asker, store, n
        self.prompt, self.images = asker.prompt, asker.images
        self.keys = asker.keys(examples)
        self._p_true: dict[str, float | None] | None = None

    @classmethod
    def open(cls, file: Path) -> Self:
        """What a store holds, also while it is filled.

        Raises:
          InbolError: if the store or its dataset cannot be read.
        """
        settings = store_settings(file)
        data, images = ((file.parent / settings[name]).resolve() for name in PLACES)
        dataset = load_dataset_folder(data, images=images, max_rejected=1.0)
        asker, store = asker_of(settings, dataset), AnswerStore(file)
        return cls(dataset.examples, asker, store, settings["n"])

    def read_p_true(self) -> None:
        """Reads what the model said of the truth of its answers, if it was asked."""
        store = AnswerStore(p_true_file(self.store.base))
        value = lambda row: msgspec.convert(row["p_true"], Probability)  # noqa: E731
        values = {key: store.read(key, value) for key in store}
        values |= dict.fromkeys(store.set_aside)
        self._p_true = values or None

    def __iter__(self) -> Iterator[SampledQuestion]:
        """The answered questions, in the order of their lines."""
        examples = dict(zip(self.keys.values(), self._examples, strict=True))
        for key in filter(examples.__contains__, self.store):
            said = self.store.read(key, lambda row: from_row(row, self._n))
            question = judged(examples[key], said)
            if self._p_true is not None:
                proposal = self.proposal(question)
                p_true = self._p_true.get(proposal.key) if proposal else 0.0
                question = SampledQuestion(question.example, question.samples, p_true)
            yield question

    def proposal(self, question: SampledQuestion) -> Proposal | None:
        """What the model is asked the truth of; None if it only refused."""
        if (answer := proposed_answer(question)) is None:
            return None
        key = self._asker.key(question.example, self.p_true_text(question.example, answer))
        return Proposal(question.example.id, key, answer)

    def p_true_text(self, example: VQAExample, answer: str) -> str:
        """What the model is asked of an answer that it gave."""
        return P_TRUE_PROMPT.format(question=self.prompt.text(example), answer=answer)

    @property
    def n_set_aside(self) -> int:
        """How many questions could not be asked."""
        return len(self.store.set_aside & {*self.keys.values()})

    @property
    def n_missing(self) -> int:
        """How many questions were not asked yet."""
        return sum(key not in self.store for key in self.keys.values()) - self.n_set_aside


def asker_of(settings: Mapping[str, Any], dataset: VQADataset) -> Asker:
    """The asker of a store's settings."""
    prompt = Prompt(settings["prompt"], settings["system"])
    settings = {name: settings[name] for name in settings if name not in PLACES}
    return Asker(settings, prompt, ImageHashes(dataset.root))


def inputs_fingerprint(files: Sequence[Path]) -> str:
    """Of everything that is built from: the lines of stores, and the questions."""
    read: list[Path] = []
    for file in files:
        read += sorted(file.parent.glob(f"{glob.escape(file.stem)}*.jsonl"))
        read.append(file.parent / store_settings(file)["data"])
    return file_fingerprint(*filter(Path.is_file, read))
