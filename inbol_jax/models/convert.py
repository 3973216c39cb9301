"""`inbol convert`: merges a checkpoint's adapters, or changes its dtype."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import tyro

from inbol_jax.artifacts import one_writer
from inbol_jax.defaults import Bounded, Dtype, Seed, check_out
from inbol_jax.errors import InbolError


@dataclasses.dataclass(frozen=True)
class ConvertConfig(Bounded):
    """Convert a checkpoint: merge its adapters, or change its dtype."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder or hub id of a checkpoint, or of an adapter, which is loaded with its base."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Folder of the new checkpoint."""
    merge_lora: bool = False
    """Write a whole model, with the adapters added to its weights, not the adapters alone."""
    dtype: Dtype = "auto"
    """Dtype of the weights; auto is float32 for a float32 checkpoint and bfloat16 for any other."""
    verify: bool = False
    """Read the new checkpoint back and compare its logits with the source's."""
    seed: Seed = 0
    """Seed of the image and text that --verify compares on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_out(self.out, self.source)


@one_writer
def convert(config: ConvertConfig) -> None:
    """Runs the conversion. Raises InbolError if it is impossible or --verify finds a difference."""
    from inbol_jax.models.loading import load_pretrained, save_pretrained
    from inbol_jax.models.reading import open_tensors
    from inbol_jax.progress import say

    checkpoint = load_pretrained(config.source, dtype=config.dtype)
    if config.merge_lora and "lora" not in checkpoint.variables:
        raise InbolError(f"--merge-lora: {config.source} holds no adapters")
    save_pretrained(checkpoint, config.out, merge_adapters=config.merge_lora)
    size = count = 0
    for file in config.out.glob("*.safetensors"):
        size += file.stat().st_size
        with open_tensors(file) as tensors:
            shapes = (tensors.get_slice(key).get_shape() for key in tensors.keys())  # noqa: SIM118
            count += sum(map(math.prod, shapes))
    alone = "lora" in checkpoint.variables and not config.merge_lora
    kind = "adapters" if alone else checkpoint.model.dtype.name
    say(f"{count:,} parameters of {kind} -> {config.out} ({size / 1e6:,.1f} MB)")
    if config.verify:
        del checkpoint  # memory may not hold two
        verify(config)


def verify(config: ConvertConfig) -> None:
    """Compares the logits of source and result, computed in float32, on noise and random text.

    The error is the root mean square of the difference, divided by the standard deviation of the
    logits. Its bound is 1e-4 in float32. Rounding weights to bfloat16 errs by up to 2^-9 of each,
    which adds up to a few times 2^-9: the bound of 32 times 2^-9 is far below what a wrong or
    missing tensor causes.

    Raises:
      InbolError: if the error exceeds the bound.
    """
    import numpy as np

    from inbol_jax.models.loading import load_pretrained
    from inbol_jax.progress import say

    # Both in float32: only the stored weights may differ, not the arithmetic.
    before = _logits(load_pretrained(config.source, dtype="float32"), config.seed)
    result = load_pretrained(config.out, dtype="float32")
    after = _logits(result, config.seed)
    bound = 1e-4 if result.config.stored_dtype == "float32" else 32 * 2.0**-9
    error = float(np.sqrt(np.mean((after - before) ** 2)) / np.std(before))
    same = float((after.argmax(-1) == before.argmax(-1)).mean())
    say(
        f"logits differ by {error:.2e} of their spread (up to {bound:.2e} is rounding), "
        f"the first choice is the same at {same:.1%}"
    )
    if not error <= bound:  # also if it is NaN
        raise InbolError(
            f"--verify: {config.out} does not compute what {config.source} does "
            f"({error:.2e} of the spread)"
        )


def _logits(checkpoint: Any, seed: int) -> Any:
    """Returns f32[1, t, V] for one random image within 24 random tokens."""
    import jax
    import numpy as np

    c, random = checkpoint.config, np.random.default_rng(seed)
    words = random.integers(0, c.text.vocab_size, 24)
    # Image tokens stand only where the image's features go.
    words = np.where(words == c.image_token_id, 0, words)
    images = c.blank_tile()
    # 8 words, the image, 16 words: both sides of an image are compared.
    image = np.full(c.image_tokens(images)[0], c.image_token_id)
    ids = np.concatenate([words[:8], image, words[8:]])[None].astype(np.int32)
    shape = images["pixel_values"].shape
    # (u8 - 127.5) / 74: uniform bytes have a standard deviation of 256 / sqrt(12) = 74.
    if "pixel_mean" in images:
        images["pixel_values"] = random.integers(0, 256, shape, np.uint8)
        images["pixel_mean"] *= 127.5
        images["pixel_scale"] /= 74.0  # about a standard deviation of 1
    else:
        images["pixel_values"] = random.normal(size=shape).astype(np.float32)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), **images}
    return np.asarray(jax.jit(checkpoint.model.apply)(checkpoint.variables, batch))
