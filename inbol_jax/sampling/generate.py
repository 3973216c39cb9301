"""Responses to a whole dataset: batches of static shapes in, texts out."""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from inbol_jax.data.batches import stack
from inbol_jax.data.images import load_image
from inbol_jax.data.text import TextEncoder
from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Loaded
from inbol_jax.progress import progress
from inbol_jax.records import VQAExample
from inbol_jax.sampling.sampler import Samples, SamplingOptions, sample
from inbol_jax.sharding import make_mesh, replicate, round_batch, shard_batch


class Generation(NamedTuple):
    """One response: its text, its log-probability in nats, its number of tokens."""

    text: str
    logprob: float
    tokens: int


def make_text_encoder(loaded: Loaded) -> TextEncoder:
    """The text encoder of a checkpoint: its processor, with the token ids of its config."""
    c = loaded.config
    return TextEncoder(
        loaded.processor,
        image_token_id=c.image_token_id,
        num_image_tokens=c.num_image_tokens,
        eos_token_ids=c.eos_token_ids,
        max_tokens=c.text.max_positions,
    )


def load_pixels(loaded: Loaded, path: Path) -> np.ndarray:
    """f32[3, H, W] of an image file, by the checkpoint's own image processor.

    Raises:
      InbolError: when the image cannot be read, or the processor makes other sizes than the model takes.
    """
    pixels = np.asarray(loaded.processor.image_processor(load_image(path), return_tensors="np")["pixel_values"][0], np.float32)
    if pixels.shape != (3, size := loaded.config.vision.image_size, size):
        raise InbolError(f"{loaded.path}: its image processor gives {pixels.shape}, config.json says (3, {size}, {size})")
    return pixels


def generate(
    loaded: Loaded,
    examples: Sequence[VQAExample],
    images: Path,
    *,
    n: int,
    options: SamplingOptions,
    seed: int,
    batch_size: int,
    label: str,
    set_aside: Callable[[VQAExample, str], None],
) -> Iterator[list[tuple[VQAExample, list[Generation]]]]:
    """Yields finished batches: examples with their n responses each, in order of prompt length (questions of a length share a program).

    The samples of a question depend on the seed and on its id, not on the batch that it is in.

    Args:
      images: folder that the examples' images are relative to.
      set_aside: called with an example that cannot be asked (image unreadable, placeholder in the question) and the cause.
    """
    text = make_text_encoder(loaded)
    mesh = make_mesh()
    size = round_batch(min(batch_size, max(1, len(examples))), mesh)
    buckets: dict[int, list[tuple[VQAExample, tuple[int, ...]]]] = {}
    for example in examples:
        try:
            prompt = text.prompt(example.question)
        except InbolError as error:
            set_aside(example, str(error))
            continue
        buckets.setdefault(-(-len(prompt) // 8) * 8, []).append((example, prompt))
    plan = [(length, rows[i : i + size]) for length, rows in sorted(buckets.items()) for i in range(0, len(rows), size)]

    def assemble(item: tuple[int, list[tuple[VQAExample, tuple[int, ...]]]]):
        length, rows = item
        members, arrays, bad = [], [], []
        for example, prompt in rows:
            try:
                arrays.append(_row(loaded, example, prompt, length, images))
                members.append(example)
            except InbolError as error:
                bad.append((example, str(error)))
        return members, stack(arrays, size) if arrays else None, bad

    variables = replicate(loaded.variables, mesh)
    key = jax.random.key(seed)
    stream = grain.MapDataset.source(plan).map(assemble).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))

    def texts(members: list[VQAExample], samples: Samples) -> list[tuple[VQAExample, list[Generation]]]:
        tokens, logprobs, lengths = jax.device_get(samples)
        return [
            (e, [Generation(text.decode(t[:k]), float(p), int(k)) for t, p, k in zip(tokens[i], logprobs[i], lengths[i], strict=True)])
            for i, e in enumerate(members)
        ]

    with progress(label, len(examples), "questions") as advance:
        flying: tuple[list[VQAExample], Samples] | None = None  # the device decodes the next batch while the last one becomes text
        for members, batch, bad in stream:
            for example, reason in bad:
                set_aside(example, reason)
            started = (members, _sample(loaded.model, n, options, variables, shard_batch(batch, mesh), key)) if members else None
            if flying:
                yield texts(*flying)
                advance(len(flying[0]))
            flying = started
            advance(len(bad))
        if flying:
            yield texts(*flying)
            advance(len(flying[0]))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(model: Llava, n: int, options: SamplingOptions, variables: Mapping[str, Any], batch: Mapping[str, jax.Array], key: jax.Array):
    """Compiled once for a model's configuration, whichever checkpoint's weights come."""
    return sample(model, variables, batch, n=n, key=key, options=options)


def _row(loaded: Loaded, example: VQAExample, prompt: tuple[int, ...], length: int, images: Path) -> dict[str, np.ndarray]:
    ids = np.full(length, loaded.config.pad_token_id, np.int32)
    ids[: len(prompt)] = prompt
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < len(prompt)).astype(np.int32),
        "pixel_values": load_pixels(loaded, images / example.image)[None],
        "question": np.uint32(zlib.crc32(example.id.encode())),
    }
