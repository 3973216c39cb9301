"""Stages of a benchmark, each in a process of its own, so that its peak memory is its own."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def run_each(script: str, out: Path, n: int, names: Iterable[str]) -> None:
    """Runs a script once per stage: `--out OUT --n N --stage NAME`."""
    for name in names:
        command = [sys.executable, script, "--out", str(out), "--n", str(n), "--stage", name]
        subprocess.run(command, check=True)


def measure(name: str, n: int, stage: Callable[[], object]) -> None:
    """Runs a stage and prints its seconds, questions per second and peak memory on one line."""
    start = time.monotonic()
    stage()
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    rate = f"{n / seconds:9,.0f} questions/s"
    print(f"stage {name:<11} {seconds:7.1f} s {rate} {peak:6.2f} GiB at most", flush=True)
