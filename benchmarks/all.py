"""Runs the benchmarks that this machine allows, one after the other, and writes their tables.

    python benchmarks/all.py                     # JSON into runs/benchmarks, nothing else
    python benchmarks/all.py --only input startup --docs  # and the tables of the pages

A table of docs/performance.md or benchmarks/NOTES.md stands between `<!-- NAME -->` and
`<!-- end -->`. Figures of different machines are never mixed: a run replaces each table whole, with
its command and its device.
"""

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import tyro

FOLDER = Path(__file__).parent
PAGES = (FOLDER.parent / "docs/performance.md", FOLDER / "NOTES.md")
ONE_CORE = ("taskset", "-c", "0")  # steadier than two, and the same for both sides
COMMANDS = {
    "input": ["input.py"],
    "lengths": ["lengths.py"],
    "startup": ["startup.py"],
    "training": [*ONE_CORE, "training.py", "--threads", "1"],
    "sampling": ["sampling.py", "--questions", "384", "--repeats", "5"],
    "sampling-fixed": [
        *("sampling.py", "--questions", "384", "--repeats", "5"),
        *("--fixed-length", "--new-tokens", "8"),
    ],
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the benchmarks and write their tables."""

    only: tuple[str, ...] = ()
    """Names of those to run: input, lengths, startup, training, sampling, sampling-fixed. The
    default is all."""
    out: Path = Path("runs/benchmarks")
    """Folder of the JSON files."""
    docs: bool = False
    """Write the tables into docs/performance.md and benchmarks/NOTES.md too."""


def processor() -> str:
    """The name of this machine's processor."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def run(name: str) -> dict:
    """One benchmark: its command, what it printed above its table, and the table."""
    words = COMMANDS[name]
    prefix = ONE_CORE if words[0] == ONE_CORE[0] else ()
    script, *options = words[len(prefix) :]
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent)}
    printed = subprocess.run(
        [*prefix, sys.executable, str(FOLDER / script), *options],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.splitlines()  # fmt: skip
    table = [line for line in printed if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    return {
        "command": " ".join([*prefix, "python", f"benchmarks/{script}", *options]),
        "machine": f"{os.cpu_count()} cores of {processor()}",
        "notes": [line for line in printed if line and not line.startswith("|")],
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
        "table": table,
    }


def write_table(name: str, found: dict) -> None:
    """Replaces the table of that name. Raises SystemExit if no page has a place for it."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    table = "\n".join(found["table"])
    block = f"```bash\n{found['command']}\n```\n\n{found['machine']}.\n\n{table}\n\n"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if place.search(text):
            text = place.sub(lambda match: match[1] + block + match[2], text)
            page.write_text(text, encoding="utf-8")
            return
    raise SystemExit(f"no page has <!-- {name} -->")


def main(config: Config) -> None:
    names = config.only or tuple(COMMANDS)
    for name in names:
        if name not in COMMANDS:
            raise SystemExit(f"--only {name}: choose among {', '.join(COMMANDS)}")
    config.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"{name} ...", flush=True)
        found = run(name)
        (config.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print("\n".join([*found["notes"], *found["table"]]), flush=True)
        if config.docs:
            write_table(name, found)


if __name__ == "__main__":
    main(tyro.cli(Config))
