"""How fast training is: tokens per second, and the share of the chips' peak that is used (MFU)."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from inbol_jax.models.architecture import ModelConfig

# Peak FLOP/s, dense bfloat16, by the name that JAX gives the chip. Sources: the makers' data
# sheets.
PEAK_FLOPS: dict[str, float] = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v2": 22.5e12,  # per core, like v3: JAX counts two cores per chip
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


@dataclasses.dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of training, without what is computed again to save memory."""

    per_token: float
    """FLOPs per token of a row."""
    per_pair: float
    """FLOPs per pair of a query and a key that it may see. A row of t tokens has t (t + 1) / 2."""
    per_row: float
    """FLOPs per row besides: its image, and the last layer and logits of its targets."""

    def total(self, rows: float, tokens: float) -> float:
        """FLOPs of rows with so many tokens in all."""
        length = tokens / max(rows, 1)
        pairs = rows * length * (length + 1) / 2
        return self.per_token * tokens + self.per_pair * pairs + self.per_row * rows


def training_flops(
    config: ModelConfig,
    trainable: Mapping[str, jax.Array],
    frozen: Mapping[str, jax.Array],
    *,
    targets: float,
    tiles: float = 1.0,
    forwards: int = 0,
) -> TrainingFlops:
    """The FLOPs of a training step, from the shapes of the variables.

    A weight takes two FLOPs per token forward, two more if the gradient passes through its layer to
    one that is trained, and two more for its own gradient. Source of the count: Chowdhery et al.
    2022 (arXiv 2204.02311), appendix B.

    Args:
      trainable, frozen: variables by path. Only matrices count.
      targets: mean number of tokens per row whose logits are made.
      tiles: mean number of image tiles per row.
      forwards: additional passes without gradients, such as that of an online reference.
    """
    vision, text = config.vision, config.text
    parts = config.parts  # in the order of the forward pass
    tower, projector, decoder = parts
    inputs = {tower: tiles * config.tile_patches, projector: tiles * config.num_image_tokens}
    # Whether the gradient has to go back to the outputs of a part's first layer
    reaches = {
        part: any(below in path for path in trainable for below in parts[: i + 1])
        for i, part in enumerate(parts)
    }
    last, keys = f"layers_{text.num_layers - 1}/", ("k_proj", "v_proj")
    per_token = per_row = 0.0
    for variables, trained in ((trainable, True), (frozen, False)):
        for path, x in variables.items():
            part = next((part for part in parts if part in path), None)
            tied = text.tie_word_embeddings and "embed_tokens" in path
            is_head = "lm_head" in path or tied
            is_product = is_head or path.endswith(("/kernel", "/a", "/b"))
            if part is None or len(x.shape) < 2 or not is_product:
                continue
            cost = 2.0 * np.prod(x.shape) * (1 + reaches[part] + trained + forwards)
            # The last layer computes nothing but keys and values for tokens that are no targets.
            at_targets = part == decoder and last in path and not any(k in path for k in keys)
            if is_head or at_targets:
                per_row += targets * cost
            elif part == decoder:
                per_token += cost
            else:
                per_row += inputs[part] * cost
    # Attention: two products with each pair forward, and twice as many backward
    passes = 1 + 2 * reaches[tower] + forwards
    pairs = config.patch_pairs(tiles)
    per_row += vision.num_layers * 4.0 * pairs * vision.hidden_size * passes
    passes = 1 + 2 * reaches[decoder] + forwards
    attention = 4.0 * text.num_heads * text.head_dim * passes
    per_token += targets * attention  # the last layer's
    return TrainingFlops(per_token, (text.num_layers - 1) * attention, per_row)


class Meter:
    """Tokens per second and MFU between one reading and the next.

    Args:
      peak: combined peak FLOP/s of all devices. If it is not known (None), there is no MFU.
    """

    def __init__(self, flops: TrainingFlops, peak: float | None):
        self._flops, self._peak = flops, peak
        self.start()

    def start(self) -> None:
        """Starts the clock again, after what is not training, such as compiling or saving."""
        self._since = time.monotonic()

    def read(self, metrics: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
        """tokens_per_second, without padding, and mfu in [0, 1], since the last reading.

        There are none if there were no tokens.
        """
        seconds = time.monotonic() - self._since
        tokens, rows = (sum(float(m["tokens"][i]) for m in metrics) for i in (0, 1))
        self.start()
        if not tokens:
            return {}
        rates = {"tokens_per_second": tokens / seconds}
        if self._peak:
            rates["mfu"] = self._flops.total(rows, tokens) / seconds / self._peak
        return rates


def peak_flops(devices: int) -> float | None:
    """Combined peak FLOP/s of so many devices; None if this kind of chip is not in the table."""
    per_device = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if per_device is None else per_device * devices
