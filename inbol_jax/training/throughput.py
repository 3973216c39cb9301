"""How fast training is: tokens a second, and the share of what the chips could do (MFU)."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from inbol_jax.models.config import LlavaConfig

# Products and sums a second, dense bfloat16, by the name that jax gives the chip. Sources: the makers' data sheets.
PEAK_FLOPS: dict[str, float] = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v2": 22.5e12,  # a core, as are v3's: jax counts two a chip
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


@dataclasses.dataclass(frozen=True)
class Work:
    """Floating point operations of training, as the model needs them: what is computed again to save memory does not count.

    Attributes:
      token: of each token of a row.
      pair: of each pair of a query and a key that it may see; a row of t tokens has t (t + 1) / 2.
      row: of each row besides: its image, and the logits of its targets.
    """

    token: float
    pair: float
    row: float

    def rows(self, count: float, tokens: float) -> float:
        """Of `count` rows with `tokens` tokens in all."""
        length = tokens / max(count, 1)
        return (
            self.token * tokens + self.pair * count * length * (length + 1) / 2 + self.row * count
        )


def training_work(
    config: LlavaConfig,
    trainable: Mapping[str, jax.Array],
    frozen: Mapping[str, jax.Array],
    *,
    targets: float,
    forwards: int = 0,
) -> Work:
    """The work of one training step a row, from the shapes of the variables: two operations a weight and token forward, two more for the
    gradient of the layer's input where one below it is trained, two more for its own.

    Source of the count: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B.

    Args:
      trainable, frozen: variables by path, of which the matrices count.
      targets: of a row, on average: tokens whose logits are made.
      forwards: passes without gradients besides, such as that of an online reference.
    """
    v, t = config.vision, config.text
    patches = (v.image_size // v.patch_size) ** 2
    seen_by = {"vision_tower": patches, "multi_modal_projector": config.num_image_tokens}
    parts = ("vision_tower", "multi_modal_projector", "language_model")
    reaches = {  # whether the gradient has to go back to the outputs of a part's first layer
        part: any(below in path for path in trainable for below in parts[: i + 1])
        for i, part in enumerate(parts)
    }
    token = row = 0.0
    for variables, trained in ((trainable, True), (frozen, False)):
        for path, x in variables.items():
            part = next((part for part in parts if part in path), None)
            head = "lm_head" in path or (t.tie_word_embeddings and "embed_tokens" in path)
            if (
                part is None
                or len(x.shape) < 2
                or not (head or path.endswith(("/kernel", "/a", "/b")))
            ):
                continue
            cost = 2.0 * np.prod(x.shape) * (1 + reaches[part] + trained + forwards)
            if head:
                row += targets * cost
            elif part == "language_model":
                token += cost
            else:
                row += seen_by[part] * cost
    row += (
        v.num_layers
        * 4.0
        * patches**2
        * v.hidden_size
        * (1 + 2 * reaches["vision_tower"] + forwards)
    )
    pair = (
        t.num_layers
        * 4.0
        * t.num_heads
        * t.head_dim
        * (1 + 2 * reaches["language_model"] + forwards)
    )
    return Work(token, pair, row)


class Meter:
    """Rates between one reading and the next.

    Args:
      work: of a row.
      peak: of all devices, floating point operations a second; None where it is not known, and then there is no MFU.
    """

    def __init__(self, work: Work, peak: float | None):
        self._work, self._peak = work, peak
        self.start()

    def start(self) -> None:
        """Begins to count here: after what is not training, such as compiling or writing a checkpoint."""
        self._since = time.monotonic()

    def read(self, metrics: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
        """tokens_per_second, without padding, and mfu in [0, 1], of the updates since the last reading; {} where there were none."""
        seconds, tokens = (
            time.monotonic() - self._since,
            sum(float(m["tokens"][0]) for m in metrics),
        )
        self.start()
        if not tokens:
            return {}
        rates = {"tokens_per_second": tokens / seconds}
        if self._peak:
            rates["mfu"] = (
                self._work.rows(sum(float(m["tokens"][1]) for m in metrics), tokens)
                / seconds
                / self._peak
            )
        return rates


def peak_flops(devices: int) -> float | None:
    """Of all devices of the run together; None where this kind of chip is not in the table."""
    one = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if one is None else one * devices
