"""Answers of models. They are kept on disk as they come, so that a run that was stopped goes on
without asking anything twice."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import AppendOnlyLines, fingerprint
from inbol_jax.data.images import ImageHashes
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.models.loading import Checkpoint
from inbol_jax.progress import say
from inbol_jax.prompts import DEFAULT
from inbol_jax.records import VQAExample
from inbol_jax.responses.chat import ChatQuestion
from inbol_jax.responses.endpoint import Endpoint
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate

Answers = dict[str, list[Reply]]


class AnswerStore(AppendOnlyLines):
    """A file of lines {"key", "replies": [[text, log-probability], ...]}. All of them are in
    memory, in about 300 bytes per question.

    Raises:
      InbolError: if the file cannot be used, another run is writing it, or a whole line is no line
        of answers.
    """

    def __init__(self, file: Path):
        super().__init__(file)
        self.answers: Answers = {}
        with contextlib.ExitStack() as stack:
            stack.push(self)
            for number, row in self.rows():
                try:
                    replies = [Reply(str(text), float(logprob)) for text, logprob in row["replies"]]
                    self.answers[row["key"]] = replies
                except (ValueError, KeyError, TypeError) as error:
                    raise InbolError(
                        f"{file}:{number}: not a line of answers ({error!r}); delete the file"
                    ) from error
            stack.pop_all()

    def add(self, answers: Answers) -> None:
        """Adds answers and waits until they are on the disk."""
        self.answers |= answers
        self.append({"key": key, "replies": replies} for key, replies in answers.items())


Sampling = Mapping[str, Any]
Tell = Callable[[object], None]
Ask = Callable[[Sequence[VQAExample], str, Sampling, Tell], Iterator[Answers]]


class StoredAnswers:
    """An `Answerer` that asks only what its store does not hold yet.

    Args:
      settings: called with the sampling options; what an answer depends on beside question and
        image.
      ask: called with questions, label, sampling options and a function that is to be told each
        failure. Yields answers by the questions' ids as they come.
    """

    def __init__(self, store: AnswerStore, settings: Callable[[Sampling], list[Any]], ask: Ask):
        self._store, self._settings, self._ask, self._told = store, settings, ask, False
        self._hashes = ImageHashes(Path("/"))

    def __call__(
        self, questions: Sequence[ImageQuestion], *, label: str, **sampling: Any
    ) -> list[list[Reply]]:
        def tell(failure: object) -> None:
            if not self._told:  # the caller counts the others
                say(
                    f"{label}: could not ask a question ({failure}); others that cannot be asked "
                    "are counted"
                )
            self._told = True

        settings, known = self._settings(sampling), self._store.answers
        files = [q.image if isinstance(q.image, Path) else q.drawn_from for q in questions]
        names = [file and str(file.resolve()) for file in files]
        hashes = self._hashes.of(filter(None, names))
        keys = [
            fingerprint([*settings, q.question, q.options, q.name, name and hashes[name]])
            for q, name in zip(questions, names, strict=True)
        ]
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in known}
        with tempfile.TemporaryDirectory() as folder:
            examples = []
            for key, question in new.items():
                image = question.image
                if not isinstance(image, Path):
                    drawn, image = image(), Path(folder) / f"{key}.png"
                    drawn.save(image, compress_level=1)
                paths, options = (str(image.resolve()),), question.options
                examples.append(VQAExample(key, paths, question.question, options=options))
            for answers in self._ask(examples, label, sampling, tell) if new else ():
                self._store.add(answers)
        return [known.get(key, []) for key in keys]


def model_answers(
    checkpoint: Checkpoint, store: AnswerStore, *, seed: int, batch_size: int, shown: bool = True
) -> StoredAnswers:
    """Answers of a checkpoint, asked as its `prompt` says. Its samples depend on seed, question and
    image, and not on what is asked at the same time.

    Args:
      shown: whether to show progress; False if the caller shows its own.
    """
    dtype = checkpoint.model.dtype.name
    settings = {"model": checkpoint.fingerprint, "dtype": dtype, "seed": seed}
    settings |= (checkpoint.prompt or DEFAULT).to_json()

    def ask(
        examples: Sequence[VQAExample], label: str, sampling: Sampling, tell: Tell
    ) -> Iterator[Answers]:
        batches = generate(
            checkpoint,
            examples,
            Path("/"),  # the images' paths are absolute
            options=SamplingOptions(**sampling),
            seed=seed,
            batch_size=batch_size,
            label=label if shown else None,
            set_aside=lambda example, reason: tell(reason),
        )
        for batch in batches:
            yield {e.id: [Reply(g.text, round(g.logprob, 5)) for g in given] for e, given in batch}

    return StoredAnswers(store, lambda sampling: [settings, sampling], ask)


def endpoint_answers(endpoint: Endpoint, store: AnswerStore) -> StoredAnswers:
    """Answers of an OpenAI-compatible endpoint, one per question. The endpoint's own options say
    temperature and length."""

    def ask(
        examples: Sequence[VQAExample], label: str, sampling: Sampling, tell: Tell
    ) -> Iterator[Answers]:
        async def reply_to(example: VQAExample) -> str:
            return await endpoint.ask(ChatQuestion(example.question, (Path(example.image),)))

        for batch in endpoint.map(reply_to, examples):
            for example, reply in batch:
                if isinstance(reply, str):
                    yield {example.id: [Reply(reply)]}
                else:
                    tell(reply)

    return StoredAnswers(store, lambda sampling: [endpoint.settings()], ask)
