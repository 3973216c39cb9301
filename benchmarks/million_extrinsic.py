"""Memory and rate of `inbol extrinsic` and `inbol audit` on a million questions.

    python benchmarks/million_extrinsic.py --out DIR               # a million
    python benchmarks/million_extrinsic.py --out DIR --n 100000

Each command runs in a process of its own. The set has five questions per image, ten answers per
question and no list of objects, so three generators and five filters run.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from stages import measure, run_each

from inbol_jax.extrinsic.audit import audit
from inbol_jax.extrinsic.config import AuditConfig, ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic

COLORS = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow", "orange", "pink")
SYLLABLES = ("ba", "do", "fi", "gu", "ka", "le", "mo", "nu", "pi", "ro", "sa", "te")
# 1728 words of six letters
THINGS = ["".join(syllables) for syllables in itertools.product(SYLLABLES, repeat=3)]
TEMPLATES = (
    "What color is the {}?",
    "What is the {} next to?",
    "What is under the {} in this picture?",
    "How many legs has the {}?",
    "Is the {} wet?",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures what Type 3 questions for many questions take."""

    out: Path
    """Folder for all files; a million questions take about 2 GB."""
    n: int = 1_000_000
    """Number of questions."""
    stage: str = ""
    """Run only this stage, in this process. The benchmark calls itself with this option."""


def write_set(folder: Path, n: int) -> None:
    """Writes a dataset folder; a few pictures have many names."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = [folder / f"picture{i}.png" for i in range(16)]
    for file in pictures:
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(file)
    images = -(-n // 5)
    for i in range(-(-images // 1000)):
        (folder / f"{i:04}").mkdir()
    for i in range(images):
        os.link(pictures[i % len(pictures)], folder / f"{i // 1000:04}/{i:07}.png")
    with (folder / "data.jsonl").open("w") as file:
        for i in range(n):
            thing, other = (THINGS[k] for k in rng.integers(0, len(THINGS), 2))
            k = int(rng.integers(len(TEMPLATES)))
            said = (COLORS[rng.integers(len(COLORS))], other, other, "4", "yes")[k]
            image = i // 5
            row = {
                "id": f"q{i}",
                "images": [f"{image // 1000:04}/{image:07}.png"],
                "question": TEMPLATES[k].format(thing),
            }
            file.write(json.dumps(row | {"answers": [said] * 10, "answerable": True}) + "\n")


STAGES: dict[str, Callable[[Config], object]] = {
    "extrinsic": lambda config: extrinsic(ExtrinsicConfig(config.out / "set", config.out / "run")),
    "audit": lambda config: audit(AuditConfig(config.out / "run")),
}


def main(config: Config) -> None:
    """Prints one line per stage: seconds, questions per second, and the peak memory."""
    if config.stage:
        measure(config.stage, config.n, lambda: STAGES[config.stage](config))
        return
    if not (config.out / "set").exists():
        write_set(config.out / "set", config.n)
    run_each(__file__, config.out, config.n, STAGES)


if __name__ == "__main__":
    main(tyro.cli(Config))
