"""The questions of on-policy refusal: datasets as batches that the sampler takes."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import VQADataset, load_dataset_folder, summarise_rejections
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.tiles import padded_tiles
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import BatchShape, PromptedExample, model_inputs, padded_length
from inbol_jax.training.dataset import HostBatch, read_batch
from inbol_jax.training.rl_config import RlConfig
from inbol_jax.training.settings import picture_fingerprint


def read_datasets(config: RlConfig) -> list[VQADataset]:
    """The datasets of --data. Raises InbolError if one cannot be read."""
    datasets = [load_dataset_folder(path) for path in config.data]
    for dataset in datasets:
        if dataset.rejected and is_main():
            total = len(dataset.examples) + len(dataset.rejected)
            say(f"{dataset.file}: {summarise_rejections(dataset.rejected, total)}")
    return datasets


class Questions:
    """The questions of several datasets as the model is asked them, read when they are asked for.

    Attributes:
      lengths: i32[n], tokens of each question's prompt.
      tiles: i32[n], tiles of each question's images.

    Raises:
      InbolError: if a question cannot be asked, or leaves no room for a response.
    """

    def __init__(self, checkpoint: Checkpoint, datasets: Sequence[VQADataset], max_new_tokens: int):
        self.checkpoint, self._datasets = checkpoint, datasets
        self._encoder = make_text_encoder(checkpoint)
        self._starts = np.cumsum([0, *(len(dataset.examples) for dataset in datasets)])
        asked = [self._prompted(index) for index in range(self._starts[-1])]
        self.lengths = np.array([len(question.prompt) for question in asked], np.int32)
        self.tiles = np.array([question.tiles for question in asked], np.int32)
        room, longest = checkpoint.config.text.max_positions, int(self.lengths.max())
        if longest + max_new_tokens > room:
            raise InbolError(
                f"--max-new-tokens {max_new_tokens}: the longest question has {longest} tokens, "
                f"and the model was made for {room}"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def example(self, index: int) -> tuple[VQAExample, Path]:
        """A question, and its image folder."""
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        dataset = self._datasets[number]
        return dataset.examples[index - int(self._starts[number])], dataset.root

    @property
    def pictures(self) -> str:
        """The fingerprint of the images' bytes, which are read for it."""
        files = itertools.chain.from_iterable(map(self._images, range(len(self))))
        return picture_fingerprint(files, ImageHashes(Path()))

    def batch(self, indices: np.ndarray, mine: np.ndarray) -> HostBatch:
        """This process's rows of a batch of questions as `sample` takes them, and `row` i32[b].

        Args: as of `PackedDataset.batch`. Prompts and tiles are padded to those of the whole batch.
        """
        length, tiles = (int(x[indices].max()) for x in (self.lengths, self.tiles))
        shape = BatchShape(padded_length(length), padded_tiles(tiles))

        def read(index: int) -> HostBatch:
            question, (_, root) = self._prompted(index), self.example(index)
            inputs = model_inputs(self.checkpoint, question, shape, root)
            return inputs | {"row": np.int32(index)}

        return read_batch(read, self._images, indices, mine)

    def _images(self, index: int) -> list[Path]:
        example, root = self.example(index)
        return [root / name for name in example.images]

    def _prompted(self, index: int) -> PromptedExample:
        example, _ = self.example(index)
        grids = self._encoder.grids(self._images(index))
        prompt = self._encoder.prompt(self._encoder.text(example), grids)
        return PromptedExample(example, prompt, grids)
