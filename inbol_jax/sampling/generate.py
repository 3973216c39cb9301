"""Responses to the questions of a whole dataset: batches of static shapes in, texts out."""

import dataclasses
import functools
import itertools
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from inbol_jax.answers import Generation
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import collate
from inbol_jax.models.processor import READERS, TextEncoder, load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED, Grid, padded_tiles
from inbol_jax.progress import progress
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engine_protocol import SetAside
from inbol_jax.sampling.sampler import compiled_sample
from inbol_jax.sharding import make_mesh, replicate, round_batch, shard_batch

Prompt = tuple[int, ...]
# Responses that a CPU decodes at a time.
TILE = 80
# Such tiles that a CPU decodes at a time, at most: products of large models spread over the cores
# by themselves, and each tile takes memory.
WORKERS = 4
# Questions whose batches are planned together. Only these are in memory, however many there are.
WINDOW = 1 << 15


class PromptedExample(NamedTuple):
    """A question with the token ids that it is asked in."""

    example: VQAExample
    prompt: Prompt
    grids: tuple[Grid, ...] = (UNTILED,)
    """How its images are cut, whose tokens are in the prompt."""

    @property
    def tiles(self) -> int:
        """The number of tiles of its images."""
        return sum(grid.tiles for grid in self.grids)


class BatchShape(NamedTuple):
    """What the prompts, and the tiles of the images, of a batch are padded to."""

    length: int
    tiles: int = 1


# Questions that are computed together, and the shape that they are padded to.
PlannedBatch = tuple[BatchShape, list[PromptedExample]]


class LoadedBatch(NamedTuple):
    """A planned batch with its images read."""

    examples: list[VQAExample]
    """The questions that are asked, in the order of the rows."""
    arrays: Mapping[str, np.ndarray] | None
    """The model's inputs, filled up with rows that are not valid; None without examples."""
    rejected: list[tuple[VQAExample, str]]
    """The examples whose image cannot be read, with the causes."""


@dataclasses.dataclass(frozen=True)
class BatchRunner:
    """Runs a step of a model over batches of questions.

    Each process works on questions of its own with devices of its own, and waits for no other.
    """

    checkpoint: Checkpoint
    images: Path
    """The folder that the examples' images are relative to."""
    batch_size: int
    """Questions per batch, on all devices together; on a CPU see `questions_per_device`."""
    responses: int
    """Rows that a question becomes in the step."""
    set_aside: SetAside
    """Is called with each example whose image cannot be read, and the cause."""
    label: str | None
    """Of the progress; None shows none."""

    def run(
        self,
        questions: Iterable[PromptedExample],
        step: functools.partial,
        total: int,
    ) -> Iterator[tuple[list[VQAExample], Any]]:
        """Yields (examples, the step's arrays on the host) per batch; further rows are padding.

        Args:
          questions: are taken `WINDOW` at a time.
          step: (variables, batch) -> arrays, all other arguments of a jitted function filled in;
            the batch is as `sample` takes it.
          total: the number of questions, for the progress.

        Raises:
          InbolError: if a number that the step returns is not finite.
        """
        variables = self.checkpoint.variables
        place = getattr(jax.tree.leaves(variables)[0], "sharding", None)
        if isinstance(place, NamedSharding):
            mesh = place.mesh
        else:  # on one device, or on the host
            mesh = make_mesh(devices=jax.local_devices())
            variables = replicate(variables, mesh)
        parts = round_batch(1, mesh)
        size = parts * questions_per_device(self.responses, self.batch_size, parts)

        def compute(batch: LoadedBatch) -> Any:
            if not batch.arrays:
                return None
            return step(variables, shard_batch(batch.arrays, mesh))

        shown = self.label is not None
        with progress(self.label or "", total, "questions", shown=shown) as advance:
            for batch, result in in_flight(compute, self._batches(questions, size), mesh):
                for example, reason in batch.rejected:
                    self.set_aside(example, reason)
                if batch.examples:
                    check_finite(self.checkpoint, batch.examples, result)
                    yield batch.examples, result
                advance(len(batch.rejected) + len(batch.examples))

    def _batches(self, questions: Iterable[PromptedExample], size: int) -> Iterator[LoadedBatch]:
        """Plans a window after the other, and reads each batch's images ahead of its turn."""
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        load, remaining = functools.partial(self._load, size), iter(questions)
        while window := list(itertools.islice(remaining, WINDOW)):
            plan = grain.MapDataset.source(plan_batches(window, size))
            yield from plan.map(load).to_iter_dataset(reading)

    def _load(self, size: int, batch: PlannedBatch) -> LoadedBatch:
        (shape, members), examples, inputs, rejected = batch, [], [], []

        def read(member: PromptedExample) -> dict[str, np.ndarray] | InbolError:
            try:
                return model_inputs(self.checkpoint, member, shape, self.images)
            except InbolError as error:
                return error

        for member, result in zip(members, READERS.map(read, members), strict=True):
            if isinstance(result, InbolError):
                rejected.append((member.example, str(result)))
            else:
                inputs.append(result)
                examples.append(member.example)
        arrays = collate(inputs, size) if inputs else None
        return LoadedBatch(examples, arrays, rejected)


def check_finite(checkpoint: Checkpoint, examples: Sequence[VQAExample], result: Any) -> None:
    """Raises InbolError, which names the model, if a number of the rows of examples is not finite.

    Weights that are not finite would otherwise answer, always with the same token.
    """
    for values in jax.tree.leaves(result):
        for example, row in zip(examples, values, strict=False):
            if not np.isfinite(row).all():
                raise InbolError(
                    f"{checkpoint.adapters or checkpoint.path}: what the model computes for "
                    f"question {example.id!r} is not finite; its weights are broken, or too large "
                    f"for {checkpoint.model.dtype.name}"
                )


def padded_length(length: int) -> int:
    """The static length that a prompt is padded to.

    It is a multiple of 8, and from 128 tokens on at most a sixteenth longer than the prompt: 100
    tokens become 104, 300 become 304, 1000 become 1024. There are at most sixteen such lengths, and
    so programs, per octave. A question has the same shape in every run.
    """
    step = max(8, 1 << (length - 1).bit_length() >> 5)
    return -(-length // step) * step


def plan_batches(questions: Sequence[PromptedExample], size: int) -> list[PlannedBatch]:
    """Batches of at most `size` questions of one padded shape.

    Within a shape the questions are sorted by the length of their gold answers, then by their
    words: a batch decodes until its longest response has ended.
    """
    buckets: dict[BatchShape, list[PromptedExample]] = {}
    for question in questions:
        shape = BatchShape(padded_length(len(question.prompt)), padded_tiles(question.tiles))
        # Questions of 97 and 104 tokens with one tile share the shape (104, 1), so one program.
        buckets.setdefault(shape, []).append(question)
    plan = []
    for shape, members in sorted(buckets.items()):
        members.sort(
            key=lambda m: (max(map(len, m.example.answers), default=0), m.example.question)
        )
        plan += [(shape, members[i : i + size]) for i in range(0, len(members), size)]
    return plan


def questions_per_device(n: int, batch_size: int, parts: int) -> int:
    """How many questions of n rows each of the `parts` of a batch holds.

    On a CPU they are as many as make TILE responses, whatever the batch: its kernels round
    differently for another number of rows, so one program for every batch gives every question the
    same samples to the last bit. Such a tile also fits the caches, and ends soon. So 24 questions
    with n = 1 take 80 rows as well: how many are left, a resumed run counts differently.
    """
    # n = 10: 8 questions, 80 rows
    return max(1, TILE // n) if jax.default_backend() == "cpu" else -(-batch_size // parts)


def encode_prompts(
    encoder: TextEncoder,
    questions: Iterable[tuple[VQAExample, str]],
    images: Path,
    set_aside: SetAside,
    suffix: Prompt = (),
) -> Iterator[PromptedExample]:
    """Yields the examples with the prompts of what the model is asked, and `suffix` behind each.

    The images, relative to the folder `images`, decide how many tokens they are.
    `set_aside` is called with each example that cannot be asked, and the cause.
    """
    for example, question in questions:
        try:
            grids = encoder.grids(images / name for name in example.images)
            yield PromptedExample(example, encoder.prompt(question, grids) + suffix, grids)
        except InbolError as error:
            set_aside(example, str(error))


def model_inputs(
    checkpoint: Checkpoint, question: PromptedExample, shape: BatchShape, images: Path
) -> dict[str, np.ndarray]:
    """One row of a batch as `sample` takes it. Raises InbolError if an image cannot be read."""
    tokens, paths = len(question.prompt), [images / name for name in question.example.images]
    ids = np.full(shape.length, checkpoint.config.pad_token_id, np.int32)
    ids[:tokens] = question.prompt
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(shape.length) < tokens).astype(np.int32),
        "question": np.uint32(zlib.crc32(question.example.id.encode())),
        **load_image_inputs(checkpoint, paths, question.grids, shape.tiles),
    }


def generate(
    checkpoint: Checkpoint,
    examples: Sequence[VQAExample],
    images: Path,
    *,
    options: SamplingOptions,
    seed: int,
    batch_size: int,
    label: str | None,
    set_aside: SetAside,
) -> Iterator[list[tuple[VQAExample, list[Generation]]]]:
    """Yields finished batches: examples with their `options.n` responses each.

    The samples of a question depend on the seed and on its id, neither on the batch that it is in
    nor on the order. Questions of one padded length share a program. A greedy answer that the
    checkpoint is to refuse for its likelihood is replaced.

    Args:
      images, batch_size, label: as in `BatchRunner`.
      set_aside: is called with each example that cannot be asked (its image is unreadable, or its
        question holds the image placeholder), and the cause.
    """
    longest = checkpoint.config.text.max_positions
    if options.max_new_tokens >= longest:
        raise InbolError(
            f"--max-new-tokens {options.max_new_tokens}: the model was made for {longest} tokens, "
            "those of the question included"
        )
    runner = BatchRunner(checkpoint, images, batch_size, options.n, set_aside, label)
    encoder = make_text_encoder(checkpoint)
    texts = ((example, encoder.text(example)) for example in examples)
    questions = encode_prompts(encoder, texts, images, set_aside)
    step = functools.partial(
        compiled_sample, checkpoint.model, key=jax.random.key(seed), options=options
    )

    def text(*response: np.ndarray) -> Generation:
        said = to_text(checkpoint, *response)
        return said if options.temperature else refuse_unlikely(checkpoint, said)

    for members, samples in runner.run(questions, step, len(examples)):
        # A last batch has fewer questions than rows: `zip` leaves the rows without a question out.
        yield [
            (example, list(map(text, *responses)))
            for example, *responses in zip(members, *samples, strict=False)
        ]


def refuse_unlikely(checkpoint: Checkpoint, answer: Generation) -> Generation:
    """The greedy answer, or the refusal that `refuse_below` of the config puts in its place, with
    the answer's log-probability."""
    threshold, refusal = checkpoint.config.refuse_below or (-np.inf, "")
    if answer.logprob >= threshold:
        return answer
    return answer._replace(text=refusal, cut=False)


def in_flight(
    step: Callable[[Any], Any], batches: Iterable[Any], mesh: Mesh, workers: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yields (batch, step(batch) on the host) in order, while the next batches are under way.

    On one CPU device several batches run at a time, each in a thread: a small program keeps one
    core busy, and a device runs what one thread gave it one after the other. Elsewhere the device
    has the next batch waiting while the last one is fetched; programs over several devices must
    reach all of them in one order, and so come from one thread.

    Args:
      workers: number of threads, by default one per core, and at most `WORKERS`.
    """
    threaded = jax.default_backend() == "cpu" and mesh.size == 1
    workers = (workers or min(WORKERS, os.cpu_count() or 1)) if threaded else 1
    waiting: deque[tuple[Any, Callable[[], Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            if threaded:
                result = pool.submit(lambda batch=batch: jax.device_get(step(batch))).result
            else:
                result = functools.partial(jax.device_get, step(batch))
            waiting.append((batch, result))
            if len(waiting) > workers:
                done, fetch = waiting.popleft()
                yield done, fetch()
        for done, fetch in waiting:
            yield done, fetch()


def to_text(
    checkpoint: Checkpoint, tokens: np.ndarray, logprobs: np.ndarray, length: int
) -> Generation:
    """One response as text.

    Args:
      tokens, logprobs: i32[t] and f32[t].
      length: number of tokens of the response, its end included.
    """
    ids = tokens[:length].tolist()
    text = checkpoint.processor.tokenizer.decode(ids, skip_special_tokens=True)
    cut = ids[-1] not in checkpoint.config.eos_token_ids
    # Added one after the other, unlike in numpy's sum: the same number on every machine.
    return Generation(text.strip(), float(np.cumsum(logprobs[:length])[-1]), int(length), cut)
