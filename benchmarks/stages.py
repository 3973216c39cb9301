"""Stages of a benchmark over many questions, each in a process of its own, so that its peak memory is its own."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def run_each(script: str, out: Path, n: int, names: Iterable[str]) -> None:
    """Runs a script once for each stage: `--out OUT --n N --stage NAME`."""
    for name in names:
        subprocess.run(
            [sys.executable, script, "--out", out, "--n", str(n), "--stage", name], check=True
        )


def measure(name: str, n: int, stage: Callable[[], object]) -> None:
    """Runs a stage, and prints a line: seconds, questions a second, and the most memory that this process held."""
    start = time.monotonic()
    stage()
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts it in KiB
    print(
        f"stage {name:<11} {seconds:7.1f} s {n / seconds:9,.0f} questions/s {peak:6.2f} GiB at most",
        flush=True,
    )
