"""Splits of the world as ordinary VQA datasets: a folder with images and `data.jsonl`."""

import dataclasses
import functools
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from inbol_jax.artifacts import fingerprint, read_meta, write_atomically, write_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample
from inbol_jax.world.glyphs import N_GLYPHS
from inbol_jax.world.questions import HELD_OUT_TYPE3, KNOWLEDGE, SEEN_TYPE3, VISUAL, ask
from inbol_jax.world.scenes import Scene, render, sample_scene
from inbol_jax.world.splits import Split

WORLD_VERSION = 2  # raise when the same seed gives other pictures or questions
KNOWLEDGE_SHARE = (
    1 / 3
)  # of the answerable questions: names of glyphs, where the intrinsic boundary runs


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a split of the embedded world as a VQA dataset (images and data.jsonl).

    Attributes:
      out: folder to write.
      split: which part of the world; no two share a scene or a glyph.
      n: answerable questions. `ood_kinds` has none: there it is the number of Type 3 questions.
      type3: Type 3 questions for every answerable one. By default 0.5, and 0 in `train`, where `inbol extrinsic` makes them.
      seed: another seed, other scenes; the splits stay apart.
    """

    out: Path
    split: Split = Split.TRAIN
    n: int = 1000
    type3: float | None = None
    seed: int = 0


def examples(
    split: Split, n: int, type3: float, seed: int
) -> Iterator[tuple[VQAExample, np.ndarray]]:
    """Questions with their pictures, u8[48, 48, 3]; answerable ones first. Item i depends on (split, seed, i) alone."""
    only_type3 = split is Split.OOD_KINDS
    for i in range(n if only_type3 else n + round(n * type3)):
        rng = np.random.default_rng((seed, zlib.crc32(split.encode()), i))
        yield _example(split, i, i < n and not only_type3, seed, rng)


def _example(
    split: Split, index: int, answerable: bool, seed: int, rng: np.random.Generator
) -> tuple[VQAExample, np.ndarray]:
    if answerable:
        kinds = (KNOWLEDGE,) if rng.random() < KNOWLEDGE_SHARE else VISUAL
    else:
        kinds = HELD_OUT_TYPE3 if split is Split.OOD_KINDS else SEEN_TYPE3
        unseeable = tuple(k for k in kinds if " " not in k)
        kinds = unseeable if rng.random() < 0.5 else tuple(k for k in kinds if k not in unseeable)
    kind = kinds[rng.integers(len(kinds))]
    while True:
        scene = _scene(split, kind == KNOWLEDGE or rng.random() < 0.5, rng)
        asked = ask(scene, kind, rng)
        if asked is not None:
            break
    name = f"{split}-{seed}-{index:06d}"
    extra = {
        "kind": kind,
        "objects": [f"{t.color_name} {t.noun}" for t in scene.things],
        "noise": round(scene.noise, 4),
        "glyph_rank": scene.glyph.glyph if scene.glyph else None,
    }
    example = VQAExample(
        name,
        f"images/{name}.png",
        asked.question,
        (asked.answer,) if answerable else (),
        answerable,
        extra,
    )
    return example, render(scene, rng, sketch=split is Split.OOD_STYLE)


@functools.cache
def _ranks(split: Split) -> list[int]:
    return [rank for rank in range(N_GLYPHS) if rank % 20 in split.glyphs]


def _scene(split: Split, with_glyph: bool, rng: np.random.Generator) -> Scene:
    """A scene of the split's own; common glyphs are asked about more often than rare ones, as questions about a real world are."""
    ranks = _ranks(split)
    while True:
        glyph = ranks[int(len(ranks) * rng.random() ** 2)] if with_glyph else None
        scene = sample_scene(rng, glyph)
        if scene.bucket() in split.buckets:
            return scene


def export(config: ExportConfig) -> Path:
    """Writes the dataset, or leaves it where it is already complete. Returns its folder."""
    if config.n < 1:
        raise InbolError(f"--n {config.n}: at least one question is needed")
    if config.split is Split.PRETRAIN:
        raise InbolError("--split pretrain is an endless stream; `inbol world pretrain` reads it")
    type3 = (
        config.type3 if config.type3 is not None else 0.0 if config.split is Split.TRAIN else 0.5
    )
    settings = {
        "command": "world export",
        "split": str(config.split),
        "n": config.n,
        "type3": type3,
        "seed": config.seed,
        "world": WORLD_VERSION,
    }
    if not (math.isfinite(type3) and type3 >= 0):
        raise InbolError(f"--type3 {type3}: a number of at least 0 is needed")
    identity = fingerprint(settings)
    file = config.out / "data.jsonl"
    if file.exists() and read_meta(file).get("config") not in (identity, None):
        raise InbolError(
            f"{config.out} holds a dataset made with other settings; choose another --out or delete it"
        )
    if file.exists() and not read_meta(file):
        raise InbolError(
            f"{file} is not finished or was not made by this command; choose another --out or delete it"
        )
    if not file.exists():
        total = config.n if config.split is Split.OOD_KINDS else config.n + round(config.n * type3)
        rows = []
        with progress(f"drawing {config.split}", total, "images") as advance:
            for example, picture in examples(config.split, config.n, type3, config.seed):
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
                write_atomically(config.out / example.image, buffer.getvalue(), sync=False)
                rows.append(example.to_json())
                advance()
        write_jsonl(file, rows, settings | {"config": identity})
    say(f"{read_meta(file)['rows']} questions of the world's {config.split} split -> {config.out}")
    return config.out
