"""Splits of the world as ordinary VQA datasets: a folder with images and `data.jsonl`."""

import functools
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from inbol_jax.artifacts import atomic_lines, json_line, one_writer, write_atomically
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample
from inbol_jax.stage import Stage
from inbol_jax.world.config import ExportConfig, Split
from inbol_jax.world.glyphs import N_GLYPHS, held_out_glyphs
from inbol_jax.world.questions import HELD_OUT_TYPE3, KNOWLEDGE, SEEN_TYPE3, VISUAL, ask
from inbol_jax.world.scenes import Scene, render, sample_scene

WORLD_VERSION = 5  # raise it if the same seed gives other pictures or questions
# Share of the answerable questions that ask for a glyph's name: there the intrinsic boundary runs.
KNOWLEDGE_SHARE = 0.4


@one_writer
def export(config: ExportConfig) -> Path:
    """Writes the dataset, unless it is already complete. Returns its folder.

    Raises:
      InbolError: if the folder holds another dataset.
    """
    file = config.out / "data.jsonl"
    settings = {"split": config.split, "n": config.n, "seed": config.seed, "world": WORLD_VERSION}
    with Stage(file, "world export", settings) as stage:
        if not stage.finished:
            label = f"drawing {config.split}"
            with progress(label, config.n, "images") as advance, atomic_lines(file) as lines:
                for example, picture in examples(config.split, config.n, config.seed):
                    png = io.BytesIO()
                    Image.fromarray(picture).save(png, "PNG", compress_level=1)
                    write_atomically(config.out / example.image, png.getvalue(), sync=False)
                    lines.write(json_line(example.to_json()))
                    advance()
            stage.finish(config.n)
    say(f"{config.n} questions of the world's {config.split} split -> {config.out}")
    return config.out


def examples(split: Split, n: int, seed: int) -> Iterator[tuple[VQAExample, np.ndarray]]:
    """n questions with their pictures, u8[48, 48, 3]; the answerable ones come first.

    Question i depends on (split, seed, i) alone.
    """
    n_answerable = 0 if split is Split.OOD_KINDS else round(n / (1 + split.type3))
    for i in range(n):
        rng = np.random.default_rng((seed, zlib.crc32(split.encode()), i))
        yield _example(split, f"{split}-{seed}-{i:06d}", i < n_answerable, rng)


def _example(
    split: Split, name: str, answerable: bool, rng: np.random.Generator
) -> tuple[VQAExample, np.ndarray]:
    kinds = _kinds(split, answerable, rng)
    kind = kinds[rng.integers(len(kinds))]
    question = None
    while question is None:
        scene = _scene(split, kind == KNOWLEDGE or rng.random() < 0.5, rng)
        question = ask(scene, kind, rng)
    example = VQAExample(
        id=name,
        images=(f"images/{name}.png",),
        question=question.text,
        answers=(question.answer,) if answerable else (),
        answerable=answerable,
        metric="exact",  # its answers are single words
        extra={
            "kind": kind,
            "objects": [f"{t.color_name} {t.noun}" for t in scene.things],
            "noise": round(scene.noise, 4),
            "glyph_rank": scene.glyph.glyph if scene.glyph else None,
        },
    )
    return example, render(scene, rng, sketch=split is Split.OOD_STYLE)


def _kinds(split: Split, answerable: bool, rng: np.random.Generator) -> Sequence[str]:
    """The kinds of which one is asked: a random one of two groups."""
    if answerable:
        knowledge = split is Split.OOD_KNOWLEDGE or rng.random() < KNOWLEDGE_SHARE
        return (KNOWLEDGE,) if knowledge else VISUAL
    kinds = HELD_OUT_TYPE3 if split is Split.OOD_KINDS else SEEN_TYPE3
    unseeable = rng.random() < 0.5
    # The kinds of two words ("absent color", "empty place") ask for what this picture lacks.
    return [kind for kind in kinds if (" " not in kind) is unseeable]


def _scene(split: Split, with_glyph: bool, rng: np.random.Generator) -> Scene:
    """A scene that the split owns. Common glyphs come more often than rare ones, as anywhere."""
    ranks = _ranks(split)
    while True:
        glyph = ranks[int(len(ranks) * rng.random() ** 2)] if with_glyph else None
        scene = sample_scene(rng, glyph)
        if scene.bucket() in split.buckets:
            return scene


@functools.cache
def _ranks(split: Split) -> list[int]:
    """The glyphs that the split may show, the most frequent first."""
    held_out = held_out_glyphs()
    return [
        rank
        for rank in range(N_GLYPHS)
        if rank % 20 in split.glyphs and (rank in held_out) is (split is Split.OOD_KNOWLEDGE)
    ]
