"""Questions and responses as token ids, by the checkpoint's own chat template and tokenizer."""

import functools
from collections.abc import Sequence
from typing import Any

from inbol_jax.errors import InbolError


class TextEncoder:
    """Turns a question into prompt ids, with the image tokens in place, and a response into the ids that follow.

    Args:
      processor: the checkpoint's processor (tokenizer and chat template).
      image_token_id: placeholder in the vocabulary.
      num_image_tokens: how many of them an image takes.
      eos_token_id: ends a response.
    """

    def __init__(self, processor: Any, *, image_token_id: int, num_image_tokens: int, eos_token_id: int):
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._num_image_tokens = num_image_tokens
        self._eos_token_id = eos_token_id

    def _ids(self, text: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if self._image_token_id not in ids:
            return ids
        return [i for token in ids for i in [token] * (self._num_image_tokens if token == self._image_token_id else 1)]

    def _render(self, question: str, response: str | None) -> str:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        if response is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        return self._processor.apply_chat_template(messages, add_generation_prompt=response is None)

    @functools.lru_cache(maxsize=1 << 16)  # noqa: B019 - an encoder lives as long as its stage; questions recur across images
    def prompt(self, question: str) -> tuple[int, ...]:
        """Ids up to where the response begins.

        Raises:
          InbolError: when the question holds the image placeholder or another special token of the model.
        """
        ids = self._ids(self._render(question, None))
        if ids.count(self._image_token_id) != self._num_image_tokens:
            raise InbolError(f"question {question[:60]!r}: contains the model's image placeholder")
        return tuple(ids)

    @functools.lru_cache(maxsize=1 << 16)  # noqa: B019
    def response(self, question: str, response: str) -> tuple[int, ...]:
        """Ids of the response and the end-of-sequence token, as they follow `prompt(question)`.

        Raises:
          InbolError: when the tokenizer or the template does not leave the prompt as it was.
        """
        ids, prompt = self._ids(self._render(question, response)), self.prompt(question)
        if tuple(ids[: len(prompt)]) != prompt or len(ids) == len(prompt):
            raise InbolError(
                f"the chat template or tokenizer changes the prompt of {question[:60]!r} when the response {response[:60]!r} follows"
            )
        response_ids = ids[len(prompt) :]
        if self._eos_token_id in response_ids:  # what a template writes after it (a newline, say) is not generated
            response_ids = response_ids[: response_ids.index(self._eos_token_id)]
        return (*response_ids, self._eos_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()
