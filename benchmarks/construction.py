"""`inbol build` of many questions: seconds, questions per second, peak memory.

    python benchmarks/construction.py --folder runs/construction --n 1000000

It writes a synthetic dataset like VQAv2, with ten gold answers per question, and stores with ten
samples of a few words. The build runs in a process of
its own, whose peak resident memory (on Linux; with Python and the libraries) is printed.
"""

import dataclasses
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from inbol_jax.answers import Asker, Generation, ImageHashes, to_row
from inbol_jax.artifacts import read_meta, write_jsonl
from inbol_jax.prompts import BARE
from inbol_jax.records import VQAExample
from inbol_jax.taught_refusals import REFUSALS

WORDS = ("red", "two", "a man", "skateboard", "left", "yes", "no", "on the table")
WORDS += ("brown and white", "it is a bus", "wood", "nike", "winter")
# Runs a command line, then writes what Linux says of the process. getrusage would not do: what it
# says of a child includes the memory of its parent at the time of the fork.
MEASURED = """
import sys
from pathlib import Path
from inbol_jax.cli import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text())
sys.exit(code)
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Write stores of synthetic questions, unless they are there, and build from them."""

    folder: Path
    """Folder for the stores and what is built."""
    n: int = 1_000_000
    """Questions; a fifth of them are of Type 3."""
    worst: bool = False
    """Use the option that costs time: all refusals."""
    seed: int = 0
    """Seed of the questions."""


def questions(config: Config) -> Iterator[VQAExample]:
    """The questions, which are the same for all models; about text alone, so that no image is
    read."""
    for i in range(config.n):
        about = random.Random(f"{config.seed}:{i}")
        gold, type3 = about.choice(WORDS), about.random() < 0.2
        kind, number, near = about.choice(WORDS), i % 1000, about.choice(WORDS)
        answers = [gold if about.random() < 0.8 else about.choice(WORDS) for _ in range(10)]
        yield VQAExample(
            id=f"vqav2-{i:09}",
            images=(),
            question=f"What is the {kind} thing number {number} near the {near} made of?",
            answers=() if type3 else tuple(answers),
            answerable=not type3,
            metric="vqa",
            extra={"gold": gold},
        )


def lines(config: Config, asker: Asker) -> Iterator[dict[str, Any]]:
    """The samples of a model."""
    for i, example in enumerate(questions(config)):
        rng = random.Random(f"{config.seed}:{i}:run")
        share_correct = rng.choice((0.02, 0.5, 0.97))
        said = []
        for _ in range(10):
            if rng.random() < share_correct:
                text = example.extra["gold"]
            elif rng.random() < 0.1:
                text = rng.choice(REFUSALS)
            else:
                text = f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
            said.append(Generation(text, -10 * rng.random(), 4))
        yield {"key": asker.key(example), "set_aside": None, "id": example.id, **to_row(said)}


def main(config: Config) -> None:
    """Writes what is missing, builds, and prints one line."""
    data = config.folder / f"train-{config.n}-{config.seed}.jsonl"
    if not data.exists():
        write_jsonl(data, (example.to_json() for example in questions(config)), {})
    file = config.folder / "run/confidence/train.jsonl"
    settings = {"model": "run", "n": 10, "prompt": "bare", "system": ""}
    asker = Asker(settings, BARE, ImageHashes(config.folder))
    settings |= {"data": f"../../{data.name}", "images": "../.."}
    if read_meta(file).get("settings") != settings:
        header = {"command": "confidence", "settings": settings, "inputs": {}}
        write_jsonl(file, lines(config, asker), header)
    run, status = config.folder / "run", config.folder / "status.txt"
    options = ["build", "--out", str(run)]
    if config.worst:
        options += ["--templates", "all"]
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", MEASURED, str(status), *options], check=True)
    seconds = time.monotonic() - start
    peak_kib = int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    size = sum(file.stat().st_size for file in (run / "confidence").glob("*.jsonl"))
    result = {
        "questions": config.n,
        "store_gb": round(size / 1e9, 2),
        "worst": config.worst,
        "seconds": round(seconds, 1),
        "questions_per_s": round(config.n / seconds),
        "peak_mib": round(peak_kib / 2**10),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config))
