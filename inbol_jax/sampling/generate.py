"""Responses to a whole dataset: batches of static shapes in, texts out."""

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
from jax.sharding import Mesh

from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import collate
from inbol_jax.models.processor import load_pixels, make_text_encoder
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample
from inbol_jax.sampling.sampler import SamplingOptions, sample
from inbol_jax.sharding import make_mesh, mesh_of, replicate, round_batch, shard_batch

Prompt = tuple[int, ...]
TILE = 80  # responses that a CPU decodes at a time
WORKERS = 4  # such tiles at a time, at most: products of large models spread over the cores by themselves, and a tile takes memory
WINDOW = (
    1 << 15
)  # questions whose batches are planned together: what is in memory, of however many there are


class Generation(NamedTuple):
    """One response: its text, its log-probability in nats, its number of tokens."""

    text: str
    logprob: float
    tokens: int


def padded_length(length: int) -> int:
    """The static length that a prompt is padded to: a multiple of 8, and at most an eighth longer than itself from 64 tokens on.

    A function of the prompt alone, so that a question has the same shape in every run; at most eight shapes, and so programs, an octave.
    """
    step = max(8, 1 << (length - 1).bit_length() >> 4)
    return -(-length // step) * step


def plan_batches(
    asked: Sequence[tuple[VQAExample, Prompt]], size: int
) -> list[tuple[int, list[tuple[VQAExample, Prompt]]]]:
    """Batches of at most `size` questions with prompts of one padded length, which comes with each.

    Within a length they come by the length of their gold answers, then by their words: a batch decodes until its longest response has
    ended, and such questions have answers of like lengths.
    """
    buckets: dict[int, list[tuple[VQAExample, Prompt]]] = {}
    for example, prompt in asked:
        buckets.setdefault(padded_length(len(prompt)), []).append((example, prompt))
    for rows in buckets.values():
        rows.sort(key=lambda row: (max(map(len, row[0].answers), default=0), row[0].question))
    return [
        (length, rows[i : i + size])
        for length, rows in sorted(buckets.items())
        for i in range(0, len(rows), size)
    ]


def questions_a_device(n: int, batch_size: int, parts: int) -> int:
    """How many questions a device samples at a time, of a batch in so many parts.

    On a CPU always as many as make TILE responses, whatever the batch: its kernels round differently for another number of rows, so one
    program for every batch gives every question the same samples to the last bit; and such a tile fits the caches, and ends soon.
    """
    return max(1, TILE // n) if jax.default_backend() == "cpu" else -(-batch_size // parts)


def generate(
    loaded: Checkpoint,
    examples: Sequence[VQAExample],
    images: Path,
    *,
    n: int,
    options: SamplingOptions,
    seed: int,
    batch_size: int,
    label: str | None,
    set_aside: Callable[[VQAExample, str], None],
) -> Iterator[list[tuple[VQAExample, list[Generation]]]]:
    """Yields finished batches: examples with their n responses each.

    The samples of a question depend on the seed and on its id, not on the batch that it is in, nor on the order (see `plan_batches`).
    Questions of one padded length share a program. They are read, and their batches planned, `WINDOW` at a time.

    Args:
      images: folder that the examples' images are relative to.
      batch_size: questions at a time, on all devices together; on a CPU see `questions_a_device`.
      label: of the progress, and of the line that counts programs; None for neither, where the caller shows its own.
      set_aside: called with an example that cannot be asked (image unreadable, placeholder in the question) and the cause.
    """
    text = make_text_encoder(loaded)
    if beyond := [token for token in options.stop_tokens if token >= loaded.config.text.vocab_size]:
        raise InbolError(
            f"--stop-tokens {beyond[0]}: the model's vocabulary has {loaded.config.text.vocab_size} tokens"
        )

    def asked() -> Iterator[tuple[VQAExample, Prompt]]:
        for example in examples:
            try:
                yield example, text.prompt(example.question)
            except InbolError as error:
                set_aside(example, str(error))

    key = jax.random.key(seed)
    batches = run_batches(
        loaded,
        asked(),
        images,
        lambda variables, batch: _sample(loaded.model, n, options, variables, batch, key),
        total=len(examples),
        n=n,
        batch_size=batch_size,
        label=label,
        work=f"{n} samples",
        set_aside=set_aside,
    )
    for members, (tokens, logprobs, lengths) in batches:
        yield [
            (
                e,
                [
                    to_text(loaded, options, *response)
                    for response in zip(tokens[i], logprobs[i], lengths[i], strict=True)
                ],
            )
            for i, e in enumerate(members)
        ]


def run_batches(
    loaded: Checkpoint,
    asked: Iterable[tuple[VQAExample, Prompt]],
    images: Path,
    step: Callable[[Mapping[str, Any], Mapping[str, jax.Array]], Any],
    *,
    total: int,
    n: int,
    batch_size: int,
    label: str | None,
    work: str,
    set_aside: Callable[[VQAExample, str], None],
) -> Iterator[tuple[list[VQAExample], Any]]:
    """Yields (examples, what the step made of them, on the host) for every batch; rows behind the examples are padding.

    Each process works on questions of its own with devices of its own: nothing waits for another process.

    Args:
      asked: questions with their prompts, taken `WINDOW` at a time.
      step: (variables, batch) -> arrays, jitted; the batch as `sample` takes it.
      total: how many questions there are, for the progress that is shown.
      n: rows that a question becomes in the step.
      work: that each question is, for the line that counts programs.
    """
    mesh = mesh_of(loaded.variables) or make_mesh(devices=jax.local_devices())
    parts = round_batch(1, mesh)
    size = parts * questions_a_device(n, batch_size, parts)
    programs: set[int] = set()

    def plans() -> Iterator[list[tuple[int, list[tuple[VQAExample, Prompt]]]]]:
        waiting = iter(asked)
        while window := list(itertools.islice(waiting, WINDOW)):
            plan = plan_batches(window, size)
            programs.update(length for length, _ in plan)
            yield plan

    def assemble(item: tuple[int, list[tuple[VQAExample, Prompt]]]):
        length, rows = item
        members, arrays, bad = [], [], []
        for example, prompt in rows:
            try:
                arrays.append(_row(loaded, example, prompt, length, images))
                members.append(example)
            except InbolError as error:
                bad.append((example, str(error)))
        return members, collate(arrays, size) if arrays else None, bad

    variables = loaded.variables if mesh_of(loaded.variables) else replicate(loaded.variables, mesh)
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    stream = (
        item
        for plan in plans()
        for item in grain.MapDataset.source(plan).map(assemble).to_iter_dataset(reading)
    )
    with progress(label or "", total, "questions", shown=label is not None) as advance:

        def whole() -> Iterator[tuple[list[VQAExample], dict[str, np.ndarray]]]:
            for members, batch, bad in stream:
                for example, reason in bad:
                    set_aside(example, reason)
                advance(len(bad))
                if members:
                    yield members, batch

        for members, found in in_flight(
            lambda batch: step(variables, shard_batch(batch, mesh)), whole(), mesh
        ):
            yield members, found
            advance(len(members))
    if programs and label is not None:
        lengths = ", ".join(map(str, sorted(programs)))
        say(
            f"{label}: {len(programs)} programs compiled, for {size} questions x {work} and prompts of {lengths} tokens"
        )


def in_flight(
    step: Callable[[Any], Any],
    batches: Iterable[tuple[Any, Any]],
    mesh: Mesh,
    workers: int | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Yields (label, step(batch) on the host) for every (label, batch), in their order, while the next ones are under way already.

    On one CPU device several batches run at a time, each in a thread: a small program keeps one core busy, and a device runs what one
    thread gave it one after the other. The results are the same to the last bit. Elsewhere the device has the next batch waiting while
    the last one is fetched; programs over several devices must reach all of them in one order, and so come from one thread.

    Args:
      workers: threads, by default one a core, and at most `WORKERS`.
    """
    alone = jax.default_backend() == "cpu" and mesh.size == 1
    workers = (workers or min(WORKERS, os.cpu_count() or 1)) if alone else 1

    def start(pool: ThreadPoolExecutor, batch: Any) -> Callable[[], Any]:
        if alone:
            return pool.submit(lambda: jax.device_get(step(batch))).result
        return functools.partial(jax.device_get, step(batch))

    waiting: deque[tuple[Any, Callable[[], Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for label, batch in batches:
            waiting.append((label, start(pool, batch)))
            if len(waiting) > workers:
                done, result = waiting.popleft()
                yield done, result()
        for done, result in waiting:
            yield done, result()


def to_text(
    loaded: Checkpoint,
    options: SamplingOptions,
    tokens: np.ndarray,
    logprobs: np.ndarray,
    length: int,
) -> Generation:
    """One response as text, cut before the first stop string.

    A stop string need not be made of the same tokens each time, nor begin or end with one, so it is looked for in the decoded text: the
    response ends with the token that completes it, and number of tokens and log-probability are those up to there.

    Args:
      tokens: i32[t]. logprobs: f32[t]. length: tokens of the response, its end included.
    """
    decode = functools.partial(loaded.processor.tokenizer.decode, skip_special_tokens=True)
    ids = [int(token) for token in tokens[:length]]
    spoken = ids[:-1] if ids and ids[-1] in options.stop_tokens else ids
    text = decode(spoken)
    if any(stop in text for stop in options.stop):
        length, text = next(
            (k, t)
            for k in range(1, len(spoken) + 1)
            if any(s in (t := decode(spoken[:k])) for s in options.stop)
        )
        text = text[: min(at for stop in options.stop if (at := text.find(stop)) >= 0)]
    # One after the other in float32, whatever numpy's sum would do: the same number on every machine.
    return Generation(text.strip(), float(np.cumsum(logprobs[:length])[-1]), int(length))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    model: Llava,
    n: int,
    options: SamplingOptions,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    key: jax.Array,
):
    """Compiled once for a model's configuration, whichever checkpoint's weights come."""
    return sample(model, variables, batch, n=n, key=key, options=options)


def _row(
    loaded: Checkpoint, example: VQAExample, prompt: tuple[int, ...], length: int, images: Path
) -> dict[str, np.ndarray]:
    ids = np.full(length, loaded.config.pad_token_id, np.int32)
    ids[: len(prompt)] = prompt
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < len(prompt)).astype(np.int32),
        "pixel_values": load_pixels(loaded, images / example.image)[None],
        "question": np.uint32(zlib.crc32(example.id.encode())),
    }
