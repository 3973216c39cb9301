"""What a model said to the questions of a dataset, judged against gold answers as it is read."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.answers import AnswerStore, Asker, Generation, from_row, to_row
from inbol_jax.artifacts import check_name, file_fingerprint, meta_path, read_meta
from inbol_jax.confidence.estimators import proposed_answer
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import (
    Examples,
    VQADataset,
    load_dataset_folder,
    summarise_rejections,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.outcome import outcome

# Takes a third of the time of `Sample(*columns)`: a million questions have ten million samples.
_make_sample = functools.partial(tuple.__new__, Sample)
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


def p_true_file(file: Path) -> Path:
    """Where the P(True) lines of a store are: the proposed answer, and how probable the model holds
    it that this is true."""
    return file.parent / "p_true" / file.name


def p_true_text(prompt: Prompt, example: VQAExample, answer: str) -> str:
    """What a model is asked of an answer that it gave."""
    return P_TRUE_PROMPT.format(question=prompt.text(example), answer=answer)


def judged(example: VQAExample, said: Iterable[tuple[Generation, int]]) -> SampledQuestion:
    """The question with its samples, each distinct response judged once."""
    samples: list[Sample] = []
    for (text, logprob, tokens, cut), count in said:
        sample = _make_sample((text, logprob, tokens, outcome(example, text), cut))
        samples += [sample] * count
    return SampledQuestion(example, tuple(samples))


def sampled_question(example: VQAExample, generations: Sequence[Generation]) -> SampledQuestion:
    """The question with its samples, as if they had been stored and read."""
    return judged(example, from_row(to_row(generations)))


class Samples:
    """The questions of a dataset with what one asker, of one prompt, said to them.

    Attributes:
      keys: {id: key} of all questions.
      prompt: how they are put.
      p_true: the store with the P(True) of the proposed answers; None if there is none.
    """

    def __init__(
        self,
        examples: Sequence[VQAExample],
        asker: Asker,
        store: AnswerStore,
        p_true: AnswerStore | None = None,
    ):
        self._examples, self._asker, self.prompt = examples, asker, asker.prompt
        self.store, self.p_true = store, p_true
        self.keys = asker.keys(examples)

    @classmethod
    def open(cls, file: Path) -> "Samples":
        """What a store holds, also while it is filled.

        Raises:
          InbolError: if the store or its dataset cannot be read.
        """
        settings = read_meta(file)["settings"]
        data, images = (file.parent / settings[name] for name in PLACES)
        dataset = load_dataset_folder(data, images=images, max_rejected=1.0)
        if dataset.rejected:
            total = len(dataset.examples) + len(dataset.rejected)
            say(f"{data}: {summarise_rejections(dataset.rejected, total)}")
        extra = p_true_file(file)
        p_true = AnswerStore(extra) if extra.is_file() else None
        asker = asker_of(settings, dataset)
        return cls(dataset.examples, asker, AnswerStore(file), p_true)

    def __iter__(self) -> Iterator[SampledQuestion]:
        """The answered questions, in the order in which they were answered."""
        places = {key: i for i, key in enumerate(self.keys.values())}
        answered = [key for key in self.store if key in places]
        examples = taken(self._examples, [places[key] for key in answered])
        for example, key in zip(examples, answered, strict=True):
            question = self._read(example, key)
            if self.p_true is not None:
                question = SampledQuestion(example, question.samples, self.p_true_of(question))
            yield question

    def _read(self, example: VQAExample, key: str) -> SampledQuestion:
        try:
            return judged(example, from_row(self.store[key]))
        except (KeyError, TypeError, ValueError) as error:
            raise InbolError(
                f"{self.store.file}: the line with key {key} holds no samples ({error!r}); delete "
                "that line"
            ) from error

    def find(self, example: VQAExample) -> SampledQuestion | None:
        """What was said to an example of any dataset; None if it was not asked."""
        key = self._asker.key(example)
        return self._read(example, key) if key in self.store else None

    def p_true_of(self, question: SampledQuestion) -> float | None:
        """How probable the model holds it that its proposed answer is true: 0 if it proposed none,
        None if it was not asked."""
        key = self.p_true_key(question)
        if key is None:
            return 0.0
        return (
            self.p_true[key]["p_true"] if self.p_true is not None and key in self.p_true else None
        )

    def p_true_key(self, question: SampledQuestion) -> str | None:
        """The key of the question after the truth of the proposed answer; None without one."""
        answer, example = proposed_answer(question), question.example
        if answer is None:
            return None
        return self._asker.key(example, p_true_text(self.prompt, example, answer))

    def pending(self) -> list[int]:
        """The indices of the questions that have no answer yet, or could not be asked before."""
        return [i for i, key in enumerate(self.keys.values()) if key not in self.store]

    @property
    def n_set_aside(self) -> int:
        """How many questions could not be asked."""
        return sum(map(self.store.is_set_aside, self.keys.values()))

    @property
    def n_p_true_set_aside(self) -> int:
        """How many proposed answers could not be asked about."""
        store = self.p_true
        if store is None:
            return 0
        keys = filter(None, map(self.p_true_key, self))
        return sum(map(store.is_set_aside, keys))

    @property
    def n_missing(self) -> int:
        """How many questions were not asked yet."""
        return len(self.pending()) - self.n_set_aside


def asker_of(settings: Mapping[str, Any], dataset: VQADataset) -> Asker:
    """The asker of a store's settings."""
    prompt = Prompt(settings["prompt"], settings["system"])
    settings = {name: settings[name] for name in settings if name not in PLACES}
    return Asker(settings, prompt, ImageHashes(dataset.root))


def taken(examples: Sequence[VQAExample], indices: Sequence[int]) -> Sequence[VQAExample]:
    """The examples at the indices; those of a dataset stay on the disk."""
    if isinstance(examples, Examples):
        return examples.take(indices)
    return [examples[i] for i in indices]


def inputs_fingerprint(files: Sequence[Path]) -> str:
    """Of everything that is read from stores: lines, questions and P(True)."""
    read: list[Path] = []
    for file in files:
        read += sorted(file.parent.glob(f"{file.stem}*.jsonl"))
        read += [file.parent / read_meta(file)["settings"]["data"], p_true_file(file)]
    return file_fingerprint(*filter(Path.is_file, read))
