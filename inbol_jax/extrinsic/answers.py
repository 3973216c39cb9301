"""Answers of models. They are kept on disk as they come, so that a run that was stopped goes on
without asking anything twice."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from filelock import lock_descriptor

from inbol_jax.artifacts import fingerprint, json_line
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.models.loading import Checkpoint
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.endpoint import ChatQuestion, Endpoint
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate


class AnswerStore:
    """A file of lines {"key", "replies": [[text, log-probability], ...]} that one run at a time
    appends to. The torn last line of a killed run is cut.

    All answers are in memory, in about 300 bytes per question.

    Raises:
      InbolError: if the file cannot be used, another run is writing it, or a whole line is no line
        of answers.
    """

    def __init__(self, file: Path):
        self._replies: dict[str, list[Reply]] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._lines = file.open("a+b")
        except OSError as error:
            raise InbolError(
                f"cannot write {file}: {error.strerror}; choose another --out"
            ) from error
        try:
            if not lock_descriptor(self._lines.fileno(), blocking=False):
                raise InbolError(
                    f"{file} is being written by another run; wait for its end, or choose another "
                    "--out"
                )
            self._lines.seek(0)
            self._lines.truncate(self._read())
        except BaseException:
            self._lines.close()
            raise

    def _read(self) -> int:
        """Takes in every whole line. Returns the offset behind the last one."""
        end = 0
        for number, line in enumerate(self._lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                replies = [Reply(str(text), float(logprob)) for text, logprob in row["replies"]]
                self._replies[row["key"]] = replies
            except (ValueError, KeyError, TypeError) as error:
                raise InbolError(
                    f"{self._lines.name}:{number}: not a line of answers ({error!r}); delete the "
                    "file"
                ) from error
            end += len(line)
        return end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def get(self, key: str) -> list[Reply]:
        """The answers under a key, if there are any."""
        return self._replies.get(key, [])

    def add(self, answers: Mapping[str, list[Reply]]) -> None:
        """Adds answers and waits until they are on the disk."""
        self._replies |= answers
        for key, replies in answers.items():
            line = json_line({"key": key, "replies": replies})
            self._lines.write(line.encode("utf-8", "replace"))
        self._lines.flush()
        os.fsync(self._lines.fileno())


class ModelAnswers:
    """An `Answerer` by a checkpoint. Its samples depend on seed, question and image, and not on
    what is asked at the same time.

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
        self._checkpoint, self._store = checkpoint, store
        self._seed, self._batch_size, self._shown = seed, batch_size, shown
        dtype = checkpoint.model.dtype.name
        self._settings = {"model": checkpoint.fingerprint, "dtype": dtype, "seed": seed}
        self._told = False

    def __call__(
        self,
        questions: Sequence[ImageQuestion],
        *,
        n: int,
        temperature: float,
        max_new_tokens: int,
        label: str,
    ) -> list[list[Reply]]:
        sampling = {"n": n, "temperature": temperature, "max_new_tokens": max_new_tokens}
        keys = [fingerprint([self._settings, sampling, q.question, q.name]) for q in questions]
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in self._store}
        failures: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            examples = [
                VQAExample(key, str(_image_file(q, Path(folder) / f"{key}.png")), q.question)
                for key, q in new.items()
            ]
            batches = generate(
                self._checkpoint,
                examples,
                Path("/"),  # the images' paths are absolute
                options=SamplingOptions(**sampling),
                seed=self._seed,
                batch_size=self._batch_size,
                label=label if self._shown else None,
                set_aside=lambda example, reason: failures.append(reason),
            )
            for batch in batches if new else ():
                answers = {}
                for example, generations in batch:
                    answers[example.id] = [Reply(g.text, round(g.logprob, 5)) for g in generations]
                self._store.add(answers)
        self._told = _tell(label, failures, self._told)
        return [self._store.get(key) for key in keys]


class EndpointAnswers:
    """An `Answerer` by an OpenAI-compatible endpoint, with one answer per question. The endpoint's
    own options say temperature and length."""

    def __init__(self, endpoint: Endpoint, store: AnswerStore):
        self._endpoint, self._store, self._told = endpoint, store, False

    def __call__(
        self, questions: Sequence[ImageQuestion], *, label: str, **sampling: float
    ) -> list[list[Reply]]:
        settings = self._endpoint.settings()
        keys = [fingerprint([settings, q.question, q.name]) for q in questions]
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in self._store}
        failures: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            chat = (
                ChatQuestion(q.question, _image_file(q, Path(folder) / f"{key}.png"))
                for key, q in new.items()
            )
            for key, reply in zip(new, self._endpoint.ask_many(chat), strict=True):
                if isinstance(reply, str):
                    self._store.add({key: [Reply(reply)]})
                else:
                    failures.append(str(reply))
        self._told = _tell(label, failures, self._told)
        return [self._store.get(key) for key in keys]


def _image_file(question: ImageQuestion, temporary: Path) -> Path:
    """The image's file, which is `temporary` if the image has to be drawn."""
    if isinstance(question.image, Path):
        return question.image.resolve()
    question.image().save(temporary, "PNG", compress_level=1)
    return temporary


def _tell(label: str, failures: Sequence[str], told: bool) -> bool:
    """Says the first failure of a run, as the caller counts them. Returns whether one was said."""
    if failures and not told:
        say(
            f"{label}: could not ask a question ({failures[0]}); others that cannot be asked are "
            "counted"
        )
    return told or bool(failures)
