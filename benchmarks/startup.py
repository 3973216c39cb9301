"""How long commands take to their first step: with an empty compilation cache, and with a full one.

    python benchmarks/startup.py

Each command runs in a process of its own on one batch of the embedded world, and ends after it; it
loads and saves its model as always. The peer is one step of fine-tuning by transformers on the same
checkpoint. CPU seconds are of all threads together: seconds also depend on what else runs.
"""

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from inbol_jax.defaults import TINY

PEER = f"""
import torch
from transformers import LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained({str(TINY)!r}, dtype=torch.float32)
side = model.config.vision_config.image_size
patches = (side // model.config.vision_config.patch_size) ** 2
ids = torch.full((32, patches + 20), 9)
ids[:, :patches] = model.config.image_token_id
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
loss = model(input_ids=ids, pixel_values=torch.zeros(32, 3, side, side), labels=ids.clone()).loss
loss.backward()
optimizer.step()
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Seconds of whole commands on one batch."""

    questions: int = 48
    """Questions that are sampled and trained on."""
    repeats: int = 3
    """Runs with a full cache; the median counts. With an empty one there is one."""


def timed(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and CPU seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}

        def inbol(cache: str, *words: str) -> tuple[float, float]:
            own = environment | {"XDG_CACHE_HOME": str(root / cache)}
            return timed(["-m", "inbol_jax", *words], own)

        data, run = str(root / "data"), root / "run"
        inbol("prepare", "world", "export", "--out", data, "--n", str(config.questions))
        inbol("prepare", "extrinsic", "--data", data, "--out", str(run))
        for source in (data, str(run / "extrinsic.jsonl")):
            inbol("prepare", "confidence", "--data", source, "--out", str(run))
        inbol("prepare", "build", "--out", str(run))
        rows: dict[str, list[tuple[float, float]]] = {}
        commands = {
            "`inbol confidence`": ["confidence", "--data", data],
            "`inbol sft`": ["sft", "--data", str(run / "instructions.jsonl")],
            "`inbol dpo`": ["dpo", "--data", str(run / "preferences.jsonl")],
        }
        for name, words in commands.items():
            size = [] if words[0] == "confidence" else ["--batch-size", "128"]  # one step
            for i in range(config.repeats + 1):
                out = str(root / f"{words[0]}{i}")
                rows.setdefault(name, []).append(inbol(words[0], *words, *size, "--out", out))
        rows["peer: one step of transformers"] = [
            timed(["-c", PEER], environment) for _ in range(config.repeats + 1)
        ]
    print(f"{config}; {os.cpu_count()} cores\n")
    print("| | empty cache: s | CPU s | full cache: s | CPU s |\n|---|---|---|---|---|")
    for name, (cold, *warm) in rows.items():
        seconds, cpu = (statistics.median(x) for x in zip(*warm, strict=True))
        print(f"| {name} | {cold[0]:.1f} | {cold[1]:.1f} | {seconds:.1f} | {cpu:.1f} |")


if __name__ == "__main__":
    main(tyro.cli(Config))
