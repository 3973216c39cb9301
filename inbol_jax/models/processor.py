"""Questions and responses as token ids, by the checkpoint's own chat template and tokenizer."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint


class TextEncoder:
    """Turns a question into prompt ids, with the image tokens in place, and a response into the ids that follow.

    Args:
      processor: the checkpoint's processor (tokenizer and chat template).
      image_token_id: placeholder in the vocabulary.
      num_image_tokens: how many of them an image takes.
      eos_token_ids: any of them ends a response; what is taught is the one that the template writes, or the first.
      max_tokens: longest sequence that the checkpoint was made for.
    """

    def __init__(
        self,
        processor: Any,
        *,
        image_token_id: int,
        num_image_tokens: int,
        eos_token_ids: Sequence[int],
        max_tokens: int,
    ):
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._num_image_tokens = num_image_tokens
        self._ends = {id: self._tokenizer.convert_ids_to_tokens(id) for id in eos_token_ids}
        self._max_tokens = max_tokens

    def _ids(self, text: str, about: str) -> tuple[int, ...]:
        # As transformers has it: what begins a sequence is the tokenizer's to add, unless the template has written it.
        bos = self._tokenizer.bos_token
        ids = self._tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))[
            "input_ids"
        ]
        if self._image_token_id in ids:
            ids = [
                i
                for token in ids
                for i in [token] * (self._num_image_tokens if token == self._image_token_id else 1)
            ]
        if (
            len(ids) > self._max_tokens
        ):  # never cut: an image must keep all its tokens, and a question its end
            raise InbolError(f"{about}: {len(ids)} tokens, of which {ids.count(self._image_token_id)} are its images', "
                             f"and the model was made for {self._max_tokens}")  # fmt: skip
        return tuple(ids)

    def _render(self, question: str, images: int, response: str | None) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        if response is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        try:
            return self._processor.apply_chat_template(
                messages, add_generation_prompt=response is None
            )
        except ValueError as error:
            raise InbolError(
                f"the checkpoint's processor has no chat template ({str(error).splitlines()[0]})"
            ) from error

    @functools.lru_cache(maxsize=1 << 16)
    def prompt(self, question: str, images: int = 1) -> tuple[int, ...]:
        """Ids up to where the response begins.

        Raises:
          InbolError: when the question holds the image placeholder, or is longer than the model allows.
        """
        ids = self._ids(self._render(question, images, None), f"question {question[:60]!r}")
        if ids.count(self._image_token_id) != images * self._num_image_tokens:
            raise InbolError(f"question {question[:60]!r}: contains the model's image placeholder")
        return ids

    @functools.lru_cache(maxsize=1 << 16)
    def response(self, question: str, response: str, images: int = 1) -> tuple[int, ...]:
        """Ids of the response and the end-of-sequence token, as they follow `prompt(question)`.

        Raises:
          InbolError: when the tokenizer does not leave the prompt as it was, or both are longer than the model allows.
        """
        if not response.strip():
            raise InbolError(f"question {question[:60]!r}: its response is empty")
        prompt_text, whole = (
            self._render(question, images, None),
            self._render(question, images, response),
        )
        prompt = self.prompt(question, images)
        # What the template puts between prompt and answer belongs to the answer (a space, say); some render an answer that is there
        # otherwise than they prompt for one, and generation follows the prompt.
        before, found, _ = (
            whole[len(prompt_text) :].partition(response)
            if whole.startswith(prompt_text)
            else ("", response, "")
        )
        about = f"question {question[:60]!r} with response {response[:60]!r}"
        ids = self._ids(prompt_text + before + response, about)
        if ids[: len(prompt)] != prompt or len(ids) == len(prompt) or not found:
            raise InbolError(
                f"{about}: the chat template or tokenizer changes what was there before the response"
            )
        end = next(
            (id for id, token in self._ends.items() if whole.rstrip().endswith(token)),
            next(iter(self._ends)),
        )
        return (*ids[len(prompt) :], end)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()


def make_text_encoder(loaded: Checkpoint) -> TextEncoder:
    """The text encoder of a checkpoint: its processor, with the token ids of its config."""
    c = loaded.config
    return TextEncoder(
        loaded.processor,
        image_token_id=c.image_token_id,
        num_image_tokens=c.num_image_tokens,
        eos_token_ids=c.eos_token_ids,
        max_tokens=c.text.max_positions,
    )


def load_pixels(loaded: Checkpoint, path: Path) -> np.ndarray:
    """f32[3, H, W] of an image file, by the checkpoint's own image processor.

    Raises:
      InbolError: when the image cannot be read, or the processor makes other sizes than the model takes.
    """
    pixels = np.asarray(
        loaded.processor.image_processor(load_image(path), return_tensors="np")["pixel_values"][0],
        np.float32,
    )
    if pixels.shape != (3, size := loaded.config.vision.image_size, size):
        raise InbolError(
            f"{loaded.path}: its image processor gives {pixels.shape}, config.json says (3, {size}, {size})"
        )
    return pixels
