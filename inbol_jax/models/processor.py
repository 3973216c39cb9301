"""Questions and responses as token ids, by the checkpoint's own chat template and tokenizer."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LlavaConfig
from inbol_jax.models.loading import Checkpoint

_CACHE_SIZE = 1 << 16


class TextEncoder:
    """Turns questions into prompt ids, with the image tokens in place, and responses into ids.

    Any of the config's `eos_token_ids` ends a response. Responses get the one that the template
    writes, or else the first.

    Args:
      processor: the checkpoint's processor (tokenizer and chat template).
    """

    def __init__(self, processor: Any, config: LlavaConfig):
        self._processor, self._tokenizer, self._config = processor, processor.tokenizer, config
        # Caches of this instance: a cache of the class would keep every encoder alive.
        self.prompt = functools.lru_cache(_CACHE_SIZE)(self.prompt)
        self.response = functools.lru_cache(_CACHE_SIZE)(self.response)

    def prompt(self, question: str, images: int = 1) -> tuple[int, ...]:
        """Returns the ids up to where the response begins.

        Raises:
          InbolError: if the question holds the image placeholder, or is too long for the model.
        """
        about = f"question {question[:60]!r}"
        ids = self._encode(self._render(question, images, None), about)
        if ids.count(self._config.image_token_id) != images * self._config.num_image_tokens:
            raise InbolError(f"{about}: contains the model's image placeholder")
        return ids

    def response(self, question: str, response: str, images: int = 1) -> tuple[int, ...]:
        """Returns the ids of the response and the end token, as they follow `prompt(question)`.

        Raises:
          InbolError: if the response is empty, if the tokenizer changes the prompt's ids, or if
            both together are too long for the model.
        """
        about = f"question {question[:60]!r}"
        if not response.strip():
            raise InbolError(f"{about}: its response is empty")
        about += f" with response {response[:60]!r}"
        prompt = self.prompt(question, images)
        prompt_text = self._render(question, images, None)
        whole_text = self._render(question, images, response)
        # What the template writes between prompt and response, such as a space, belongs to the
        # response. If it renders a turn with a response differently from an open one, from which
        # generation starts, the response follows the open one directly.
        between, is_verbatim = "", True
        if whole_text.startswith(prompt_text):
            between, separator, _ = whole_text[len(prompt_text) :].partition(response)
            is_verbatim = bool(separator)
        ids = self._encode(prompt_text + between + response, about)
        if ids[: len(prompt)] != prompt or len(ids) == len(prompt) or not is_verbatim:
            raise InbolError(
                f"{about}: the chat template or tokenizer changes what was there before the "
                "response"
            )
        return (*ids[len(prompt) :], self._eos_token_id(whole_text))

    def _render(self, question: str, images: int, response: str | None) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        if response is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        is_open = response is None
        try:
            return self._processor.apply_chat_template(messages, add_generation_prompt=is_open)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            message = f"the checkpoint's processor has no chat template ({reason})"
            raise InbolError(message) from error

    def _encode(self, text: str, about: str) -> tuple[int, ...]:
        # As in transformers, the tokenizer adds the begin token unless the template has it.
        bos, image = self._tokenizer.bos_token, self._config.image_token_id
        limit = self._config.text.max_positions
        add_special_tokens = not (bos and text.startswith(bos))
        ids: list[int] = []
        for token in self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]:
            ids += [token] * (self._config.num_image_tokens if token == image else 1)
        if len(ids) > limit:  # never cut: images need all their tokens
            raise InbolError(
                f"{about}: {len(ids)} tokens, of which {ids.count(image)} are its "
                f"images', and the model was made for {limit}"
            )
        return tuple(ids)

    def _eos_token_id(self, text: str) -> int:
        ends = self._config.eos_token_ids
        tokens = zip(ends, self._tokenizer.convert_ids_to_tokens(ends), strict=True)
        return next((i for i, token in tokens if text.rstrip().endswith(token)), ends[0])


def make_text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """Returns the text encoder of a checkpoint."""
    return TextEncoder(checkpoint.processor, checkpoint.config)


def load_pixels(checkpoint: Checkpoint, path: Path) -> np.ndarray:
    """Returns f32[3, H, W] of an image file, by the checkpoint's own image processor.

    Raises:
      InbolError: if the image cannot be read, or if the processor's size is not the model's.
    """
    processor, size = checkpoint.processor.image_processor, checkpoint.config.vision.image_size
    batch = processor(load_image(path), return_tensors="np")
    pixels = np.asarray(batch["pixel_values"][0], np.float32)
    if pixels.shape != (3, size, size):
        raise InbolError(
            f"{checkpoint.path}: its image processor gives {pixels.shape}, "
            f"config.json says (3, {size}, {size})"
        )
    return pixels
