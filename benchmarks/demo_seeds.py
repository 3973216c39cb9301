"""The demo over several seeds, each in a process of its own: the table of docs/results.md, from
which README's numbers are taken, and README's picture, which is that of the first seed.

    python benchmarks/demo_seeds.py --seeds 0 1 2 --out runs/seeds --rl --table
    inbol_jax/world/assets/measured/seeds.json --picture docs/summary.png

A seed that is already complete in --out is read, not run again (its peak memory is then unknown).
"""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from inbol_jax.artifacts import file_fingerprint, write_json
from inbol_jax.defaults import TINY
from inbol_jax.evaluation.metrics import (
    Difference,
    Scores,
    best_baseline,
    by_confidence,
    differences,
)
from inbol_jax.evaluation.prediction import Prediction, read_predictions
from inbol_jax.evaluation.tables import signed, with_interval
from inbol_jax.pages.figures import MINUS

DOMAINS = {"in_domain": "in domain", "out_of_domain": "out of domain"}
LABELS = {"idk_it": "IDK-IT", "dpo": "DPO", "ca_dpo": "CA-DPO", "rl": "on-policy"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the demo over several seeds and write a table."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, with one demo each."""
    out: Path = Path("runs/seeds")
    """Folder of the runs."""
    rl: bool = False
    """Train by on-policy refusal as well."""
    table: Path = Path("runs/seeds/seeds.json")
    """JSON file of the table, for the demo's report."""
    picture: Path = Path("runs/seeds/summary.png")
    """The summary of the first seed's report."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished demo."""

    metrics: dict[str, Any]
    predictions: list[Prediction]
    gib: float | None
    """Peak memory; None if it was run before."""

    @property
    def seconds(self) -> float:
        """Of the demo without its optional stage."""
        return sum(s for stage, s in self.metrics["seconds"].items() if stage != "on-policy")

    def cell(self, model: str, group: str, name: str, domain: str = "in_domain") -> float:
        return self.metrics["models"][model][domain][group][name]

    def asked(self, model: str, domain: str) -> list[Prediction]:
        """What a model said; nothing of a baseline."""
        return [p for p in self.predictions if p.model == model and p.domain == domain]

    def best(self, domain: str) -> str:
        """The best baseline."""
        summary = {
            model: {d: {"all": Scores(**groups["all"])} for d, groups in domains.items()}
            for model, domains in self.metrics["models"].items()
        }
        return best_baseline(summary, "base", domain)


def run(seed: int, config: Config) -> Run:
    """The demo as a user starts it."""
    folder, gib = config.out / str(seed), None
    if not (folder / "metrics.json").exists():
        options = ["--out", str(folder), "--seed", str(seed), *(["--rl"] if config.rl else [])]
        process = subprocess.Popen([sys.executable, "-m", "inbol_jax", "demo", *options])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"seed {seed}: the demo failed with status {status}")
        gib = usage.ru_maxrss / 2**20
    metrics = json.loads((folder / "metrics.json").read_text())
    return Run(metrics, list(read_predictions(folder / "evaluation/predictions.jsonl")), gib)


class Rows:
    """The rows of the table: a label, a cell per seed, one of all, and the target."""

    def __init__(self, runs: Sequence[Run]):
        self.runs, self.rows = runs, []

    def add(self, label: str, values: Iterable[float | None], form: str, target: str = "") -> None:
        values = list(values)
        cells = ["" if v is None else form.format(v) for v in values]
        mean = "" if None in values else form.format(float(np.mean(values)))
        self.rows.append([label, *(c.replace("-", MINUS) for c in (*cells, mean)), target])

    def add_change(self, label: str, a: Sequence[str], b: str, domain: str, target: str) -> None:
        """T of b minus T of a, which may be another one per seed; the last cell pools the seeds."""
        pairs = list(zip(self.runs, a, strict=True))
        found = [change(run, name, b, domain) for run, name in pairs]
        everything = signed(float(np.mean([d.diff for d in found])))
        if all(run.asked(name, domain) for run, name in pairs) and len({*a}) == 1:
            pooled = [p for run, name in pairs for m in (name, b) for p in run.asked(m, domain)]
            everything = interval_of(of_all(pooled, a[0], b))
        self.rows.append([label, *map(interval_of, found), everything, target])


def of_all(predictions: Sequence[Prediction], a: str, b: str) -> Difference:
    """T of b minus T of a on all questions, which are of one domain."""
    return next(d for d in differences(predictions, pairs=[(a, b)]) if d.group == "all")


def change(run: Run, a: str, b: str, domain: str) -> Difference:
    """From metrics.json if it is there: the predictions lack what the baselines decide."""
    for d in run.metrics["differences"]:
        if (d["a"], d["b"], d["domain"], d["group"]) == (a, b, domain, "all"):
            return Difference(**d)
    return of_all([*run.asked(a, domain), *run.asked(b, domain)], a, b)


def interval_of(d: Difference) -> str:
    return with_interval(d.diff, d.low, d.high)


def fill(rows: Rows) -> None:
    """All rows of the table."""
    runs = rows.runs
    models = [m for m in runs[0].metrics["models"] if m in LABELS]
    for domain, where in DOMAINS.items():
        for name in runs[0].metrics["models"]:
            values = (r.cell(name, "all", "t", domain) for r in runs)
            rows.add(f"T {where}, {LABELS.get(name, name)}", values, "{:+.3f}")
        best = [r.best(domain) for r in runs]
        values = (r.cell(b, "all", "t", domain) for r, b in zip(runs, best, strict=True))
        rows.add(f"T {where}, best baseline", values, "{:+.3f}")
        for model in models:
            target = "> its interval" if model in ("idk_it", "ca_dpo") else ""
            label = f"T {where}, {LABELS[model]} minus best baseline"
            rows.add_change(label, best, model, domain, target)
        pairs = [("idk_it", "ca_dpo"), ("dpo", "ca_dpo")]
        pairs += [("ca_dpo", "rl")] if "rl" in models else []
        for a, b in pairs:
            target = ""
            if (a, b) == ("idk_it", "ca_dpo"):
                target = "> its interval" if domain == "in_domain" else "not below 0"
            label = f"T {where}, {LABELS[b]} minus {LABELS[a]}"
            rows.add_change(label, [a] * len(runs), b, domain, target)
    for model in ("base", *models):
        values = (r.cell(model, "type1", "acc") for r in runs)
        rows.add(f"Type 1 accuracy, {LABELS.get(model, model)}", values, "{:.3f}")
    for model in models:
        fall = (r.cell("base", "type1", "acc") - r.cell(model, "type1", "acc") for r in runs)
        label = f"Type 1 accuracy, base minus {LABELS[model]}"
        rows.add(label, fall, "{:.3f}", "<= 0.05" if model == "ca_dpo" else "")
    for model in models:
        target = ">= 0.90" if model == "ca_dpo" else ""
        values = (r.cell(model, "type3", "refr") for r in runs)
        rows.add(f"Type 3 refused in domain, {LABELS[model]}", values, "{:.3f}", target)
    for model in models:
        refused = (
            np.mean([p.outcome == "refused" for p in r.predictions if is_held_out(p, model)])
            for r in runs
        )
        target = ">= 0.70" if model == "ca_dpo" else ""
        rows.add(f"Type 3 refused, held-out kinds, {LABELS[model]}", refused, "{:.3f}", target)
    for domain, where in DOMAINS.items():
        for name in runs[0].metrics["curves"]:
            label = LABELS.get(name, "base" if name == "base" else name)
            curves = [r.metrics["curves"][name][domain] for r in runs]
            if name in ("base", *models):
                rows.add(f"AURC {where}, {label}", (c["aurc"][0] for c in curves), "{:.3f}")
            target = "<= 0.70" if name.startswith("base_threshold") else ""
            target = "0.35 to 0.65" if name == "base_threshold_logodds" else target
            values = (c["auroc_type3"] for c in curves)
            rows.add(f"AUROC {where} of Type 3, {label}", values, "{:.3f}", target)
    bins = [
        by_confidence([p for p in r.predictions if p.domain == "in_domain"], "ca_dpo") for r in runs
    ]
    for i, b in enumerate(bins[0]):
        label = f"refused by CA-DPO, confidence {b.low:g} to {b.high:g}"
        target = "each less than the one above" if i == 0 else ""
        rows.add(label, (found[i].refr.value for found in bins), "{:.3f}", target)
    rows.add("seconds, without on-policy", (r.seconds for r in runs), "{:.0f}", "<= 300")
    rows.add("peak memory, GiB", (r.gib for r in runs), "{:.2f}", "<= 3")


def is_held_out(p: Prediction, model: str) -> bool:
    return p.model == model and p.dataset == "ood_kinds"


def main(config: Config) -> None:
    runs = [run(seed, config) for seed in config.seeds]
    rows = Rows(runs)
    fill(rows)
    first = config.out / str(config.seeds[0])
    config.picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first / "figures/summary.png", config.picture)
    seeds = " ".join(map(str, config.seeds))
    rl = " --rl" if config.rl else ""
    command = (
        f"python benchmarks/demo_seeds.py --seeds {seeds}{rl} --table {config.table} "
        f"--picture {config.picture}"
    )
    machine = (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"
    )
    caption = (
        f"The demo over {len(config.seeds)} seeds, test split; differences with paired 95% "
        f"intervals. Made by {command} on {machine}"
    )
    columns = ["", *(f"seed {s}" for s in config.seeds), "all", "target"]
    table = {
        "caption": caption,
        "checkpoint": file_fingerprint(TINY / "model.safetensors"),
        "picture": file_fingerprint(config.picture),
        "columns": columns,
        "rows": rows.rows,
    }
    write_json(config.table, table)
    print(caption)
    for line in (columns, ["---"] * len(columns), *rows.rows):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main(tyro.cli(Config))
