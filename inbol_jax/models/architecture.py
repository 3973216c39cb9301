"""The architecture of a model, as far as the Flax port knows it: plain frozen dataclasses.

`models.config` reads them from a checkpoint's config.json.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.models.anyres import UNCUT, Layout, image_layout
from inbol_jax.models.architecture_parts import NativeVisionConfig, TextConfig, VisionConfig
from inbol_jax.models.tiles import Grid, image_grid, tokens_per_tile

MAX_IMAGE_TOKENS = 1 << 14
"""Per image. More are in no model that there is."""
_MAX_ENLARGED = 8
"""What a processor may scale pictures to before it crops them, times the size of the model's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every family has. A family's own class adds its options and says what its images are."""

    processor_class: ClassVar[str] = "AutoProcessor"
    """transformers' class that loads the checkpoint's processor without torch."""
    tiled: ClassVar[bool] = False
    """Whether the processor writes text for images, which it may cut into several tiles."""
    bare: ClassVar[bool] = False
    """Whether that text is the image tokens alone."""
    cuts_several: ClassVar[bool] = True
    """Whether the processor also cuts an image that is not the only one of its question."""
    usual_tiles: ClassVar[int] = 1
    """Of an image, if nothing says how many (`tpu/plan.py`)."""
    parts: ClassVar[tuple[str, str, str]]
    """Names of the vision tower, of what follows it, and of the decoder in parameter paths."""

    vision: VisionConfig
    text: TextConfig
    image_token_id: int
    """Placeholder that image features replace, `num_image_tokens` per tile."""
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    """Any of these ends a response."""
    stored_dtype: str
    """Dtype of the weights as config.json has it: float32, float16 or bfloat16."""
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    """(token or pair of tokens, what generation adds to the logit of the last one, if the other
    one has come before), from generation_config.json; training and P(True) do not use it."""

    @property
    def num_image_tokens(self) -> int:
        """Image tokens per tile; an image that is not tiled is one tile."""
        raise NotImplementedError

    @property
    def tile_patches(self) -> int:
        """Patches per tile."""
        return self.vision.num_patches

    def patch_pairs(self, tiles: float) -> float:
        """Pairs of patches of so many tiles that attend to each other."""
        return tiles * self.tile_patches**2

    @property
    def max_size(self) -> int:
        """The largest side, in pixels, that a processor may scale pictures to."""
        return _MAX_ENLARGED * self.vision.image_size

    def max_image_tokens(self, tiles: int) -> int:
        """How many image tokens an image of so many tiles has at most."""
        return tiles * self.num_image_tokens

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        """Returns how the processor cuts an image of so many pixels, by default a question's only
        one. Raises InbolError if it takes no image of these sides.
        """
        return image_grid(processor, width, height)

    def check_processor(self, processor: Any) -> None:
        """Raises InbolError if the processor is not of this model's sizes."""
        if self.tiled and (written := tokens_per_tile(processor)) != self.num_image_tokens:
            raise InbolError(
                f"its processor writes {written} image tokens per tile (image_seq_len), "
                f"config.json says {self.num_image_tokens}"
            )

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of so many tiles, as `models.vlm` names them."""
        size, channels = self.vision.image_size, ((tiles, 3), "float32")
        # Pixels travel as bytes, a quarter of float32; the device normalises them.
        pixels = ((tiles, 3, size, size), "uint8")
        return {"pixel_values": pixels, "pixel_mean": channels, "pixel_scale": channels}

    def blank_tile(self) -> dict[str, np.ndarray]:
        """The arrays of an image of one tile whose pixels all count and are 0."""
        arrays = {name: np.ones(*shape) for name, shape in self.image_shapes(1).items()}
        return arrays | {"pixel_values": np.zeros_like(arrays["pixel_values"])}

    def num_tiles(self, arrays: Mapping[str, np.ndarray]) -> int:
        """The number of tiles of an image in the arrays of its processor."""
        return len(arrays["pixel_values"])

    def prepared(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what a processor makes as the model takes it; the arrays must have values."""
        return batch

    def image_tokens(self, batch: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """How many image tokens the images of a batch need.

        Returns:
          i64[b], of each row, i64[1], of all rows, or None if unused images cannot be told.
        Raises:
          InbolError: if the arrays of the images do not fit each other.
        """
        pixels = batch.get("pixel_values", np.empty((0, 3, 0, 0)))
        if pixels.ndim == 4:
            return np.array([len(pixels)]) * self.num_image_tokens
        if not self.tiled:  # only tiles that transformers leaves unused are zeros
            return None
        # [b, m, ...] -> [b, m] -> [b], used images per row. The scale of one is never 0; without a
        # scale, an image whose pixels are all 0 is unused.
        used = np.asarray(batch.get("pixel_scale", pixels)) != 0
        return used.any(axis=tuple(range(2, used.ndim))).sum(1) * self.num_image_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig(ModelConfig):
    """A LLaVA: vision tower, two-layer projector, decoder."""

    parts = ("vision_tower", "multi_modal_projector", "language_model")

    vision_feature_layers: tuple[int, ...]
    """Which hidden states of [embeddings, layer 1, ..., layer n] are concatenated and projected."""
    keep_first_token: bool
    """Whether the first feature is used, which is CLIP's class token (select strategy "full")."""
    projector_hidden_act: str
    projector_bias: bool

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches + self.vision.is_clip - (not self.keep_first_token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaNextConfig(LlavaConfig):
    """LLaVA-NeXT: a LLaVA that sees the tiles of an image and the whole, see `models.anyres`."""

    processor_class = "LlavaNextProcessor"
    tiled = True
    bare = True
    usual_tiles = 5  # of 640 x 480 pixels
    max_tiles: ClassVar[int | None] = None

    resolutions: tuple[tuple[int, int], ...]
    """Heights and widths in pixels that an image may be scaled to."""

    def layout(self, height: int, width: int, *, alone: bool = True) -> Layout:
        """Returns the layout of an image, by default a question's only one."""
        if not (alone or self.cuts_several):
            return UNCUT
        size = self.vision.image_size
        tile = size, size // self.vision.patch_size
        return image_layout((height, width), self.resolutions, tile, self.max_tiles)

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        layout = self.layout(height, width, alone=alone)
        tokens = layout.num_tokens(self.num_image_tokens)
        return Grid(layout.rows, layout.columns, tokens=tokens)

    def max_image_tokens(self, tiles: int) -> int:
        layouts = [self.layout(*size) for size in self.resolutions]
        if tiles not in (numbers := sorted({layout.tiles for layout in layouts})):
            raise InbolError(f"{tiles} tiles per image: its resolutions have {numbers}")
        per_tile = self.num_image_tokens
        return max(layout.num_tokens(per_tile) for layout in layouts if layout.tiles == tiles)

    def check_processor(self, processor: Any) -> None:
        """Prompts and layouts follow config.json, pixels the processor."""
        found = processor.image_processor.image_grid_pinpoints
        if tuple(map(tuple, found)) != self.resolutions:
            raise InbolError(
                "its processor has other image_grid_pinpoints than config.json: "
                f"{str(found)[:60]}..., {str(self.resolutions)[:60]}..."
            )

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        # No image has less than one tile; zeros are behind those of the images.
        layouts = {"image_layouts": ((tiles, len(UNCUT)), "int32")}
        return super().image_shapes(tiles) | layouts

    def blank_tile(self) -> dict[str, np.ndarray]:
        return super().blank_tile() | {"image_layouts": np.array([UNCUT], np.int32)}

    def prepared(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        if "pixel_values" not in batch or "image_layouts" in batch:
            return batch
        batch, pixels = dict(batch), np.asarray(batch["pixel_values"])
        sizes = np.asarray(batch.pop("image_sizes", np.empty((0, 2)))).tolist()
        of_rows = np.asarray(batch.pop("batch_num_images", np.ones(len(sizes), int))).tolist()
        if pixels.ndim != 5 or not len(pixels) == len(sizes) == sum(of_rows):
            raise InbolError(
                f"pixel_values {pixels.shape} and {len(sizes)} image_sizes: one image each, as "
                "tiles [n, tiles, 3, H, W], is needed"
            )
        # Per image: of_rows (1, 2) becomes (True, False, False).
        alone = [count == 1 for count in of_rows for _ in range(count)]
        layouts = [self.layout(*size, alone=one) for size, one in zip(sizes, alone, strict=True)]
        if (most := max(layout.tiles for layout in layouts)) > pixels.shape[1]:
            raise InbolError(f"pixel_values has {pixels.shape[1]} tiles, an image has {most}")
        # The processor pads every image to the tiles of the one with most: [n, most, 3, H, W]
        # becomes [sum of the images' tiles, 3, H, W].
        tiles = [x[: layout.tiles] for x, layout in zip(pixels, layouts, strict=True)]
        return batch | {
            "pixel_values": np.concatenate(tiles),
            "image_layouts": np.array(layouts, np.int32),
        }

    def image_tokens(self, batch: Mapping[str, np.ndarray]) -> np.ndarray | None:
        layouts = np.asarray(batch.get("image_layouts", np.zeros((0, len(UNCUT)), int)))
        # As `token_places` counts: features of the whole, then rows with one token more, their end.
        ends = layouts[..., 4] * (layouts[..., 5] + 1)
        tokens = layouts.any(-1) * self.num_image_tokens + ends
        return tokens.sum(-1, keepdims=layouts.ndim == 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaOnevisionConfig(LlavaNextConfig):
    """LLaVA-OneVision: like LLaVA-NeXT, but features of many tiles are scaled down, and images are
    cut that are their question's only one."""

    processor_class = "LlavaOnevisionProcessor"
    cuts_several = False

    max_tiles: int
    """Features of more tiles than so are scaled down."""

    def check_processor(self, processor: Any) -> None:
        super().check_processor(processor)
        found, needed = processor.vision_aspect_ratio, f"anyres_max_{self.max_tiles}"
        if found != needed:
            raise InbolError(
                f"its processor has vision_aspect_ratio {found!r}, config.json says {needed!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaresConfig(ModelConfig):
    """A family whose image tokens are squares of patches."""

    tiled = True

    scale_factor: int
    """A square of this many patches per side becomes one feature."""

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches // self.scale_factor**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idefics3Config(SquaresConfig):
    """Idefics3, SmolVLM and SmolVLM2: SigLIP-like tower, pixel shuffle, one projection, decoder."""

    # SmolVLM's own class also needs torchvision and num2words, for videos; images and texts are
    # the same.
    processor_class = "Idefics3Processor"
    parts = ("vision_model", "connector", "text_model")

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        size = self.vision.image_size
        mask = {"pixel_attention_mask": ((tiles, size, size), "bool")}
        return super().image_shapes(tiles) | mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen3VLConfig(ModelConfig):
    """Qwen3-VL: a tower at native resolution, mergers, a decoder with positions in three axes.

    A tile is the square of patches that becomes one image token.
    """

    processor_class = "Qwen3VLProcessor"
    tiled = True
    bare = True
    usual_tiles = 300  # of 640 x 480 pixels
    parts = ("vision_tower", "merger", "language_decoder")

    vision: NativeVisionConfig
    mrope_section: tuple[int, ...]
    """How many rotary frequencies take their position from time, row and column."""
    mrope_interleaved: bool = True
    """Whether time, row and column take turns, and do not lie behind each other."""

    @property
    def num_image_tokens(self) -> int:
        return 1

    @property
    def tile_patches(self) -> int:
        return self.vision.square

    def patch_pairs(self, tiles: float) -> float:
        patches, vision = tiles * self.tile_patches, self.vision
        if vision.window is None:
            return patches**2
        # window = 4 tokens, merge 2: 8 x 8 patches see each other in most layers.
        seen = min(patches, (vision.window * vision.merge_size) ** 2)
        full = len(vision.full_layers) / vision.num_layers
        return patches * (full * patches + (1 - full) * seen)

    @property
    def max_size(self) -> int:
        """These processors bound the number of pixels, under the names of sides."""
        return MAX_IMAGE_TOKENS * (self.vision.merge_size * self.vision.patch_size) ** 2

    def check_processor(self, processor: Any) -> None:
        super().check_processor(processor)
        for name in ("patch_size", "temporal_patch_size", "merge_size"):
            found, needed = getattr(processor.image_processor, name), getattr(self.vision, name)
            if found != needed:
                raise InbolError(f"its processor has {name} {found}, config.json says {needed}")

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        return {
            "pixel_values": ((tiles * self.tile_patches, self.vision.patch_dim), "float32"),
            "image_grid_thw": ((tiles, 3), "int32"),  # zeros behind those of the images
        }

    def blank_tile(self) -> dict[str, np.ndarray]:
        side = self.vision.merge_size
        return super().blank_tile() | {"image_grid_thw": np.array([[1, side, side]], np.int32)}

    def num_tiles(self, arrays: Mapping[str, np.ndarray]) -> int:
        return len(arrays["pixel_values"]) // self.tile_patches

    def image_tokens(self, batch: Mapping[str, np.ndarray]) -> np.ndarray | None:
        pixels = batch.get("pixel_values", np.empty((0, 0)))
        grid = np.asarray(batch.get("image_grid_thw", np.empty((*pixels.shape[:-2], 0, 3), int)))
        frames = grid[..., 0][grid.any(-1)]
        if (frames != 1).any():
            raise InbolError("image_grid_thw: more than one frame, and videos are not supported")
        # [b, m, 3] -> i64[b], patches per row; [k, 3] -> i64[1], of the batch.
        patches = grid.prod(-1).sum(-1, keepdims=grid.ndim == 2)
        held = pixels.shape[-2]
        if (patches > held).any() or (pixels.ndim == 2 and patches[0] != held):
            raise InbolError(f"image_grid_thw has {patches.max()} patches, pixel_values {held}")
        return patches // self.tile_patches


class Qwen25VLConfig(Qwen3VLConfig):
    """Qwen2.5-VL: the same with windows in its tower, and M-RoPE in sections."""

    processor_class = "Qwen2_5_VLProcessor"
    usual_tiles = 391  # of 640 x 480 pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVLConfig(SquaresConfig):
    """InternVL3 and 3.5: InternViT, pixel shuffle, norm and two-layer projector, decoder."""

    processor_class = "InternVLProcessor"
    parts = ("vision_tower", "multi_modal_projector", "language_model")

    projector_hidden_act: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma3Config(SquaresConfig):
    """Gemma 3: SigLIP, average pooling, norm and one projection, decoder."""

    processor_class = "Gemma3Processor"
    parts = ("vision_tower", "multi_modal_projector", "language_model")
