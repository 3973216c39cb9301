"""Answers of models, kept on disk as they come: a run that was stopped goes on without asking anything twice."""

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from inbol_jax.artifacts import fingerprint, json_line
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import Asked, Reply
from inbol_jax.models.loading import Checkpoint
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.endpoint import ChatQuestion, Endpoint
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate


class AnswerStore:
    """Lines {"key", "replies": [[text, log-probability], ...]}, appended; the torn last line of a killed run is cut. One run at a time.

    In memory it holds every answer: some 300 bytes a question that was asked.

    Raises:
      InbolError: when the file cannot be used, another run is writing it, or a whole line is not one of ours.
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
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lines.seek(0)
            self._lines.truncate(self._read())
        except BaseException as error:
            self._lines.close()
            if isinstance(error, OSError):
                raise InbolError(
                    f"{file} is being written by another run; wait for its end, or choose another --out"
                ) from error
            raise

    def _read(self) -> int:
        """Takes in every whole line. Returns where the last one ends."""
        end = 0
        for number, line in enumerate(self._lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                self._replies[row["key"]] = [
                    Reply(str(text), float(logprob)) for text, logprob in row["replies"]
                ]
            except (ValueError, KeyError, TypeError) as error:
                raise InbolError(
                    f"{self._lines.name}:{number}: not a line of answers ({error!r}); delete the file"
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
        """The answers under a key; none where there are none."""
        return self._replies.get(key, [])

    def add(self, found: Mapping[str, list[Reply]]) -> None:
        """Adds answers and waits until they are on the disk."""
        self._replies |= found
        for key, replies in found.items():
            self._lines.write(
                json_line({"key": key, "replies": replies}).encode("utf-8", "replace")
            )
        self._lines.flush()
        os.fsync(self._lines.fileno())


class ModelAnswers:
    """`Asks` by a checkpoint of ours: samples depend on seed, question and image, not on what is asked beside them.

    Args:
      shown: whether to show progress; False where the caller shows its own.
    """

    def __init__(
        self,
        loaded: Checkpoint,
        store: AnswerStore,
        *,
        seed: int,
        batch_size: int,
        shown: bool = True,
    ):
        self._shown, self._told = shown, False
        self._loaded, self._store, self._seed, self._batch_size = loaded, store, seed, batch_size
        self._settings = {
            "model": loaded.fingerprint,
            "dtype": loaded.model.dtype.name,
            "seed": seed,
        }  # what the answers depend on

    def __call__(
        self, asked: Sequence[Asked], *, n: int, temperature: float, max_new_tokens: int, label: str
    ) -> list[list[Reply]]:
        sampling = {"n": n, "temperature": temperature, "max_new_tokens": max_new_tokens}
        keys = [fingerprint([self._settings, sampling, a.question, a.name]) for a in asked]
        new = {key: a for key, a in zip(keys, asked, strict=True) if key not in self._store}
        failed: list[str] = []
        if new:
            with tempfile.TemporaryDirectory() as folder:
                examples = [
                    VQAExample(key, str(_file(a, Path(folder) / f"{key}.png")), a.question)
                    for key, a in new.items()
                ]
                for batch in generate(
                    self._loaded,
                    examples,
                    Path("/"),  # the images' paths are absolute
                    options=SamplingOptions(**sampling),
                    seed=self._seed,
                    batch_size=self._batch_size,
                    label=label if self._shown else None,
                    set_aside=lambda example, reason: failed.append(reason),
                ):
                    self._store.add(
                        {
                            e.id: [Reply(g.text, round(g.logprob, 5)) for g in generations]
                            for e, generations in batch
                        }
                    )
        self._told = _tell(label, failed, self._told)
        return [self._store.get(key) for key in keys]


class EndpointAnswers:
    """`Asks` by an OpenAI-compatible endpoint; its own options say temperature and length, one answer comes back whatever n."""

    def __init__(self, endpoint: Endpoint, store: AnswerStore):
        self._endpoint, self._store, self._told = endpoint, store, False

    def __call__(
        self, asked: Sequence[Asked], *, n: int, temperature: float, max_new_tokens: int, label: str
    ) -> list[list[Reply]]:
        keys = [fingerprint([self._endpoint.settings(), a.question, a.name]) for a in asked]
        new = {key: a for key, a in zip(keys, asked, strict=True) if key not in self._store}
        failed: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            questions = (
                ChatQuestion(a.question, _file(a, Path(folder) / f"{key}.png"))
                for key, a in new.items()
            )
            for key, reply in zip(new, self._endpoint.ask_many(questions), strict=True):
                if isinstance(reply, str):
                    self._store.add({key: [Reply(reply)]})
                else:
                    failed.append(str(reply))
        self._told = _tell(label, failed, self._told)
        return [self._store.get(key) for key in keys]


def _file(asked: Asked, temporary: Path) -> Path:
    """The image's file, drawn where it is to be."""
    if isinstance(asked.image, Path):
        return asked.image.resolve()
    asked.image().save(temporary, "PNG", compress_level=1)
    return temporary


def _tell(label: str, failed: Sequence[str], told: bool) -> bool:
    """Says the first cause of a run; how many there are in all is for the caller to count. Returns whether one has been told."""
    if failed and not told:
        say(
            f"{label}: could not ask a question ({failed[0]}); others that cannot be asked are counted"
        )
    return told or bool(failed)
