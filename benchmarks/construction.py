"""`inbol build` of many questions: seconds, questions/s, and peak memory, of stores written for it.

    python benchmarks/construction.py --folder runs/construction --n 1000000

The lines are those of VQAv2 questions in shape: ten gold answers, ten samples of a few words. A second store stands for the IDK-IT model's.
The build runs in a process of its own, whose peak resident memory (of Linux; Python and jax included) is printed; --worst takes all options
that costs.
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
from inbol_jax.construction.templates import REFUSALS
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome

WORDS = (
    "red",
    "two",
    "a man",
    "skateboard",
    "left",
    "yes",
    "no",
    "on the table",
    "brown and white",
    "it is a bus",
    "wood",
    "nike",
    "winter",
)
SHARDS = 4


@dataclasses.dataclass(frozen=True)
class Config:
    """Write stores of synthetic questions (where they are not there yet) and build from them.

    Attributes:
      folder: gets the stores and what is built.
      n: questions; a fifth of them of Type 3.
      worst: also negatives of a second store, three pairs of each kind, and shares of types and of kinds.
      seed: of the questions.
    """

    folder: Path
    n: int = 1_000_000
    worst: bool = False
    seed: int = 0


def rows(config: Config, shard: int, salt: str) -> Iterator[dict[str, Any]]:
    """The lines of one shard. The same questions whatever the salt, other samples."""
    for i in range(shard, config.n, SHARDS):
        about, rng = random.Random(f"{config.seed}:{i}"), random.Random(f"{config.seed}:{i}:{salt}")
        gold, type3 = about.choice(WORDS), about.random() < 0.2
        example = VQAExample(
            f"vqav2-{i:09}",
            f"train2014/COCO_train2014_{i // 5:012}.jpg",
            f"What is the {about.choice(WORDS)} thing number {i % 1000} near the {about.choice(WORDS)} made of?",
            ()
            if type3
            else tuple(gold if about.random() < 0.8 else about.choice(WORDS) for _ in range(10)),
            not type3,
        )
        right = rng.choice((0.02, 0.5, 0.97))
        samples = [
            gold
            if rng.random() < right
            else rng.choice(REFUSALS)
            if rng.random() < 0.1
            else f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
            for _ in range(10)
        ]
        # The real outcome costs ten times the line: what is sampled here is right by its text, as the real one nearly always is.
        outcomes = [
            "refused" if s in REFUSALS else "correct" if s == gold and not type3 else "wrong"
            for s in samples
        ]
        if i < 50:
            outcomes = [outcome(example, s) for s in samples]
        counts = {
            "n_correct": outcomes.count("correct"),
            "n_samples": 10,
            "fingerprint": "0123456789abcdef",
        }
        logprobs = [round(-10 * rng.random(), 5) for _ in samples]
        row = example.to_json() | {
            "samples": samples,
            "logprobs": logprobs,
            "token_counts": [4] * 10,
            "outcomes": outcomes,
        }
        yield row | counts


def main(config: Config) -> None:
    """Writes what is missing, builds, and prints one line."""
    identity = {"n": config.n, "seed": config.seed}
    for name, salt in (("run", "base"), ("idk_it", "idk_it")):
        for shard in range(SHARDS):
            file = (
                config.folder / name / "confidence" / f"train.{shard + 1:04}-of-{SHARDS:04}.jsonl"
            )
            if read_meta(file).get("made_from") != identity:
                write_jsonl(
                    file,
                    rows(config, shard, salt),
                    {"made_from": identity, "model": salt, "images": "."},
                )
        if not config.worst:
            break
    words = ["build", "--out", str(config.folder / "run")]
    if config.worst:
        words += [
            "--negatives",
            str(config.folder / "idk_it/confidence"),
            "--pairs",
            "3",
            "--templates",
            "all",
        ]
        words += ["--types", "3", "0.1", "--kinds", "correct_over_refusal", "0.3"]
    start = time.monotonic()
    # Not getrusage: what it says of a child includes the memory of its parent at the time of the fork.
    own = "from pathlib import Path; Path(sys.argv[1]).write_text(Path('/proc/self/status').read_text())"
    script = f"import sys; from inbol_jax.cli import main; code = main(sys.argv[2:]); {own}; sys.exit(code)"
    status = config.folder / "status.txt"
    subprocess.run([sys.executable, "-c", script, str(status), *words], check=True)
    seconds = time.monotonic() - start
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**10
    size = (
        sum(file.stat().st_size for file in (config.folder / "run/confidence").glob("*.jsonl"))
        / 1e9
    )
    print(json.dumps({"questions": config.n, "store_gb": round(size, 2), "worst": config.worst, "seconds": round(seconds, 1),
                      "questions_per_s": round(config.n / seconds), "peak_mib": round(peak)}))  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Config))
