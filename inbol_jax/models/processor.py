"""Questions and responses as token ids, by the checkpoint's own chat template and tokenizer."""

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.data.images import image_size, load_image
from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.loading import Checkpoint, load_without_weights
from inbol_jax.models.rendering import QUESTION, SYSTEM, Template, render
from inbol_jax.models.tiles import UNTILED, Grid
from inbol_jax.progress import say
from inbol_jax.prompts import DEFAULT, Prompt, PromptOptions, choose_prompt
from inbol_jax.questions import WithOptions

_CACHE_SIZE = 1 << 16
# Threads that read the rows of a batch, one per core: decoders let go of Python's lock.
READERS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="images")


class TextEncoder:
    """Turns questions into prompt ids, with the image tokens in place, and responses into ids.

    Any of the config's `eos_token_ids` ends a response. Responses get the one that the template
    writes, or else the first. The template is rendered once, around marks (`models.rendering`).

    Args:
      processor: the checkpoint's processor (tokenizer and chat template).
      asked: how questions are put (`text`), and the system text of every prompt.
    Raises:
      InbolError: if the tokenizer has tokens that the model does not have, or if the template
        fails or drops what it is to write, such as the system text.
    """

    def __init__(self, processor: Any, config: ModelConfig, asked: Prompt = DEFAULT):
        self._asked = asked
        self._processor, self._tokenizer, self._config = processor, processor.tokenizer, config
        # Caches of this instance: a cache of the class would keep every encoder alive.
        self.prompt = functools.lru_cache(_CACHE_SIZE)(self.prompt)
        self.response = functools.lru_cache(_CACHE_SIZE)(self.response)
        self._template = functools.cache(self._template)
        self._check_tokens()
        added = self._tokenizer.added_tokens_decoder.values()
        special = {*self._tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        self._special_tokens = sorted(token for token in special if token.strip())
        self._image_token = self._tokenizer.convert_ids_to_tokens(config.image_token_id)
        self._check_is_data(asked.prompt, "--prompt")
        self._check_is_data(asked.system, "--system")
        self._template((UNTILED,))

    def text(self, question: WithOptions) -> str:
        """Returns what the user's turn says: the question within the template of its prompt."""
        return self._asked.text(question)

    def grids(self, images: Iterable[Path]) -> tuple[Grid, ...]:
        """Returns how each image file of a question is cut into tiles, from its size.

        Raises:
          ImageError: if a file has none.
          InbolError: if the processor takes no image of these sides.
        """
        images, grids = list(images), []
        for image in images if self._config.tiled else ():
            size = image_size(image)
            try:
                grids.append(self._config.grid(self._processor, *size, alone=len(images) == 1))
            except (InbolError, ValueError) as error:  # transformers' own is a ValueError
                raise InbolError(f"{image}: {error}") from error
        return tuple(grids) or (UNTILED,) * len(images)

    def prompt(self, question: str, images: tuple[Grid, ...] = (UNTILED,)) -> tuple[int, ...]:
        """Returns the ids up to where the response begins.

        Args:
          question: the whole text of the user's turn (`text`).
          images: how each image in front of the question is cut into tiles.
        Raises:
          InbolError: if the question holds the image placeholder or another special token, or is
            too long for the model.
        """
        about = f"question {question[:60]!r}"
        self._check_is_data(question, about)
        ids = self._encode(self._template(images).prompt(question), images, about)
        if ids.count(self._config.image_token_id) != sum(self._runs(images)):
            raise InbolError(f"{about}: contains the model's image placeholder")
        return ids

    def response(
        self, question: str, response: str, images: tuple[Grid, ...] = (UNTILED,)
    ) -> tuple[int, ...]:
        """Returns the ids of the response and the end token, as they follow `prompt(question)`.

        Raises:
          InbolError: if the response is empty or holds a special token, if the tokenizer changes
            the prompt's ids, or if both together are too long for the model.
        """
        about = f"question {question[:60]!r}"
        if not response.strip():
            raise InbolError(f"{about}: its response is empty")
        about += f" with response {response[:60]!r}"
        self._check_is_data(response, about)
        prompt, template = self.prompt(question, images), self._template(images)
        # What the template writes between prompt and response, such as a space, belongs to the
        # response.
        text = template.prompt(question) + template.between + response
        ids = self._encode(text, images, about)
        # A tokenizer that merges across the seam would train on a prompt that is never asked.
        if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
            raise InbolError(f"{about}: the tokenizer changes what was there before the response")
        ends = self._config.eos_token_ids
        tokens = zip(ends, self._tokenizer.convert_ids_to_tokens(ends), strict=True)
        # What the template writes at the end of a response, as it was in the model's own training.
        whole = template.whole.rstrip()
        end = next((i for i, token in tokens if whole.endswith(token)), ends[0])
        return (*ids[len(prompt) :], end)

    def _check_is_data(self, text: str, about: str) -> None:
        """A text that the tokenizer would read as control, such as the end of a turn, is refused.

        Training on it would teach the model to end there, or put in an image that is not there.
        """
        token = next((token for token in self._special_tokens if token in text), None)
        if token is not None:
            kind = "image placeholder" if token == self._image_token else "special token"
            raise InbolError(f"{about}: contains the model's {kind} {token!r}")

    def _check_tokens(self) -> None:
        """Raises InbolError for a token without an embedding, or an end that is no token."""
        size = self._config.text.vocab_size
        for token, i in self._tokenizer.get_vocab().items():
            # The image token needs no embedding: `vlm.embed` replaces it.
            if i >= size and i != self._config.image_token_id:
                raise InbolError(
                    f"its tokenizer has a token {token!r} with id {i}, and the model's vocabulary "
                    f"has {size} tokens"
                )
        for i in self._config.eos_token_ids:
            if self._tokenizer.convert_ids_to_tokens(i) is None:
                raise InbolError(f"eos_token_id = {i} is no token of its tokenizer")

    def _template(self, images: tuple[Grid, ...]) -> Template:
        """The template with the system text and the text of each image in their places."""
        template = self._processor.chat_template
        if isinstance(template, dict):  # several by name
            template = template.get("default")
        if not isinstance(template, str):
            raise InbolError("its processor has no chat template that is a text")
        tokens = json.dumps(self._tokenizer.special_tokens_map, default=str)
        try:
            rendered = render(template, tokens, len(images), bool(self._asked.system))
        except ValueError as error:
            raise InbolError(f"its chat template {error}") from error
        token = self._image_token
        placeholder = self._processor.image_token if self._config.tiled else token
        (number,) = self._tokenizer.convert_tokens_to_ids([placeholder])
        written = self._tokenize(rendered.prompt(QUESTION)).count(number)
        if written != len(images):
            raise InbolError(
                f"its chat template writes {written} image tokens for {len(images)} images"
            )
        # Images may stand before or behind the question: `texts` gives them in order of appearance.
        texts = iter([self._config.image_text(self._processor, grid, token) for grid in images])
        before, after = (
            re.sub(re.escape(placeholder), lambda _: next(texts), text)
            for text in (rendered.before, rendered.after)
        )
        before, after = (text.replace(SYSTEM, self._asked.system) for text in (before, after))
        return rendered._replace(before=before, after=after)

    def _runs(self, images: tuple[Grid, ...]) -> list[int]:
        """How many tokens each image token of a text stands for."""
        return [count for grid in images for count in self._config.runs(grid)]

    def _tokenize(self, text: str) -> list[int]:
        # As in transformers, the tokenizer adds the begin token unless the template has it.
        bos = self._tokenizer.bos_token
        add_special_tokens = not (bos and text.startswith(bos))
        return self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]

    def _encode(self, text: str, images: tuple[Grid, ...], about: str) -> tuple[int, ...]:
        image, limit = self._config.image_token_id, self._config.text.max_positions
        # Two images of 4 and 2 tokens: "<image><image>Why?" -> i i i i i i Why ?
        runs, ids = iter(self._runs(images)), list[int]()
        for token in self._tokenize(text):
            ids += [token] * (next(runs, 1) if token == image else 1)
        if len(ids) > limit:  # never cut: images need all their tokens
            raise InbolError(
                f"{about}: {len(ids)} tokens, of which {ids.count(image)} are its "
                f"images', and the model was made for {limit}"
            )
        return tuple(ids)


def make_text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """Returns the text encoder of a checkpoint, for questions that are put as `checkpoint.prompt`
    says, or else as `DEFAULT` does; an InbolError that names the checkpoint if it has none."""
    processor = checkpoint.processor
    try:
        return TextEncoder(processor, checkpoint.config, checkpoint.prompt or DEFAULT)
    except InbolError as error:
        raise InbolError(f"{checkpoint.path}: {error}") from error


def prompt_for(
    model: str | Path,
    options: PromptOptions,
    data: Iterable[Path],
    tell: Callable[[str], object] = say,
) -> Prompt:
    """Returns the prompt of a checkpoint (`prompts.choose_prompt`); reads no weight.

    Raises:
      InbolError: if the checkpoint cannot be asked, or not with that prompt.
    """
    checkpoint = load_without_weights(model)
    prompt = choose_prompt(options, checkpoint.prompt, data, model=model, tell=tell)
    make_text_encoder(checkpoint.asked_by(prompt))
    return prompt


def load_image_inputs(
    checkpoint: Checkpoint, paths: Sequence[Path], grids: Sequence[Grid], pad_to: int | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays of a question's image files, by the checkpoint's own image processor.

    Args:
      paths: the images in the order of the prompt; none for a question about text alone.
      grids: how each image is cut that the prompt was written for.
      pad_to: static number of tiles, those that are unused included; by default none are.
    Returns:
      arrays [pad_to, ...] as `ModelConfig.image_shapes` has them.
    Raises:
      InbolError: if the image cannot be read, or if the processor's sizes are not the model's or
        the prompt's.
    """
    config, pictures, alone = checkpoint.config, [], len(paths) == 1
    for path, grid in zip(paths, grids, strict=True):
        picture = checkpoint.image_inputs(load_image(path), alone=alone)
        written = grid.tiles, sum(config.runs(grid))
        if (found := config.counts(picture)) != written:
            raise InbolError(
                f"{path}: its image processor makes {found[0]} tiles of {found[1]} tokens, its "
                f"prompt was written for {written[0]} of {written[1]}; if the file was changed "
                "meanwhile, start again"
            )
        pictures.append(picture)
    tiles = sum(grid.tiles for grid in grids) if pad_to is None else pad_to
    arrays = {name: np.zeros(*shape) for name, shape in config.image_shapes(tiles).items()}
    for name, array in arrays.items():  # the zeros behind the pictures are unused tiles
        if pictures:
            used = np.concatenate([picture[name] for picture in pictures])
            array[: len(used)] = used
    return arrays
