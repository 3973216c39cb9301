"""Sampling n responses per question: ours and the PyTorch peer in turn, on the same weights, inputs
and options.

    python benchmarks/sampling.py            # the shipped checkpoint on the world's questions
    python benchmarks/sampling.py --fixed-length --new-tokens 8  # no response ends by itself
    python benchmarks/sampling.py --config CONFIG.JSON --dtype bfloat16  # random weights, any LLaVA

Arrays go in and token ids come out, on both sides; images and texts are prepared before. In float32
the logits of the first token are compared before anything is timed. The peer is transformers, in
two forms: `generate` as it is, which repeats prompt and image n times, and one prefill per
question, with the cache copied n times.

Roofline: the least time that the arithmetic and the memory traffic of the work can take, divided by
the time that ours took. The peaks are measured here: a large matrix product, and a large copy.
  prefill, FLOPs per question
      2 x decoder weights x tokens + 2 x tokens^2 x width x layers (causal attention)
      + 2 x weights of tower and projector x patches
      + 4 x patches^2 x width x layers (full attention) + one row of logits
  decode, FLOPs per token
      2 x (decoder weights + head) + 4 x (prompt + own tokens) x width x layers
  decode, bytes per step
      decoder weights + head, once per batch; keys and values of the prompt, once per question
"""

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.loading import init_params, load_pretrained
from inbol_jax.models.packing import collate
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import (
    PromptedExample,
    in_flight,
    model_inputs,
    plan_batches,
    questions_per_device,
)
from inbol_jax.sampling.sampler import compiled_sample, prefill
from inbol_jax.sharding import make_mesh
from inbol_jax.world.config import Split
from inbol_jax.world.export import ExportConfig, export


@dataclasses.dataclass(frozen=True)
class Config:
    """Questions and tokens per second, side by side."""

    config: Path | None = None
    """config.json of a LLaVA: its shapes with random weights and prompts, and a fixed length."""
    dtype: str = "float32"
    """Of weights and computation."""
    questions: int = 256
    """Number of questions."""
    n: int = 10
    """Samples per question."""
    new_tokens: int = 12
    """Longest response."""
    prompt_tokens: int = 640
    """Tokens of a random prompt, the image's among them."""
    batch_size: int = 32
    """Questions per batch on an accelerator."""
    peer_batch: int = 32
    """Questions per batch of the peer."""
    fixed_length: bool = False
    """No token ends a response."""
    repeats: int = 5
    """Runs of each, in turn; the median counts."""
    threads: int = os.cpu_count() or 1
    """Threads of the peer."""


Row = dict[str, np.ndarray]
Batches = list[tuple[int, list[Row]]]  # padded length of the prompts, rows


def shipped(config: Config) -> tuple[VisionLanguageModel, Any, Batches]:
    """The tiny LLaVA on the world's test split: model, variables, batches of one padded length."""
    checkpoint = load_pretrained(TINY, dtype=config.dtype)
    with tempfile.TemporaryDirectory() as folder:
        export(ExportConfig(Path(folder), Split.TRAIN, config.questions))
        examples, text = load_dataset_folder(Path(folder)).examples, make_text_encoder(checkpoint)
        plan = plan_batches(
            [PromptedExample(e, text.prompt(e.question)) for e in examples],
            questions_per_device(config.n, config.batch_size, 1),
        )
        batches = [
            (
                shape.length,
                [model_inputs(checkpoint, member, shape, Path(folder)) for member in members],
            )
            for shape, members in plan
        ]
    return checkpoint.model, checkpoint.variables, batches


def random_shapes(config: Config, llava: ModelConfig) -> tuple[VisionLanguageModel, Any, Batches]:
    """Random weights and prompts in the shapes of a config.json."""
    draw, side = np.random.default_rng(0), llava.vision.image_size
    text_tokens = config.prompt_tokens - llava.num_image_tokens
    words = np.setdiff1d(np.arange(5, min(1000, llava.text.vocab_size)), llava.image_token_id)

    def prompt() -> tuple[int, ...]:
        text = draw.choice(words, draw.integers(max(1, text_tokens - 8), text_tokens + 1)).tolist()
        return (*text[:1], *[llava.image_token_id] * llava.num_image_tokens, *text[1:])

    def row(index: int, ids: tuple[int, ...], length: int) -> Row:
        return {
            "input_ids": np.pad(np.array(ids, np.int32), (0, length - len(ids))),
            "attention_mask": (np.arange(length) < len(ids)).astype(np.int32),
            "pixel_values": draw.normal(size=(1, 3, side, side)).astype(np.float32),
            "question": np.uint32(index),
        }

    asked = [PromptedExample(VQAExample(str(i), (), ""), prompt()) for i in range(config.questions)]
    plan = plan_batches(asked, questions_per_device(config.n, config.batch_size, 1))
    batches = [
        (shape.length, [row(int(e.id), ids, shape.length) for e, ids, _ in rows])
        for shape, rows in plan
    ]
    make = jax.jit(
        lambda key: jax.tree.map(lambda x: x.astype(config.dtype), init_params(llava, key))
    )
    return make_model(llava, jnp.dtype(config.dtype)), {"params": make(jax.random.key(0))}, batches


def ours(
    model: VisionLanguageModel,
    variables: Any,
    batches: Batches,
    config: Config,
    workers: int | None = None,
) -> Callable[[], list[np.ndarray]]:
    """Runs all batches and returns the responses' lengths, i32[b, n] per batch.

    Args:
      workers: as in `in_flight`.
    """
    if config.fixed_length:
        model = dataclasses.replace(
            model, config=dataclasses.replace(model.config, eos_token_ids=(-1,))
        )
    options = SamplingOptions(n=config.n, max_new_tokens=config.new_tokens)
    key, size = jax.random.key(0), max(len(rows) for _, rows in batches)
    stacked = [(len(rows), collate(rows, size)) for _, rows in batches]

    mesh = make_mesh(devices=jax.devices()[:1])

    def run() -> list[np.ndarray]:
        done = in_flight(
            lambda batch: compiled_sample(model, variables, batch[1], key=key, options=options),
            stacked,
            mesh,
            workers,
        )
        return [samples.lengths[:count] for (count, _), samples in done]

    return run


def normalised(row: Row) -> np.ndarray:
    """The pixels of a row as transformers takes them."""
    pixels = row["pixel_values"]
    if pixels.dtype != np.uint8:
        return pixels
    mean, scale = (row[name][..., None, None] for name in ("pixel_mean", "pixel_scale"))
    return (pixels - mean) * scale


def first_logits(model: VisionLanguageModel, variables: Any, batches: Batches) -> np.ndarray:
    """Of the first token of each response of the first batch, f32[b, V]."""
    rows = batches[0][1]
    prompted = jax.jit(prefill, static_argnums=0)(model, variables, collate(rows, len(rows)))
    return np.asarray(prompted.logits[:, 0])


def peers(
    rows: Sequence[Row], config: Config, expected: np.ndarray
) -> dict[str, Callable[[], int]]:
    """The same by transformers; each gives the number of tokens that it drew.

    Args:
      expected: `first_logits` of the first rows, which transformers' must be in float32.
    """
    import torch
    from transformers import AutoConfig, LlavaForConditionalGeneration

    torch.set_num_threads(config.threads)
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, config.dtype)
    if config.config is None:
        model = LlavaForConditionalGeneration.from_pretrained(TINY, dtype=dtype).to(device).eval()
    else:
        with torch.device(device):
            model = LlavaForConditionalGeneration._from_config(
                AutoConfig.from_pretrained(config.config), dtype=dtype
            ).eval()
    model.generation_config.pad_token_id = 0
    if config.fixed_length:
        model.generation_config.eos_token_id = None
    eos = model.generation_config.eos_token_id
    drawn = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": config.new_tokens,
    }

    def left_padded(part: Sequence[Row]) -> dict[str, torch.Tensor]:
        lengths = [int(row["attention_mask"].sum()) for row in part]
        ids = np.zeros((len(part), max(lengths)), np.int64)
        for i, (row, length) in enumerate(zip(part, lengths, strict=True)):
            ids[i, -length:] = row["input_ids"][:length]
        mask = np.arange(max(lengths)) >= max(lengths) - np.array(lengths)[:, None]
        pixels = np.concatenate([normalised(row) for row in part])
        batch = {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask.astype(np.int64)),
        }
        return {
            k: v.to(device)
            for k, v in (batch | {"pixel_values": torch.tensor(pixels, dtype=dtype)}).items()
        }

    batches = [
        left_padded(rows[i : i + config.peer_batch]) for i in range(0, len(rows), config.peer_batch)
    ]
    if config.config is None and config.dtype == "float32":  # the same weights
        with torch.inference_mode():
            found = model(**left_padded(rows[: len(expected)]), logits_to_keep=1).logits[:, 0].cpu()
        difference = np.abs(found.numpy() - expected).max()
        if not difference <= 1e-3:
            raise SystemExit(f"the first logits differ by {difference:.2g}")

    def count(tokens: torch.Tensor, prompt: int) -> int:
        new = tokens[:, prompt:].cpu()
        if eos is None:
            return new.numel()
        ended = (new == eos).long().cumsum(1)
        return int((ended - (new == eos).long() == 0).sum())

    @torch.inference_mode()
    def generate() -> int:
        return sum(
            count(
                model.generate(**b, **drawn, num_return_sequences=config.n), b["input_ids"].shape[1]
            )
            for b in batches
        )

    @torch.inference_mode()
    def prefill_once() -> int:
        total = 0
        for b in batches:
            positions = (b["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            cache = model(
                **b, position_ids=positions, use_cache=True, logits_to_keep=1
            ).past_key_values
            cache.crop(-1)  # `generate` computes the last prompt token again, to have its logits
            cache.batch_repeat_interleave(config.n)
            repeated = {
                name: b[name].repeat_interleave(config.n, 0)
                for name in ("input_ids", "attention_mask")
            }
            total += count(
                model.generate(**repeated, past_key_values=cache, **drawn), b["input_ids"].shape[1]
            )
        return total

    return {"peer, generate": generate, "peer, prefill once": prefill_once}


def best_seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """The fastest of a few runs after a first one."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def peaks(dtype: str) -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of a large copy on this device."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    x, long = jnp.ones((side, side), dtype), jnp.ones((1 << 26,), jnp.float32)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    return 2 * side**3 / best_seconds(lambda: product(x)), 2 * long.nbytes / best_seconds(
        lambda: copy(long)
    )


def floor_seconds(
    model: VisionLanguageModel,
    variables: Any,
    batches: Batches,
    lengths: Sequence[np.ndarray],
    dtype: str,
) -> float:
    """What the roofline leaves (see the module's docstring) for the responses that were drawn."""
    text, vision, params = model.config.text, model.config.vision, variables["params"]
    flops, bandwidth = peaks(dtype)
    size = jnp.dtype(dtype).itemsize

    def weights(tree: Any) -> int:
        return sum(x.size for x in jax.tree.leaves(tree))

    head = text.hidden_size * text.vocab_size
    decoder = weights(
        {k: v for k, v in params["language_model"].items() if k.startswith("layers_")}
    )
    tower = weights(params["vision_tower"]) + weights(params["multi_modal_projector"])
    width, cache = (
        text.num_heads * text.head_dim * text.num_layers,
        2 * text.num_kv_heads * text.head_dim * text.num_layers * size,
    )
    image = (
        2 * tower * vision.num_patches
        + 4 * vision.num_patches**2 * vision.hidden_size * vision.num_layers
    )
    seconds = 0.0
    for (_, rows), drawn in zip(batches, lengths, strict=True):
        prompts = np.array([row["attention_mask"].sum() for row in rows], np.float64)
        prefill = (2 * decoder * prompts + 2 * prompts**2 * width + image + 2 * head).sum()
        passes = np.maximum(drawn - 1, 0)  # the first token comes of the prefill
        decode = (
            passes * (2 * (decoder + head) + 4 * width * (prompts[:, None] + passes / 2))
        ).sum()
        traffic = passes.max() * ((decoder + head) * size + (prompts * cache).sum())
        seconds += prefill / flops + max(decode / flops, traffic / bandwidth)
    return seconds


def main(config: Config) -> None:
    if config.config is not None:
        config = dataclasses.replace(config, fixed_length=True)
        model, variables, batches = random_shapes(config, load_config(config.config.parent))
    else:
        model, variables, batches = shipped(config)
    lengths: list[np.ndarray] = []
    sampler = ours(model, variables, batches, config)

    def run_ours() -> int:
        lengths[:] = sampler()
        return int(sum(drawn.sum() for drawn in lengths))

    runs: dict[str, Callable[[], int]] = {"ours": run_ours}
    if jax.default_backend() == "cpu":
        one_by_one = ours(model, variables, batches, config, workers=1)
        runs["ours, one batch at a time"] = lambda: int(sum(drawn.sum() for drawn in one_by_one()))
    rows = [row for _, batch in batches for row in batch]
    runs |= peers(rows, config, first_logits(model, variables, batches))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    tokens: dict[str, int] = {}
    for repeat in range(config.repeats + 1):  # the first one compiles and warms up
        for name, run in runs.items():
            start = time.perf_counter()
            tokens[name] = run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    programs = len({length for length, _ in batches})
    print(
        f"{config}\n{jax.devices()[0].device_kind}, jax {jax.__version__}; "
        f"ours: {programs} programs, {len(batches)} batches"
    )
    print(
        "| | questions/s | tokens/s | tokens per response | ours is faster by |\n"
        "|---|---|---|---|---|"
    )
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    for name, time_of in middle.items():
        rate, per_response = config.questions / time_of, tokens[name] / config.questions / config.n
        print(
            f"| {name} | {rate:.1f} | {tokens[name] / time_of:.0f} | {per_response:.2f} "
            f"| {time_of / middle['ours']:.1f} x |"
        )
    floor = floor_seconds(model, variables, batches, lengths, config.dtype)
    print(f"| ours, share of the roofline | {floor / middle['ours']:.0%} | | | |")


if __name__ == "__main__":
    main(tyro.cli(Config))
