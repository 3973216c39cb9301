"""What every family is to the rest of the project: embeddings with image features, and a decoder.

A batch is a dict of arrays, those of images as the checkpoint's own processor makes them, by row:
  input_ids       i32[b, t]           `image_token_id` at each place of an image feature
  pixel_values    f32[b, m, 3, H, W]  up to m images per row, in the order of their tokens; the
                                      values of unused images do not matter. Left out if there are
                                      none. Integers u8 are normalised on the device:
  pixel_mean, pixel_scale  f32[b, m, 3]  per channel, (u8 - mean) * scale is what the processor
                                      makes
  attention_mask  i32[b, t]           0 for padding, on either side
  segments        i32[b, t]           optional, for packed rows, replaces attention_mask: 0 is the
                                      prefix that all branches see; 1, 2, ... are branches, which do
                                      not see each other; -1 is padding
  positions       i32[b, t]           needed with segments: each branch counts on from the prefix
Tiles of an image are images of their own. A family's further arrays (`ModelConfig.image_shapes`)
have the leading axes of pixel_values. Images at native resolution: see `models.qwen3_vl`; those of
whose features not all are tokens: `models.llava_next`.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig, ModelConfig
from inbol_jax.models.decoder import Decoder, KVCache, SuffixCache
from inbol_jax.models.layers import ComputeOptions
from inbol_jax.sharding import keep_looked_up_rows

Batch = Mapping[str, jax.Array]


def packed_mask(segments: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Causal attention in which a token sees the prefix (segment 0) and its own branch."""
    # Prefix p q, branch 1 (a), branch 2 (c), padding: segments 0 0 1 2 -1. Which keys a query sees:
    #          p q a c .
    #     p    1 0 0 0 0
    #     q    1 1 0 0 0
    #     a    1 1 1 0 0
    #     c    1 1 0 1 0        (a is before c, but of another branch)
    #     .    1 1 0 0 0        (what padding sees does not matter: nothing reads its states)
    t = segments.shape[1]
    causal = jnp.tril(jnp.ones((t, t), bool))
    key, query = segments[:, None, :], segments[:, :, None]
    return causal & ((key == 0) | (key == query)) & (key >= 0)


def image_mask(is_image: Bool[Array, "b t"], segments: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Whether two tokens are of the same image, or of images without a token between them."""
    # Tokens t i i t i: starts 0 1 0 0 1, block 0 1 1 0 2: the first two i see each other both ways.
    is_image &= segments == 0
    starts = is_image & ~jnp.pad(is_image, ((0, 0), (1, 0)))[:, :-1]
    block = jnp.where(is_image, jnp.cumsum(starts, axis=1), 0)  # [b, t], from 1; 0 is no image
    return (block[:, :, None] == block[:, None, :]) & is_image[:, None, :]


class VisionLanguageModel(nn.Module):
    """A model of any family; the rest of the project calls `apply` with its methods' names.

    A family's module makes its submodules in `setup`, the decoder named `ModelConfig.decoder`, and
    has `tile_features`, or `encode_images` if its images are not as above.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    lora: LoraConfig | None = None
    """Options of the adapters. Variables without a collection `lora` make it the base model."""
    remat: str = "none"
    """Which activations of decoder layers training computes again, see `layers.REMAT_POLICIES`."""
    attention: str = "xla"
    """Implementation of attention, see `layers.ComputeOptions`."""

    @property
    def compute(self) -> ComputeOptions:
        """What the submodules take."""
        return ComputeOptions(self.dtype, self.lora, self.remat, self.attention)

    @property
    def decoder(self) -> Decoder:
        """The text decoder among the submodules."""
        return getattr(self, self.config.decoder)

    def encode_images(self, batch: Batch) -> Float[Array, "b q k*d"]:
        """Returns features in the decoder's embedding space, one vector per image token, and behind
        it, in the same array, any that are added behind the decoder's first layers.
        """
        features = self.tile_features(batch)  # [b * m, p, d]
        return features.reshape(len(batch["input_ids"]), -1, features.shape[-1])

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        """Returns the features of all tiles, whatever the leading axes of their pixels are."""
        raise NotImplementedError

    def normalised_pixels(self, batch: Batch) -> Float[Array, "n 3 H W"]:
        """Returns all images as the checkpoint's processor normalises them.

        Raises:
          InbolError: if the images have another size than config.json says.
        """
        pixels, side = batch["pixel_values"], self.config.vision.image_size
        *_, channels, height, width = pixels.shape
        if (height, width) != (side, side):
            raise InbolError(f"images of {height} x {width} pixels: config.json says {side} each")
        flat = pixels.reshape(-1, channels, height, width)
        if pixels.dtype != jnp.uint8:
            return flat
        # [n, 3, 1, 1] each: one number per image and channel
        mean, scale = (
            batch[name].reshape(-1, channels, 1, 1) for name in ("pixel_mean", "pixel_scale")
        )
        return (flat.astype(jnp.float32) - mean) * scale

    def __call__(self, batch: Batch) -> Float[Array, "b t V"]:
        """Returns logits in float32. Training uses `hidden` and `head`, which need less memory."""
        hidden, head = self.hidden(batch), self.head().astype(self.dtype)
        return jnp.einsum("btd,dv->btv", hidden, head, preferred_element_type=jnp.float32)

    def hidden(
        self, batch: Batch, places: Int[Array, "b a"] | None = None
    ) -> Float[Array, "b a d"]:
        """Returns the final hidden states, after the last norm, at the places, by default all."""
        return self.prefill(batch, places)[0]

    def prefill(
        self, batch: Batch, places: Int[Array, "b a"] | None = None
    ) -> tuple[Float[Array, "b a d"], list[KVCache]]:
        """Returns what `hidden` returns, and every layer's keys and values."""
        segments, positions = batch.get("segments"), batch.get("positions")
        if segments is None:
            # 1 -> 0, the prefix; 0 -> -1, padding
            segments = batch["attention_mask"].astype(jnp.int32) - 1  # prefix or padding
        if positions is None:  # padding on the left does not count
            positions = jnp.maximum(jnp.cumsum(batch["attention_mask"], axis=1) - 1, 0)
        pixels = batch.get("pixel_values")  # of no image in rows of text alone
        features = self.encode_images(batch) if pixels is not None and pixels.size else None
        embeddings, *added = self.embed(batch["input_ids"], features)
        mask = packed_mask(segments)
        if self.config.text.bidirectional_images:
            mask |= image_mask(batch["input_ids"] == self.config.image_token_id, segments)
        return self.decoder(
            embeddings, self.rotary_positions(batch, positions), mask, places, added
        )

    def rotary_positions(
        self, batch: Batch, positions: Int[Array, "b t"]
    ) -> Int[Array, "b t *half"]:
        """Returns what rotary embeddings take for positions in the row, see `layers.rope`."""
        return positions

    def next_positions(self, batch: Batch) -> Int[Array, " b"]:
        """Returns the position of the first token behind each prompt, for `decode_step`."""
        return batch["attention_mask"].sum(1)

    def make_suffixes(self, *arguments) -> list[SuffixCache]:
        """Returns room for continuations, as `Decoder.make_suffixes` does."""
        return self.decoder.make_suffixes(*arguments)

    def decode_step(self, *arguments) -> tuple[Float[Array, "b n d"], list[SuffixCache]]:
        """Decodes one token per continuation, as `Decoder.decode_step` does."""
        return self.decoder.decode_step(*arguments)

    def embed(
        self, input_ids: Int[Array, "b t"], features: Float[Array, "b q k*d"] | None
    ) -> list[Float[Array, "b t d"]]:
        """Returns token embeddings, with the image features, in order, at the image tokens, and
        each array of further features in their places, with zeros between."""
        is_image = input_ids == self.config.image_token_id  # [b, t]
        # The placeholder may lie outside the vocabulary.
        text = keep_looked_up_rows(self.decoder.embed(jnp.where(is_image, 0, input_ids)))
        if features is None or not features.size:
            return [text]
        # The i-th image token of a row takes its i-th feature.
        # is_image 0 1 1 0: cumulative 0 1 2 2, index 0 0 1 1; only places 1 and 2 are read below.
        index = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
        placed = jnp.take_along_axis(features, index[..., None], axis=1)
        # [b, t, k*d] -> k arrays [b, t, d]: embeddings, and what the first layers get added
        image, *more = jnp.split(placed, placed.shape[-1] // text.shape[-1], axis=-1)
        places = is_image[..., None]
        return [jnp.where(places, image, text), *(jnp.where(places, x, 0) for x in more)]

    def head(self) -> Float[Array, "d V"]:
        """Returns the matrix from hidden states to logits."""
        return self.decoder.head()
