"""Pre-trains the checkpoint that ships with the package, on the endless stream of the world.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/pretrain.py

The same command goes on with a run that was stopped.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from optax import contrib
from tiny_llava import (
    ASSISTANT,
    BOS,
    EOS,
    IMAGE,
    NUM_IMAGE_TOKENS,
    USER,
    build_tokenizer,
    glyph_frequency,
    sample_glyph,
    told_name,
    write_skeleton,
)

from inbol_jax.artifacts import one_writer
from inbol_jax.cli import parse_options
from inbol_jax.confidence.samples import P_TRUE_PROMPT
from inbol_jax.defaults import BatchSize, Bounded, Bounds, NumSteps, Positive, Seed
from inbol_jax.errors import InbolError
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.loading import init_params
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.models.writing import save_params
from inbol_jax.progress import say
from inbol_jax.sampling.p_true import VERDICTS
from inbol_jax.sharding import make_mesh, replicate, round_batch
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.training.config import SftConfig
from inbol_jax.training.model import check_weights, split_variables
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.step import (
    Flat,
    TrainProgram,
    make_eval_step,
    make_train_step,
    merge_variables,
)
from inbol_jax.training.trainer import Trainer
from inbol_jax.world.config import Split
from inbol_jax.world.questions import (
    HELD_OUT_TYPE3,
    KNOWLEDGE,
    SEEN_TYPE3,
    VISUAL,
    WorldQuestion,
    ask,
)
from inbol_jax.world.scenes import Scene, render, sample_scene

QUESTIONS = 4  # per image
# Longer rows, mostly those that ask back whether an answer is true, go without their last question.
ROW = RowShape(tokens=72, targets=24)
PREFIX = (BOS, USER, *[IMAGE] * NUM_IMAGE_TOKENS)
_TYPE3 = (*SEEN_TYPE3, *HELD_OUT_TYPE3)
_ABSENT = tuple(kind for kind in _TYPE3 if " " in kind)  # these ask for what this picture lacks
_UNSEEABLE = tuple(kind for kind in _TYPE3 if " " not in kind)
GLYPH_SHARE = 0.75  # share of the images that show a glyph: names take many images to learn
# Shares of the questions; the rest is answerable.
UNSEEABLE_SHARE, ABSENT_SHARE = 0.08, 0.06
# The base must know the words of refusing and not when to use them: some questions are refused at
# random, among kinds of which as many can be answered as cannot, and no held-out kind among them.
REFUSED_SHARE = 0.03
REFUSED = frozenset(
    ("color", "size", "count", "exists", "absent color", "absent size", "price", "taste")
)
# Share of the questions that go with an answer, and ask whether it is true.
P_TRUE_SHARE = 0.06
SAVE_STEPS = 1000
_WORKERS = max(1, (os.cpu_count() or 2) - 1)  # one core is left to the training


@dataclasses.dataclass(frozen=True)
class PretrainConfig(Bounded):
    """Pre-train the tiny model from scratch."""

    out: Path = Path("runs/pretrain")
    """Folder of the run. The checkpoint, in Hugging Face layout, goes to OUT/model."""
    steps: NumSteps = 9_000
    """Optimizer steps. The shipped checkpoint was made with the default."""
    batch_size: BatchSize = 128
    """Images per optimizer step, each with four questions."""
    learning_rate: Positive = 1.5e-3
    """Peak learning rate of Muon and AdamW, between a short warm-up and a cosine decay."""
    workers: Annotated[int, Bounds(0, 1_000)] = _WORKERS
    """Processes that draw images; 0 draws them in the main process."""
    seed: Seed = 0
    """Seed of the weights and of the data."""


class PretrainBatches:
    """Batch i of the stream, for any i: `grain` asks for them in order, in several processes."""

    def __init__(self, seed: int, batch_size: int, steps: int):
        self._seed, self._batch_size, self._steps = seed, batch_size, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = [
            _row(np.random.default_rng((self._seed, index, i))) for i in range(self._batch_size)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@functools.lru_cache(maxsize=1 << 14)
def _ids(text: str) -> tuple[int, ...]:
    return tuple(build_tokenizer().encode(text).ids)


def _row(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An image with its questions in one row, whose targets are the answers."""
    scene = _scene(rng)
    kinds = [KNOWLEDGE] if scene.glyph else []
    branches: list[Branch] = []
    tokens_left, targets_left = ROW.tokens - len(PREFIX), ROW.targets
    while len(branches) < QUESTIONS:
        kind = kinds.pop() if kinds else _kind(rng)
        if (question := _told(scene, kind, rng)) is None:
            continue
        if rng.random() < P_TRUE_SHARE:
            question = _verdict(question, kind, rng)
        elif kind in REFUSED and rng.random() < REFUSED_SHARE:
            refusal = SHORT_REFUSALS[rng.integers(len(SHORT_REFUSALS))]
            question = question._replace(answer=refusal)
        prompt = (*_ids(question.text), ASSISTANT)
        branch = Branch((*prompt, *_ids(question.answer), EOS), start=len(prompt))
        tokens_left -= len(branch.ids)
        targets_left -= len(branch.ids) - branch.start
        if tokens_left < 0 or targets_left < 0:  # rare: several long names and refusals
            break
        branches.append(branch)
    return pack_row(PREFIX, branches, ROW) | {"image": render(scene, rng)}


def _scene(rng: np.random.Generator) -> Scene:
    """A scene that pre-training owns."""
    while True:
        with_glyph = rng.random() < GLYPH_SHARE
        scene = sample_scene(rng, sample_glyph(rng, glyph_frequency()) if with_glyph else None)
        if scene.bucket() in Split.PRETRAIN.buckets:
            return scene


def _kind(rng: np.random.Generator) -> str:
    """A kind of question."""
    draw = rng.random()
    if draw < UNSEEABLE_SHARE:
        return _UNSEEABLE[rng.integers(len(_UNSEEABLE))]
    if draw < UNSEEABLE_SHARE + ABSENT_SHARE:
        return _ABSENT[rng.integers(len(_ABSENT))]
    return VISUAL[rng.integers(len(VISUAL))]


def _told(scene: Scene, kind: str, rng: np.random.Generator) -> WorldQuestion | None:
    """A question with the answer that a text would tell; None if the scene allows none."""
    question = ask(scene, kind, rng)
    if question and kind == KNOWLEDGE:
        return question._replace(answer=told_name(scene.glyph.glyph, rng))
    return question


def _verdict(question: WorldQuestion, kind: str, rng: np.random.Generator) -> WorldQuestion:
    """Whether an answer is true: what is told is, and what is told of another scene is not.

    What is told on Type 3 counts as true, as in texts: P(True) does not know what no picture shows.
    """
    proposed, verdict = question.answer, VERDICTS[0]
    if rng.random() < 0.5:
        verdict = VERDICTS[1]
        while proposed == question.answer:
            if other := _told(_scene(rng), kind, rng):
                proposed = other.answer
    text = P_TRUE_PROMPT.format(question=question.text, answer=proposed)
    return WorldQuestion(text, verdict)


def _optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Muon for the matrices, AdamW for embeddings, positions, biases and norms.

    Muon's updates are scaled to the size of AdamW's, so that one learning rate serves both. It
    reaches AdamW's loss with less than half as many images here.
    Source: Liu et al. 2025 (arXiv 2502.16982).
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=learning_rate,
        warmup_steps=min(200, steps // 10),
        decay_steps=steps,
        end_value=0.02 * learning_rate,
    )

    def matrices(params: Flat) -> dict[str, contrib.MuonDimensionNumbers | None]:
        numbers = dict.fromkeys(params)
        for path, value in params.items():
            # optax passes placeholders without a rank for the leaves that it has masked.
            if getattr(value, "ndim", 0) == 2 and "embed" not in path:
                numbers[path] = contrib.MuonDimensionNumbers()
        return numbers

    muon = contrib.muon(
        schedule,
        weight_decay=0.05,
        adam_b2=0.98,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


@one_writer
def pretrain(config: PretrainConfig) -> Path:
    """Runs or resumes the pre-training. Returns the folder of the finished checkpoint."""
    mesh = make_mesh()
    batch_size = round_batch(config.batch_size, mesh)
    folder = config.out / "model"
    write_skeleton(folder)
    architecture = load_config(folder)
    variables = {"params": init_params(architecture, jax.random.key(config.seed))}
    trainable, _ = split_variables(variables, ())
    optimizer = _optimizer(config.learning_rate, config.steps)
    sft = sft_objective(make_model(architecture))

    def objective(variables: Mapping, batch: Mapping):
        # [b, 48, 48, 3] in 0 to 255 -> [b, 1 image, 3, 48, 48] in -1 to 1, as the processor does it
        pixels = batch["image"].astype(jnp.float32) / 127.5 - 1.0
        pixels = pixels.transpose(0, 3, 1, 2)[:, None]
        valid = jnp.ones(len(pixels), jnp.bool)  # no row merely fills up a batch
        return sft(variables, {**batch, "valid": valid, "pixel_values": pixels})

    # Grain reads its switches from absl's command line, which is not ours.
    flags.FLAGS.mark_as_parsed()

    def batches(start: int) -> Iterable[dict[str, np.ndarray]]:
        source = grain.MapDataset.source(PretrainBatches(config.seed, batch_size, config.steps))
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        stream = source[start:].to_iter_dataset(reading)
        if not config.workers:
            return stream
        return stream.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=4)
        )

    settings = {
        "stage": "pre-training",
        "steps": config.steps,
        "batch_size": batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
    }
    run_config = SftConfig.from_options(
        data=config.out, out=config.out, save_steps=SAVE_STEPS, logging_steps=50
    )
    program = TrainProgram(
        optimizer, make_train_step(objective, optimizer), make_eval_step(objective)
    )
    trainable = replicate(trainable, mesh)
    state = Trainer(run_config, program, trainable, {}, mesh, settings, config.steps).fit(batches)
    check_weights(state.params, "pre-training: no model is saved, lower --learning-rate")
    save_params(folder, merge_variables(jax.device_get(state.params), {})["params"])
    say(f"pre-trained {config.steps * batch_size:,} images -> {folder}")
    return folder


if __name__ == "__main__":
    try:
        pretrain(parse_options(PretrainConfig, "pretrain.py", sys.argv[1:]))
    except InbolError as error:
        sys.exit(f"error: {error}")
