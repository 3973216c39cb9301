"""`inbol build` of many questions: seconds, questions per second, peak memory.

    python benchmarks/construction.py --folder runs/construction --n 1000000

It writes synthetic stores with lines like those of VQAv2: ten gold answers, ten samples of a few
words. A second store stands for the IDK-IT model's. The build runs in a process of its own, whose
peak resident memory (on Linux; with Python and the libraries) is printed.
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

from inbol_jax.artifacts import read_meta, write_jsonl
from inbol_jax.records import Sample, SampledQuestion, VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.taught_refusals import REFUSALS

WORDS = ("red", "two", "a man", "skateboard", "left", "yes", "no", "on the table")
WORDS += ("brown and white", "it is a bus", "wood", "nike", "winter")
SHARDS = 4
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
    """Use all options that cost time: negatives of a second store, three pairs of each kind, and
    shares of types and of kinds of pairs."""
    seed: int = 0
    """Seed of the questions."""


def lines(config: Config, shard: int, model: str) -> Iterator[dict[str, Any]]:
    """The lines of one shard. All models get the same questions and give samples of their own."""
    for i in range(shard, config.n, SHARDS):
        about = random.Random(f"{config.seed}:{i}")
        gold, type3 = about.choice(WORDS), about.random() < 0.2
        kind, number, near = about.choice(WORDS), i % 1000, about.choice(WORDS)
        answers = [gold if about.random() < 0.8 else about.choice(WORDS) for _ in range(10)]
        example = VQAExample(
            id=f"vqav2-{i:09}",
            images=(f"train2014/COCO_train2014_{i // 5:012}.jpg",),
            question=f"What is the {kind} thing number {number} near the {near} made of?",
            answers=() if type3 else tuple(answers),
            answerable=not type3,
        )
        rng = random.Random(f"{config.seed}:{i}:{model}")
        share_correct = rng.choice((0.02, 0.5, 0.97))
        samples = []
        for _ in range(10):
            if rng.random() < share_correct:
                text = gold
            elif rng.random() < 0.1:
                text = rng.choice(REFUSALS)
            else:
                text = f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
            # The real outcome costs ten times the rest of the line: most lines get a cheap one.
            cheap = "refused" if text in REFUSALS else "correct" if text == gold else "wrong"
            cheap = "wrong" if type3 and cheap == "correct" else cheap
            name = outcome(example, text) if i < 50 else cheap
            samples.append(Sample(text, round(-10 * rng.random(), 5), 4, name))
        yield SampledQuestion(example, tuple(samples)).to_json() | {
            "fingerprint": "0123456789abcdef"
        }


def main(config: Config) -> None:
    """Writes what is missing, builds, and prints one line."""
    made_from = {"n": config.n, "seed": config.seed}
    for model in ("run", "idk_it") if config.worst else ("run",):
        for shard in range(SHARDS):
            name = f"train.{shard + 1:04}-of-{SHARDS:04}.jsonl"
            file = config.folder / model / "confidence" / name
            if read_meta(file).get("made_from") != made_from:
                header = {"made_from": made_from, "model": model, "images": "."}
                write_jsonl(file, lines(config, shard, model), header)
    run, status = config.folder / "run", config.folder / "status.txt"
    options = ["build", "--out", str(run)]
    if config.worst:
        options += ["--negatives", str(config.folder / "idk_it/confidence")]
        options += ["--pairs-per-kind", "3", "--templates", "all"]
        options += ["--type-shares", "3", "0.1", "--pair-shares", "correct_over_refusal", "0.3"]
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
