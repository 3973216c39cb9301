"""Answers of models. They are kept on disk as they come, so that a run that was stopped goes on
without asking anything twice."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import AppendOnlyLines, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.models.loading import Checkpoint
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.endpoint import ChatQuestion, Endpoint
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


class StoredAnswers:
    """An `Answerer` that asks what its store does not hold yet, in a way of its subclass."""

    def __init__(self, store: AnswerStore):
        self._store, self._told = store, False

    def __call__(
        self, questions: Sequence[ImageQuestion], *, label: str, **sampling: Any
    ) -> list[list[Reply]]:
        settings, known = self._settings(sampling), self._store.answers
        keys = [fingerprint([*settings, q.question, q.name]) for q in questions]
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in known}
        with tempfile.TemporaryDirectory() as folder:
            examples = []
            for key, question in new.items():
                image = question.image
                if not isinstance(image, Path):
                    drawn, image = image(), Path(folder) / f"{key}.png"
                    drawn.save(image, compress_level=1)
                examples.append(VQAExample(key, str(image.resolve()), question.question))
            for answers in self._ask(examples, label, sampling) if new else ():
                self._store.add(answers)
        return [known.get(key, []) for key in keys]

    def _settings(self, sampling: Mapping[str, Any]) -> list[Any]:
        """What an answer depends on beside question and image."""
        raise NotImplementedError

    def _ask(
        self, examples: Sequence[VQAExample], label: str, sampling: Mapping[str, Any]
    ) -> Iterator[Answers]:
        """Yields answers by the examples' ids as they come."""
        raise NotImplementedError

    def _tell(self, label: str, failure: object) -> None:
        """Says the first failure of a run, as the caller counts them."""
        if not self._told:
            say(
                f"{label}: could not ask a question ({failure}); others that cannot be asked are "
                "counted"
            )
        self._told = True


class ModelAnswers(StoredAnswers):
    """Answers of a checkpoint. Its samples depend on seed, question and image, and not on what is
    asked at the same time.

    Args:
      shown: whether to show progress; False if the caller shows its own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        store: AnswerStore,
        *,
        seed: int,
        batch_size: int,
        shown: bool = True,
    ):
        super().__init__(store)
        self._checkpoint, self._seed = checkpoint, seed
        self._batch_size, self._shown = batch_size, shown

    def _settings(self, sampling: Mapping[str, Any]) -> list[Any]:
        dtype = self._checkpoint.model.dtype.name
        model = {"model": self._checkpoint.fingerprint, "dtype": dtype, "seed": self._seed}
        return [model, sampling]

    def _ask(
        self, examples: Sequence[VQAExample], label: str, sampling: Mapping[str, Any]
    ) -> Iterator[Answers]:
        batches = generate(
            self._checkpoint,
            examples,
            Path("/"),  # the images' paths are absolute
            options=SamplingOptions(**sampling),
            seed=self._seed,
            batch_size=self._batch_size,
            label=label if self._shown else None,
            set_aside=lambda example, reason: self._tell(label, reason),
        )
        for batch in batches:
            yield {e.id: [Reply(g.text, round(g.logprob, 5)) for g in given] for e, given in batch}


class EndpointAnswers(StoredAnswers):
    """Answers of an OpenAI-compatible endpoint, one per question. The endpoint's own options say
    temperature and length."""

    def __init__(self, endpoint: Endpoint, store: AnswerStore):
        super().__init__(store)
        self._endpoint = endpoint

    def _settings(self, sampling: Mapping[str, Any]) -> list[Any]:
        return [self._endpoint.settings()]

    def _ask(
        self, examples: Sequence[VQAExample], label: str, sampling: Mapping[str, Any]
    ) -> Iterator[Answers]:
        chat = (ChatQuestion(example.question, Path(example.image)) for example in examples)
        for example, reply in zip(examples, self._endpoint.ask_many(chat), strict=True):
            if isinstance(reply, str):
                # Half a surrogate pair cannot be written.
                text = reply.encode("utf-8", "replace").decode()
                yield {example.id: [Reply(text)]}
            else:
                self._tell(label, reply)
