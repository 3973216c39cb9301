"""Every stage on a disk that fills up, and then again with more space.

    python benchmarks/disk_full.py --out runs/disk_full

Each stage writes to a tmpfs that is smaller than what it makes. It must end with exit code 2 and
one line that names the cause; run again with enough space, it must make what it makes undisturbed.
Needs Linux, and root or namespaces that a user may make (`unshare`).
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tyro
from chaos import STAGES, Chaos, with_what_they_read
from chaos import Config as ChaosConfig

from inbol_jax.defaults import TINY

ONE_PROCESS = tuple(name for name, stage in STAGES.items() if stage.processes == 1)


@dataclasses.dataclass(frozen=True)
class Config:
    """Fill the disk of every stage."""

    stages: tuple[str, ...] = ONE_PROCESS
    """Stages to run. Those that they read are run undisturbed."""
    shares: tuple[float, ...] = (0.1, 0.5, 0.9)
    """Sizes of the disk, as shares of what the stage leaves."""
    model: Path = TINY
    """The checkpoint that is sampled and trained."""
    out: Path = Path("runs/disk_full")
    """Folder of the runs. Undisturbed ones that are done are not run again."""


def mount(folder: Path, size: int, *options: str) -> None:
    """Mounts a tmpfs of so many bytes, or changes the size of a mounted one."""
    words = ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={size}")), "tmpfs", folder]
    subprocess.run(words, check=True)


def fill(chaos: Chaos, name: str, share: float) -> str:
    """Runs a stage on a small disk, then on a large one. Returns the line of the table."""
    stage, whole = STAGES[name], chaos.whole / name
    out = chaos.whole / "disk"  # beside the undisturbed stages: headers hold relative paths
    out.mkdir(exist_ok=True)
    made = sum(p.stat().st_blocks * 512 for p in whole.rglob("*"))
    size = max(4096, int(made * share))
    mount(out, 1 << 30)
    try:
        for earlier in stage.starts_with:
            shutil.copytree(chaos.whole / earlier, out, dirs_exist_ok=True)
        at_start = sum(p.stat().st_blocks * 512 for p in out.rglob("*"))
        mount(out, max(size, at_start + 4096), "remount")
        codes, text = chaos.start(name, out).wait(600)
        last = text.strip().splitlines()[-1] if text.strip() else ""
        if codes == [0]:
            verdict = "fits"
        elif codes == [2] and "Traceback" not in text and "space" in last:
            verdict = last[:100]
        else:
            verdict = f"exit code {codes[0]}"
            chaos.fault(f"{name} at {share}: {codes}\n{text[-2000:]}")
        mount(out, 1 << 30, "remount")
        codes, text = chaos.start(name, out).wait(600)
        if codes != [0]:
            chaos.fault(f"{name} at {share}, again: {codes}\n{text[-2000:]}")
        chaos.compare(name, out)
    finally:
        subprocess.run(["umount", out], check=True)
    return f"{name:12} {size / 2**20:7.2f} MiB of {made / 2**20:7.2f}: {verdict}"


def main(config: Config) -> int:
    """Prints the faults, a line per stage and size, and their number. Returns the exit code."""
    if os.geteuid() and "INBOL_UNSHARED" not in os.environ:
        os.environ["INBOL_UNSHARED"] = "1"
        unshare = ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv]
        os.execvp(unshare[0], unshare)
    chaos = Chaos(ChaosConfig(model=config.model, out=config.out))
    config.out.mkdir(parents=True, exist_ok=True)
    for name in with_what_they_read(config.stages):
        chaos.undisturbed(name)
    for name in config.stages:
        for share in config.shares:
            print(fill(chaos, name, share), flush=True)
    print(f"{len(chaos.faults)} faults")
    return bool(chaos.faults)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
