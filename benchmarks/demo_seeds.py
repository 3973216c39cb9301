"""The demo over several seeds, each in a process of its own: what the targets ask for, seconds and peak memory.

    python benchmarks/demo_seeds.py --seeds 0 1 2 --out runs/seeds --report docs/results.md

A seed that is already complete in --out is read, not run again (its peak memory is then unknown).
"""

import dataclasses
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tyro

from inbol_jax.artifacts import read_jsonl, write_atomically
from inbol_jax.evaluation.metrics import by_confidence


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the demo over several seeds and write a table.

    Attributes:
      seeds: one demo each.
      out: folder of the runs.
      report: Markdown file to write.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path = Path("runs/seeds")
    report: Path = Path("runs/seeds/results.md")


def run(seed: int, folder: Path) -> dict[str, float | None]:
    """Seconds and peak GiB of one demo as a user starts it."""
    if (folder / "metrics.json").exists():
        return {"seconds": sum(json.loads((folder / "metrics.json").read_text())["seconds"].values()), "gib": None}
    start = time.monotonic()
    command = [sys.executable, "-c", "import sys; from inbol_jax.cli import main; sys.exit(main(sys.argv[1:]))"]
    process = subprocess.Popen([*command, "demo", "--out", str(folder), "--seed", str(seed)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"seed {seed}: the demo failed with status {status}")
    return {"seconds": time.monotonic() - start, "gib": usage.ru_maxrss / 2**20}


def line(label: str, values: list[float], target: str, form: str = "{:+.3f}") -> str:
    return f"| {label} | {' | '.join(form.format(v) for v in values)} | {form.format(float(np.mean(values)))} | {target} |"


def main(config: Config) -> None:
    costs = {seed: run(seed, config.out / str(seed)) for seed in config.seeds}
    metrics = {seed: json.loads((config.out / str(seed) / "metrics.json").read_text()) for seed in config.seeds}
    rows = {seed: list(read_jsonl(config.out / str(seed) / "evaluation" / "predictions.jsonl")) for seed in config.seeds}

    def cell(model: str, group: str, name: str = "t", domain: str = "in_domain") -> list[float]:
        return [metrics[seed]["models"][model][domain][group][name] for seed in config.seeds]

    def held_out(model: str) -> list[float]:
        found = [[r["outcome"] == "refused" for r in rows[s] if r["model"] == model and r["dataset"] == "ood_kinds"] for s in config.seeds]
        return [float(np.mean(f)) for f in found]

    def refusal_by_bin(seed: int) -> list[float]:
        in_domain = [r for r in rows[seed] if r["domain"] == "in_domain"]
        return [b["refr"] for b in by_confidence(in_domain, "ca_dpo")]

    def difference(a: str, b: str, seed: int) -> str:
        d = next(d for d in metrics[seed]["differences"] if (d["a"], d["b"], d["domain"], d["group"]) == (a, b, "in_domain", "all"))
        return f"{d['diff']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"

    drop = [b - c for b, c in zip(cell("base", "type1", "acc"), cell("ca_dpo", "type1", "acc"), strict=True)]
    rise = [c - b for b, c in zip(cell("base", "all"), cell("ca_dpo", "all"), strict=True)]
    seeds = " | ".join(f"seed {s}" for s in config.seeds)
    table = [
        f"| in domain, test split | {seeds} | mean | target |",
        "|---|" + "---|" * (len(config.seeds) + 2),
        line("T on everything, base", cell("base", "all"), ""),
        line("T on everything, IDK-IT", cell("idk_it", "all"), ""),
        line("T on everything, CA-DPO", cell("ca_dpo", "all"), ""),
        line("rise of T on everything, base to CA-DPO", rise, ">= 0.5"),
        line("T on Types 1+2, base", cell("base", "type12"), ""),
        line("T on Types 1+2, IDK-IT", cell("idk_it", "type12"), ""),
        line("T on Types 1+2, CA-DPO", cell("ca_dpo", "type12"), ">= 0.50"),
        line("Type 1 accuracy, base", cell("base", "type1", "acc"), "", "{:.3f}"),
        line("Type 1 accuracy, IDK-IT", cell("idk_it", "type1", "acc"), "", "{:.3f}"),
        line("Type 1 accuracy, CA-DPO", cell("ca_dpo", "type1", "acc"), "", "{:.3f}"),
        line("fall of Type 1 accuracy, base to CA-DPO", drop, "<= 0.05", "{:.3f}"),
        line("Type 3 refusal rate, IDK-IT", cell("idk_it", "type3", "refr"), "", "{:.3f}"),
        line("Type 3 refusal rate, CA-DPO", cell("ca_dpo", "type3", "refr"), ">= 0.90", "{:.3f}"),
        line("Type 3 refusal rate on held-out kinds, CA-DPO", held_out("ca_dpo"), ">= 0.80", "{:.3f}"),
        line("T out of domain, base", cell("base", "all", domain="out_of_domain"), ""),
        line("T out of domain, CA-DPO", cell("ca_dpo", "all", domain="out_of_domain"), ""),
        "",
        "Refusal rate of CA-DPO over confidence bins of width 0.2, in domain (target: falls from bin to bin):",
        "",
        "| seed | 0 to 0.2 | 0.2 to 0.4 | 0.4 to 0.6 | 0.6 to 0.8 | 0.8 to 1 | falls |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed in config.seeds:
        bins = refusal_by_bin(seed)
        falls = all(a >= b for a, b in itertools.pairwise(bins))
        table.append(f"| {seed} | {' | '.join(f'{b:.3f}' for b in bins)} | {'yes' if falls else 'no'} |")
    table += [
        "",
        "Paired differences of T on everything, in domain, with 95% intervals:",
        "",
        "| seed | CA-DPO - IDK-IT | CA-DPO - base | seconds | peak GiB |",
        "|---|---|---|---|---|",
    ]
    for seed in config.seeds:
        gib = "" if costs[seed]["gib"] is None else f"{costs[seed]['gib']:.2f}"
        pairs = f"{difference('idk_it', 'ca_dpo', seed)} | {difference('base', 'ca_dpo', seed)}"
        table.append(f"| {seed} | {pairs} | {costs[seed]['seconds']:.0f} | {gib} |")
    command = f"python benchmarks/demo_seeds.py --seeds {' '.join(map(str, config.seeds))} --report {config.report}"
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"
    text = f"# The demo over {len(config.seeds)} seeds\n\nMade by `{command}` on {machine}.\n\n" + "\n".join(table) + "\n"
    write_atomically(config.report, text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Config))
