"""Pre-training of the tiny LLaVA from scratch on the endless stream of the world. The shipped checkpoint is what this makes."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from optax import contrib

from inbol_jax.artifacts import fingerprint
from inbol_jax.construction.templates import SHORT_REFUSALS
from inbol_jax.errors import InbolError
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import init_params
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.models.weights import save_params
from inbol_jax.progress import say
from inbol_jax.sharding import make_mesh, round_batch
from inbol_jax.training.parallel import Jit
from inbol_jax.training.run import RunOptions, run_training
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.state import Flat, init_state, merge_variables, split_variables
from inbol_jax.training.step import make_train_step
from inbol_jax.training.trainer import Trainer
from inbol_jax.world.glyphs import glyph_frequency
from inbol_jax.world.questions import HELD_OUT_TYPE3, KNOWLEDGE, SEEN_TYPE3, VISUAL, ask
from inbol_jax.world.scenes import render, sample_glyph, sample_scene
from inbol_jax.world.splits import Split
from inbol_jax.world.tiny import (
    ASSISTANT,
    BOS,
    EOS,
    IMAGE,
    NUM_IMAGE_TOKENS,
    USER,
    build_tokenizer,
    write_skeleton,
)

QUESTIONS = 4  # an image
ROW = RowShape(
    tokens=64, targets=24
)  # one row in fifty is longer, and does without its last question
PREFIX = (BOS, USER, *[IMAGE] * NUM_IMAGE_TOKENS)
_ABSENT = tuple(k for k in (*SEEN_TYPE3, *HELD_OUT_TYPE3) if k.startswith(("absent", "empty")))
_UNSEEABLE = tuple(k for k in (*SEEN_TYPE3, *HELD_OUT_TYPE3) if k not in _ABSENT)
GLYPH_SHARE = 0.75  # of the images: names are what takes many images to learn
UNSEEABLE_SHARE, ABSENT_SHARE = 0.08, 0.06  # of the questions; the rest is answerable
UNSEEABLE_REFUSED, ABSENT_REFUSED = (
    0.15,
    0.05,
)  # of those: enough to know the phrases, too little to say them unasked


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Pre-train the tiny model from scratch.

    Attributes:
      out: folder of the run; the checkpoint in Hugging Face layout goes to OUT/model.
      steps: updates. The default is what the shipped checkpoint was made with.
      batch_size: images an update, each with four questions.
      learning_rate: peak of Muon and AdamW, after a short warm-up and before a cosine decay.
      workers: processes that draw images; 0 draws in the main process.
      seed: of weights and data.
    """

    out: Path = Path("runs/pretrain")
    steps: int = 9_000
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    workers: int = max(1, (os.cpu_count() or 2) - 1)
    seed: int = 0


class PretrainBatches:
    """Batch i of the stream, for any i: `grain` asks for them in order, in as many processes as it likes."""

    def __init__(self, seed: int, batch_size: int, steps: int):
        self._seed, self._batch_size, self._steps = seed, batch_size, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = [
            _row(np.random.default_rng((self._seed, index, i))) for i in range(self._batch_size)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@functools.cache
def _frequency() -> np.ndarray:
    return glyph_frequency()


@functools.lru_cache(maxsize=1 << 14)
def _ids(text: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(text).ids)


_tokenizer = functools.cache(build_tokenizer)


def _row(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An image with its questions in one row; answers are the targets."""
    while True:
        scene = sample_scene(
            rng, sample_glyph(rng, _frequency()) if rng.random() < GLYPH_SHARE else None
        )
        if scene.bucket() in Split.PRETRAIN.buckets:
            break
    kinds = [KNOWLEDGE] if scene.glyph else []
    branches: list[Branch] = []
    room, targets = ROW.tokens - len(PREFIX), ROW.targets
    while len(branches) < QUESTIONS:
        draw, refused = rng.random(), 0.0
        if kinds:
            kind = kinds.pop()
        elif draw < UNSEEABLE_SHARE:
            kind, refused = _UNSEEABLE[rng.integers(len(_UNSEEABLE))], UNSEEABLE_REFUSED
        elif draw < UNSEEABLE_SHARE + ABSENT_SHARE:
            kind, refused = _ABSENT[rng.integers(len(_ABSENT))], ABSENT_REFUSED
        else:
            kind = VISUAL[rng.integers(len(VISUAL))]
        if (asked := ask(scene, kind, rng)) is None:
            continue
        answer = (
            SHORT_REFUSALS[rng.integers(len(SHORT_REFUSALS))]
            if rng.random() < refused
            else asked.answer
        )
        question = (*_ids(asked.question), ASSISTANT)
        branch = Branch((*question, *_ids(answer), EOS), start=len(question))
        room -= len(branch.ids)
        targets -= len(branch.ids) - branch.start
        if room < 0 or targets < 0:  # rare: several long names and refusals in one row
            break
        branches.append(branch)
    return pack_row(PREFIX, branches, ROW) | {"image": render(scene, rng)}


def _optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Muon for the matrices, AdamW for embeddings, positions, biases and norms; its updates are as large as AdamW's would be, so one rate
    serves both. Muon reaches AdamW's loss in less than half as many images here. Source: Liu et al. 2025 (arXiv 2502.16982)."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(200, steps // 10), steps, 0.02 * learning_rate
    )

    def matrices(params: Flat) -> dict[str, contrib.MuonDimensionNumbers | None]:
        wanted = {
            path: "embed" not in path and getattr(p, "ndim", 0) == 2 for path, p in params.items()
        }  # optax masks leaves in between
        return {
            path: contrib.MuonDimensionNumbers() if matrix else None
            for path, matrix in wanted.items()
        }

    muon = contrib.muon(
        schedule,
        weight_decay=0.05,
        adam_b2=0.98,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def pretrain(config: PretrainConfig) -> Path:
    """Runs or resumes the pre-training. Returns the folder of the finished checkpoint."""
    for name in ("steps", "batch_size", "learning_rate"):
        if getattr(config, name) <= 0:
            raise InbolError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: must be greater than 0"
            )
    mesh = make_mesh()
    batch_size = round_batch(config.batch_size, mesh)
    folder = config.out / "model"
    write_skeleton(folder)
    llava = load_config(folder)
    trainable = split_variables({"params": init_params(llava, jax.random.key(config.seed))}, ())[0]
    optimizer = _optimizer(config.learning_rate, config.steps)
    sft = sft_objective(Llava(llava))

    def objective(variables: Mapping, reference: None, batch: Mapping, key: jax.Array):
        pixels = (
            batch["image"].astype(jnp.float32) / 127.5 - 1.0
        )  # what the processor's rescaling and normalisation do
        whole = jnp.ones(len(pixels), jnp.bool)  # no row fills up a batch
        return sft(
            variables,
            reference,
            {**batch, "valid": whole, "pixel_values": pixels.transpose(0, 3, 1, 2)[:, None]},
        )

    # Grain reads its switches from absl's command line, which is not ours.
    flags.FLAGS.mark_as_parsed()

    def batches(start: int) -> Iterable[dict[str, np.ndarray]]:
        source = grain.MapDataset.source(PretrainBatches(config.seed, batch_size, config.steps))[
            start:
        ]
        stream = source.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        return (
            stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=4)
            )
            if config.workers
            else stream
        )

    trainer = Trainer(
        Jit(make_train_step(objective, optimizer), mesh),
        config.steps,
        frozen={},
        label="pre-training",
    )
    settings = ["pretrain", config.steps, batch_size, config.learning_rate, config.seed]
    options = RunOptions(
        out=config.out,
        fingerprint=fingerprint(settings),
        examples_per_step=batch_size,
        save_steps=1000,
        logging_steps=50,
    )
    state = run_training(trainer, init_state(trainable, optimizer), batches, options)
    save_params(folder, merge_variables(jax.device_get(state.params), {})["params"])
    say(f"pre-trained {config.steps * batch_size:,} images -> {folder}")
    return folder
