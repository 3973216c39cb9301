"""The demo over several seeds, each in a process of its own: what the targets ask for, seconds and
peak memory.

    python benchmarks/demo_seeds.py --seeds 0 1 2 --out runs/seeds --table
    inbol_jax/world/assets/measured/seeds.json

A seed that is already complete in --out is read, not run again (its peak memory is then unknown).
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

from inbol_jax.artifacts import file_fingerprint, write_json
from inbol_jax.defaults import TINY
from inbol_jax.evaluation.metrics import by_confidence
from inbol_jax.evaluation.prediction import read_predictions


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the demo over several seeds and write a table."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, with one demo each."""
    out: Path = Path("runs/seeds")
    """Folder of the runs."""
    table: Path = Path("runs/seeds/seeds.json")
    """JSON file of the table, for the demo's report."""


def run(seed: int, folder: Path) -> dict[str, float | None]:
    """Seconds and peak GiB of one demo as a user starts it."""
    if (folder / "metrics.json").exists():
        return {
            "seconds": sum(json.loads((folder / "metrics.json").read_text())["seconds"].values()),
            "gib": None,
        }
    start = time.monotonic()
    command = [
        sys.executable,
        "-c",
        "import sys; from inbol_jax.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    process = subprocess.Popen([*command, "demo", "--out", str(folder), "--seed", str(seed)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"seed {seed}: the demo failed with status {status}")
    return {"seconds": time.monotonic() - start, "gib": usage.ru_maxrss / 2**20}


def main(config: Config) -> None:
    costs = {seed: run(seed, config.out / str(seed)) for seed in config.seeds}
    metrics = {
        seed: json.loads((config.out / str(seed) / "metrics.json").read_text())
        for seed in config.seeds
    }
    rows = {
        seed: read_predictions(config.out / str(seed) / "evaluation" / "predictions.jsonl")
        for seed in config.seeds
    }
    table: list[list[str]] = []

    def add(
        label: str, values: Sequence[float | None], target: str = "", form: str = "{:+.3f}"
    ) -> None:
        cells = ["" if v is None else form.format(v) for v in values]
        table.append(
            [label, *cells, "" if None in values else form.format(float(np.mean(values))), target]
        )

    def cell(model: str, group: str, name: str = "t", domain: str = "in_domain") -> list[float]:
        return [metrics[seed]["models"][model][domain][group][name] for seed in config.seeds]

    def held_out(model: str) -> list[float]:
        found = [
            [
                r.outcome == "refused"
                for r in rows[s]
                if r.model == model and r.dataset == "ood_kinds"
            ]
            for s in config.seeds
        ]
        return [float(np.mean(f)) for f in found]

    models = {"base": "base", "idk_it": "IDK-IT", "ca_dpo": "CA-DPO"}
    for group, label in (("all", "T on everything"), ("type12", "T on Types 1+2")):
        for model, name in models.items():
            add(
                f"{label}, {name}",
                cell(model, group),
                ">= 0.50" if (model, group) == ("ca_dpo", "type12") else "",
            )
    change = zip(cell("base", "all"), cell("ca_dpo", "all"), strict=True)
    add(
        "T on everything, CA-DPO minus base", [after - before for before, after in change], ">= 0.5"
    )
    pairs = [
        next(
            d
            for d in metrics[s]["differences"]
            if (d["a"], d["b"], d["domain"], d["group"]) == ("idk_it", "ca_dpo", "in_domain", "all")
        )
        for s in config.seeds
    ]
    add("T on everything, CA-DPO minus IDK-IT", [d["diff"] for d in pairs], "> its interval")
    add("its 95% interval, from", [d["low"] for d in pairs])
    add("its 95% interval, to", [d["high"] for d in pairs])
    for model, name in models.items():
        add(f"Type 1 accuracy, {name}", cell(model, "type1", "acc"), form="{:.3f}")
    change = zip(cell("base", "type1", "acc"), cell("ca_dpo", "type1", "acc"), strict=True)
    add(
        "Type 1 accuracy, base minus CA-DPO",
        [before - after for before, after in change],
        "<= 0.05",
        "{:.3f}",
    )
    add("Type 3 refused, IDK-IT", cell("idk_it", "type3", "refr"), form="{:.3f}")
    add("Type 3 refused, CA-DPO", cell("ca_dpo", "type3", "refr"), ">= 0.90", "{:.3f}")
    add("Type 3 refused, held-out kinds, CA-DPO", held_out("ca_dpo"), ">= 0.80", "{:.3f}")
    bins = [
        by_confidence([r for r in rows[s] if r.domain == "in_domain"], "ca_dpo")
        for s in config.seeds
    ]
    for i, b in enumerate(bins[0]):
        target = "each less than the one above" if i == 0 else ""
        add(
            f"refused by CA-DPO, confidence {b.low:g} to {b.high:g}",
            [found[i].refr.value for found in bins],
            target,
            "{:.3f}",
        )
    for model, name in models.items():
        add(f"T out of domain, {name}", cell(model, "all", domain="out_of_domain"))
    add("seconds", [costs[s]["seconds"] for s in config.seeds], "<= 300", "{:.0f}")
    add("peak memory, GiB", [costs[s]["gib"] for s in config.seeds], "<= 3", "{:.2f}")

    seeds = " ".join(map(str, config.seeds))
    command = f"python benchmarks/demo_seeds.py --seeds {seeds} --table {config.table}"
    machine = (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"
    )
    caption = (
        f"The demo over {len(config.seeds)} seeds: test split, in domain unless said otherwise. "
        f"Made by {command} on {machine}"
    )
    columns = ["", *(f"seed {s}" for s in config.seeds), "mean", "target"]
    checkpoint = file_fingerprint(TINY / "model.safetensors")
    write_json(
        config.table,
        {"caption": caption, "checkpoint": checkpoint, "columns": columns, "rows": table},
    )
    print(
        caption,
        *("| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *table)),
        sep="\n",
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
