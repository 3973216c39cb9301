"""Rollouts: a group of responses to each question of a batch, drawn from the policy, scored, and
packed for training.

Equal responses of a group become one branch, whose share of the group is its weight. A group whose
responses are all worth the same adds nothing to the gradient and is left out. From a peaked policy
that is most groups, so batches come in a few sizes.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import VQADataset, load_dataset_folder, summarise_rejections
from inbol_jax.errors import InbolError
from inbol_jax.losses import abstention_bonus, group_advantages
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import TextEncoder, make_text_encoder
from inbol_jax.models.tiles import padded_tiles
from inbol_jax.processes import from_all, is_main
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import (
    BatchShape,
    PromptedExample,
    model_inputs,
    padded_length,
    to_text,
)
from inbol_jax.sampling.sampler import Samples
from inbol_jax.sharding import local_rows
from inbol_jax.training.dataset import read_batch
from inbol_jax.training.parallel import round_batch_size
from inbol_jax.training.rewards import Reward
from inbol_jax.training.rl_config import RlConfig
from inbol_jax.training.settings import picture_fingerprint
from inbol_jax.training.trainer import HostBatch

# name -> (sum, weight), as the step's metrics, but on the host
HostMetrics = dict[str, tuple[np.float32, np.float32]]
SIZES = 3  # that a batch, and a row of it, is padded to: each pair of them is a program


@dataclasses.dataclass(frozen=True)
class QuestionSet:
    """The questions of several datasets. They are read when they are asked for."""

    checkpoint: Checkpoint
    datasets: Sequence[VQADataset]
    encoder: TextEncoder
    lengths: np.ndarray
    """i32[n], tokens of each question's prompt."""
    tiles: np.ndarray
    """i32[n], tiles of each question's images."""

    def __len__(self) -> int:
        return len(self.lengths)

    def question(self, index: int) -> tuple[VQAExample, Path]:
        """A question, and its image folder."""
        for dataset in self.datasets:
            if index < len(dataset.examples):
                return dataset.examples[index], dataset.root
            index -= len(dataset.examples)
        raise IndexError(index)

    @property
    def pictures(self) -> str:
        """The fingerprint of the images' bytes, which are read for it."""
        files = itertools.chain.from_iterable(map(self._images, range(len(self))))
        return picture_fingerprint(files, ImageHashes(Path()))

    def batch(self, indices: np.ndarray, mine: np.ndarray) -> HostBatch:
        """This process's rows of a batch of questions as `sample` takes them, and `row` i32[b].

        Args: as of `PackedDataset.batch`. Prompts and tiles are padded to those of the
        whole batch.
        """
        length, tiles = (int(x[indices].max()) for x in (self.lengths, self.tiles))
        shape = BatchShape(padded_length(length), padded_tiles(tiles))
        read = functools.partial(self._inputs, shape=shape)
        return read_batch(read, self._images, indices, mine)

    def _images(self, index: int) -> list[Path]:
        example, root = self.question(index)
        return [root / name for name in example.images]

    def _inputs(self, index: int, shape: BatchShape) -> HostBatch:
        example, root = self.question(index)
        grids = self.encoder.grids(self._images(index))
        prompt = self.encoder.prompt(self.encoder.text(example), grids)
        inputs = model_inputs(self.checkpoint, PromptedExample(example, prompt, grids), shape, root)
        return inputs | {"row": np.int32(index)}


def read_datasets(config: RlConfig) -> list[VQADataset]:
    """The datasets of --data. Raises InbolError if one cannot be read."""
    datasets = [load_dataset_folder(path) for path in config.data]
    for dataset in datasets:
        if dataset.rejected and is_main():
            total = len(dataset.examples) + len(dataset.rejected)
            say(f"{dataset.file}: {summarise_rejections(dataset.rejected, total)}")
    return datasets


def make_prompts(
    checkpoint: Checkpoint, datasets: Sequence[VQADataset], config: RlConfig
) -> QuestionSet:
    """The questions of the datasets as the model is asked them.

    Raises:
      InbolError: if a question cannot be asked, or leaves no room for a response.
    """
    encoder = make_text_encoder(checkpoint)
    sizes = []
    for dataset in datasets:
        for example in dataset.examples:
            grids = encoder.grids(dataset.root / name for name in example.images)
            prompt = encoder.prompt(encoder.text(example), grids)
            sizes.append((len(prompt), sum(grid.tiles for grid in grids)))
    lengths, tiles = np.array(sizes, np.int32).T
    room, longest = checkpoint.config.text.max_positions, int(lengths.max())
    if longest + config.group.max_new_tokens > room:
        raise InbolError(
            f"--max-new-tokens {config.group.max_new_tokens}: the longest question has {longest} "
            f"tokens, and the model was made for {room}"
        )
    return QuestionSet(checkpoint, datasets, encoder, lengths, tiles)


def sampling_options(config: RlConfig) -> SamplingOptions:
    """How responses are drawn: from the policy as it is."""
    return SamplingOptions(n=config.group.n, max_new_tokens=config.group.max_new_tokens)


def fresh_numbers(questions: np.ndarray, rollout: int) -> np.ndarray:
    """u32[b]: the numbers of questions u32[b], other ones in each rollout. `sample` folds its
    random keys from them."""
    numbers = [zlib.crc32(f"{rollout}:{number}".encode()) for number in questions]
    return np.array(numbers, np.uint32)


class Groups(NamedTuple):
    """The n responses to each of b questions, with what they are worth."""

    branches: list[list[Branch]]
    """The distinct responses to each question, in the order in which they were drawn first."""
    index: np.ndarray
    """i32[b, n]: which of these each response is."""
    rewards: np.ndarray
    """f32[b, n], the bonus of abstaining not included."""
    correct: np.ndarray
    """bool[b, n]"""
    refused: np.ndarray
    """bool[b, n]"""


@dataclasses.dataclass(frozen=True)
class RolloutPacker:
    """Makes the samples of a batch of questions into a batch to train on."""

    questions: QuestionSet
    config: RlConfig
    mesh: Mesh
    reward: Reward

    @functools.cached_property
    def batch_sizes(self) -> list[int]:
        """Numbers of rows that a batch may have, on all devices together."""
        accumulate = self.config.gradient_accumulation_steps
        largest = round_batch_size(self.config.batch_size, self.mesh, accumulate)
        return halves(largest, round_batch_size(1, self.mesh, accumulate))

    @functools.cached_property
    def target_sizes(self) -> list[int]:
        """Numbers of response tokens that a row may have."""
        return halves(self.config.group.n * self.config.group.max_new_tokens, 4)

    def batch(self, questions: HostBatch, samples: Samples) -> tuple[HostBatch, HostMetrics]:
        """This process's rows of the batch to train on, and the metrics of the whole rollout.

        Returns:
          packed rows with their images and the columns
          advantages: f32[b, n], of each branch; 0 behind the last one.
          shares: f32[b, n], how much of its group each branch is; 0 behind the last one.
          groups: f32[b], whose sum is the number of all groups, those left out included.
        """
        groups = self.score(questions, samples)
        advantages = self._advantages(groups)
        differ = advantages.any(axis=1)
        # The KL divergence has a gradient in every group.
        kept = np.flatnonzero(differ | (self.config.policy_gradient.kl_coef > 0))
        targets = [sum(len(branch.ids) for branch in groups.branches[i]) for i in kept]
        own = np.array([len(kept), max(targets, default=0)])
        rows, target = from_all(own).max(axis=0)  # all processes run one program
        size = next(s for s in self.batch_sizes if len(local_rows(self.mesh, s)) >= rows)
        target = next(s for s in self.target_sizes if s >= target)
        shape = RowShape(questions["input_ids"].shape[1] + target, target)
        packed = [
            self._pack(questions, i, groups.branches[i], groups.index[i], advantages[i], shape)
            for i in kept
        ]
        # Shapes come from some row, also if none is kept.
        nothing = np.zeros(0, np.int32)
        packed = packed or [self._pack(questions, 0, [], nothing, nothing, shape)]
        batch = collate(packed, len(local_rows(self.mesh, size)), valid=len(kept))
        batch["groups"] = np.zeros(len(batch["valid"]), np.float32)
        batch["groups"][0] = len(advantages)
        return batch, _rollout_metrics(groups, differ)

    def score(self, questions: HostBatch, samples: Samples) -> Groups:
        """The groups of the questions that are valid: what their responses are and are worth."""
        rows = questions["row"][questions["valid"]]
        branches, columns = [], []
        for i, row in enumerate(rows.tolist()):
            distinct, scores = self._group(row, Samples(*(x[i] for x in samples)))
            branches.append(distinct)
            columns.append(scores)
        table = np.array(columns, np.float32).reshape(len(rows), self.config.group.n, 4)
        index, rewards, correct, refused = np.moveaxis(table, 2, 0)
        return Groups(branches, index.astype(np.int32), rewards, correct > 0, refused > 0)

    def _group(
        self, row: int, samples: Samples
    ) -> tuple[list[Branch], list[tuple[int, float, bool, bool]]]:
        """The distinct responses, and of each response: which it is, its reward, whether it is
        correct, whether it is a refusal."""
        example, _ = self.questions.question(row)
        distinct: dict[tuple[int, ...], tuple[int, float, bool, bool]] = {}
        scores = []
        for tokens, logprobs, length in zip(*samples, strict=True):
            ids = tuple(tokens[:length].tolist())
            if ids not in distinct:
                options = sampling_options(self.config)
                text = to_text(self.questions.checkpoint, options, tokens, logprobs, length).text
                reward, found = self.reward(example, text), outcome(example, text)
                distinct[ids] = len(distinct), reward, found == "correct", found == "refused"
            scores.append(distinct[ids])
        return [Branch(ids) for ids in distinct], scores

    def _advantages(self, groups: Groups) -> np.ndarray:
        """f32[b, n], of each response."""
        bonus = np.float32(self.config.rewards.abstention_bonus)
        extra = bonus * np.asarray(abstention_bonus(groups.correct, groups.refused))
        scale = self.config.policy_gradient.scale_rewards
        return np.asarray(group_advantages(groups.rewards + extra, scale=scale))

    def _pack(
        self,
        questions: HostBatch,
        place: int,
        branches: Sequence[Branch],
        index: np.ndarray,
        advantages: np.ndarray,
        shape: RowShape,
    ) -> HostBatch:
        """The row of the question at a place of the batch."""
        n = self.config.group.n
        prompt = questions["input_ids"][place][questions["attention_mask"][place] != 0]
        row = pack_row(prompt.tolist(), branches, shape)
        for name in self.questions.checkpoint.config.image_shapes(1):
            row[name] = questions[name][place]
        row["shares"] = np.bincount(index, minlength=n).astype(np.float32) / np.float32(n)
        row["advantages"] = np.zeros(n, np.float32)
        row["advantages"][index] = advantages  # equal responses have the same
        return row


def _rollout_metrics(groups: Groups, differ: np.ndarray) -> HostMetrics:
    """Means over the groups of all processes, as (sum, weight)."""
    values = {
        "reward": groups.rewards,
        "accuracy": groups.correct,
        "refusal_rate": groups.refused,
        "informative_groups": differ[:, None],
    }
    sums = [x.mean(axis=1, dtype=np.float32).sum() for x in values.values()]
    *sums, count = from_all(np.array([*sums, len(differ)], np.float32)).sum(axis=0)
    return {name: (total, count) for name, total in zip(values, sums, strict=True)}


def halves(largest: int, unit: int) -> list[int]:
    """The largest size, its half and its quarter, each rounded up to whole units; rising."""
    return sorted({-(-largest // (unit * 2**i)) * unit for i in range(SIZES)})
