"""`inbol convert`: a checkpoint into another folder: adapters merged, another dtype, other shards; and a check that it says the same."""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from inbol_jax.defaults import Dtype
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint, load_pretrained, save_pretrained
from inbol_jax.progress import say


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Convert a checkpoint: merge its adapters, change its dtype, split it into other files.

    Attributes:
      source: folder or hub id of a checkpoint, or of an adapter, which is loaded with the base that it names.
      out: folder of the new checkpoint.
      merge_lora: write a whole model, with the adapters added to its weights, instead of the adapters alone.
      dtype: of the weights; auto keeps float32 and makes anything else bfloat16.
      max_shard_size: of one weight file.
      verify: read the new checkpoint back and compare its logits with the source's.
      seed: of the batch that --verify compares on.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    merge_lora: bool = False
    dtype: Dtype = "auto"
    max_shard_size: str = "5GB"
    verify: bool = False
    seed: int = 0


def convert(config: ConvertConfig) -> None:
    """Runs the conversion.

    Raises:
      InbolError: for what is wrong with source or output, or when --verify finds a difference.
    """
    loaded = load_pretrained(config.source, dtype=config.dtype)
    if config.out.resolve() in (
        loaded.path.resolve(),
        loaded.adapters and loaded.adapters.resolve(),
    ):
        raise InbolError(f"{config.out} is the source itself: choose another folder")
    if config.merge_lora and "lora" not in loaded.variables:
        raise InbolError(f"--merge-lora: {config.source} holds no adapters")
    save_pretrained(
        loaded, config.out, merge_adapters=config.merge_lora, max_shard_size=config.max_shard_size
    )
    size = sum(file.stat().st_size for file in config.out.glob("*.safetensors"))
    count = sum(x.size for x in jax.tree.leaves(loaded.variables))
    say(f"{count:,} parameters of {loaded.model.dtype.name} -> {config.out} ({size / 1e6:,.1f} MB)")
    if config.verify:
        del loaded  # one at a time: there may be no room for two
        verify(config)


def verify(config: ConvertConfig) -> None:
    """Compares the logits of source and result, both computed in float32, on a picture of noise and random text.

    The difference is counted in the logits' own spread. In float32 it may be 1e-4, the project's bound for parity. In bfloat16 the weights
    are rounded, each by up to 2^-9 of itself; such errors, independent in every weight, add up to a few times 2^-9 over the layers, and
    32 times that is far below what any wrong, missing or exchanged tensor does.

    Raises:
      InbolError: when they differ by more.
    """
    before = _logits(load_pretrained(config.source, dtype=jnp.float32), config.seed)
    result = load_pretrained(config.out, dtype=jnp.float32)
    after = _logits(result, config.seed)
    bound = 1e-4 if result.config.stored_dtype == "float32" else 32 * 2.0**-9
    error = float(np.sqrt(np.mean((after - before) ** 2)) / np.std(before))
    same = float((after.argmax(-1) == before.argmax(-1)).mean())
    say(
        f"logits differ by {error:.2e} of their spread (up to {bound:.2e} is rounding), the first choice is the same at {same:.1%}"
    )
    if not error <= bound:
        raise InbolError(
            f"--verify: {config.out} does not compute what {config.source} does ({error:.2e} of the spread)"
        )


def _logits(loaded: Checkpoint, seed: int) -> np.ndarray:
    c, random = loaded.config, np.random.default_rng(seed)
    words = random.integers(0, c.text.vocab_size, 24)
    words = np.where(words == c.image_token_id, 0, words)
    ids = np.concatenate([words[:8], np.full(c.num_image_tokens, c.image_token_id), words[8:]])[
        None
    ].astype(np.int32)
    pixels = random.normal(size=(1, 3, c.vision.image_size, c.vision.image_size)).astype(np.float32)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": pixels}
    return np.asarray(jax.jit(loaded.model.apply)(loaded.variables, batch))
