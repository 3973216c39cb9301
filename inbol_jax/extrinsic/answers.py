"""Answers of models to questions about images, some of which are drawn only when they are asked."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.answers import AnswerStore, Asker, Generation, ImageHashes, Row, from_row, to_row
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.models.loading import Checkpoint
from inbol_jax.progress import say
from inbol_jax.prompts import BARE, DEFAULT, Prompt
from inbol_jax.records import VQAExample
from inbol_jax.responses.chat import ChatQuestion
from inbol_jax.responses.endpoint import Endpoint
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate

Sampling = Mapping[str, Any]
Tell = Callable[[object], None]
Ask = Callable[[Sequence[VQAExample], str, Sampling, Tell], Iterator[dict[str, Row]]]


class StoredAnswers:
    """An `Answerer` that asks only what its store does not hold yet.

    Args:
      settings: what an answer depends on beside sampling options, question and image.
      ask: called with questions, label, sampling options and a function that is to be told each
        failure. Yields lines by the questions' ids as they come.
    """

    def __init__(self, store: AnswerStore, settings: Mapping[str, Any], prompt: Prompt, ask: Ask):
        self._store, self._settings, self._prompt, self._ask = store, settings, prompt, ask
        self._hashes, self._told = ImageHashes(Path("/")), False

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

        asker = Asker({**self._settings, **sampling}, self._prompt, self._hashes)
        asked = list(map(_of_file, questions))
        self._hashes.of({name for example in asked for name in example.images})
        keys = list(map(asker.key, asked))
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in self._store}
        with tempfile.TemporaryDirectory() as folder:
            examples = []
            for key, question in new.items():
                image = question.image
                if not isinstance(image, Path):
                    drawn, image = image(), Path(folder) / f"{key}.png"
                    drawn.save(image, compress_level=1)
                paths, options = (str(image.resolve()),), question.options
                examples.append(VQAExample(key, paths, question.question, options=options))
            for rows in self._ask(examples, label, sampling, tell) if new else ():
                self._store.add(rows)
        return [self._replies(key) for key in keys]

    def _replies(self, key: str) -> list[Reply]:
        if key not in self._store:
            return []
        said = from_row(self._store[key])
        return [Reply(g.text, g.logprob or 0.0) for g, count in said for _ in range(count)]


def _of_file(question: ImageQuestion) -> VQAExample:
    """What identifies a question: the name of its image, and the bytes of the file that this is, or
    is drawn from."""
    file = question.image if isinstance(question.image, Path) else question.drawn_from
    images = (str(file.resolve()),) if file else ()
    return VQAExample(question.name, images, question.question, options=question.options)


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

    def ask(
        examples: Sequence[VQAExample], label: str, sampling: Sampling, tell: Tell
    ) -> Iterator[dict[str, Row]]:
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
            yield {example.id: to_row(given) for example, given in batch}

    return StoredAnswers(store, settings, checkpoint.prompt or DEFAULT, ask)


def endpoint_answers(endpoint: Endpoint, store: AnswerStore) -> StoredAnswers:
    """Answers of an OpenAI-compatible endpoint, one per question. The endpoint's own options say
    temperature and length."""

    def ask(
        examples: Sequence[VQAExample], label: str, sampling: Sampling, tell: Tell
    ) -> Iterator[dict[str, Row]]:
        async def reply_to(example: VQAExample) -> str:
            return await endpoint.ask(
                ChatQuestion(example.question, tuple(map(Path, example.images)))
            )

        for batch in endpoint.map(reply_to, examples):
            for example, reply in batch:
                if isinstance(reply, InbolError):
                    tell(reply)
                else:
                    yield {example.id: to_row([Generation(reply, None, None)])}

    return StoredAnswers(store, {"endpoint": endpoint.settings()}, BARE, ask)
