"""What stages need on TPUs and H100s, by compiling them; neither is needed.

    pip install libtpu "jax[cuda12]"
    python benchmarks/tpu_tables.py --out tables.json
    python benchmarks/tpu_tables.py --out tables.json --only v5e llava-1.5-7b dpo

Three tables. The smallest slice of v5e, and the smallest part of a node of H100s, for each model
and stage: chips are tried from few on, with the weights split over all of them (fsdp), full remat,
and one row of 640 prompt tokens per v5e, eight per H100. And what CA-DPO costs a chip as v5e chips
grow from 4 to 1,024, four slices of 256. The layers are scanned (`tpu/plan.py`). What variables,
optimizer and gradients alone would fill is not compiled. Each row takes minutes; the file is
written after each, and the same command goes on from it. What is not in it is not in the tables.
"""

import os

# Before JAX is imported, as in tpu/plan.py.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
os.environ |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tpu"))
from costs import ASSUMED
from plan import Config as PlanConfig
from plan import Plan, make_plan, mesh_for, model_folder, topology_devices

from inbol_jax.artifacts import write_json
from inbol_jax.errors import InbolError

MODELS = ("llava-1.5-7b", "qwen3-vl-4b", "qwen3-vl-8b", "llava-1.5-13b")
SLICES = {"v5e:2x2": 4, "v5e:2x4": 8, "v5e:4x4": 16, "v5e:4x8": 32, "v5e:8x8": 64}
NODES = {"h100": 1, "h100:2": 2, "h100:4": 4, "h100:8": 8}
# Chips of a table, and rows per chip
TABLES = {"v5e": (SLICES, 1), "h100": (NODES, 8)}
STAGES = {
    "dpo, LoRA 128": {"stage": "dpo", "lora_rank": 128},
    "sft, LoRA 128": {"stage": "sft", "lora_rank": 128},
    "dpo, whole": {"stage": "dpo"},
    "sft, whole": {"stage": "sft"},
    "on-policy update, LoRA 128": {"stage": "rl", "lora_rank": 128},
    "sampling": {"stage": "sample"},
}
# Chips: topology and slices. Each slice has a copy of the weights at least.
GROWTH = {4: ("v5e:2x2", 1), 16: ("v5e:4x4", 1), 64: ("v5e:8x8", 1), 256: ("v5e:16x16", 1)}
GROWTH[1024] = ("v5e:16x16", 4)
GROUPS = {"a slice": 256, "16 chips": 16}  # that the weights are split over, at most
GROWN = {"stage": "dpo", "model": "llava-1.5-7b", "remat": "full"}
GROWN_STAGES = {"LoRA 128": {"lora_rank": 128}, "whole": {}}
ROWS_PER_CHIP = 4


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile what the file has not, and print the tables."""

    out: Path
    """File of the results."""
    only: tuple[str, ...] = ()
    """Words that a row's name must all contain; by default all rows are made."""


def plans() -> Iterator[tuple[str, Sequence[PlanConfig]]]:
    """The rows by name, with the plans of which the first that fits is told."""
    for name, (topologies, per_chip) in TABLES.items():
        for stage, options in STAGES.items():
            own = {"remat": "full"} if options["stage"] != "sample" else {}
            for model in MODELS:
                yield (
                    f"{name}, {model}: {stage}",
                    [
                        PlanConfig(
                            **options,
                            **own,
                            model=model,
                            topology=topology,
                            batch_size=chips * per_chip,
                        )
                        for topology, chips in topologies.items()
                    ],
                )
    for stage, options in GROWN_STAGES.items():
        for group, most in GROUPS.items():
            for chips, (topology, slices) in GROWTH.items():
                fsdp = min(most, chips // slices)
                if group == "16 chips" and chips <= most:  # as over the slice
                    continue
                grown = {"topology": topology, "slices": slices, "mesh": (chips // fsdp, fsdp, 1)}
                grown |= GROWN | options | {"batch_size": chips * ROWS_PER_CHIP}
                yield growth_name(stage, group, chips), [PlanConfig(**grown)]


def growth_name(stage: str, group: str, chips: int) -> str:
    """The name of a row of the table of growth."""
    return f"growth, {stage}, over {group}: {chips}"


def first_that_fits(configs: Sequence[PlanConfig]) -> dict[str, Any]:
    """The first of the plans whose memory is enough, and what was found on those before it."""
    tried = {}
    for config in configs:
        found = plan_of(config)
        if isinstance(found, str) or not found.fits:
            tried[config.topology] = found if isinstance(found, str) else "more than its memory"
            continue
        memory = {name: round(size, 3) for name, size in found.memory.items()}
        time = found.time._asdict()
        rates = {"samples": found.samples, "chips": found.chips, "compiled": found.compiled}
        rates["flops"] = found.flops / found.chips
        rates["received"] = sum(x.count * x.received for x in found.exchanges if x.slices == 1)
        rates["between"] = sum(x.count * x.received for x in found.exchanges if x.slices > 1)
        return {"topology": config.topology, "memory": memory, "time": time, "tried": tried} | rates
    return {"tried": tried}


def plan_of(config: PlanConfig) -> Plan | str:
    """What the compiler says of a program."""
    mesh = mesh_for(config, topology_devices(config.topology, config.slices))
    return make_plan(config, model_folder(config.model), mesh)


def table(name: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Markdown, a row per stage and a column per model; what has not been compiled is left out."""
    yield f"| {name} | {' | '.join(MODELS)} |"
    yield "|---" * (len(MODELS) + 1) + "|"
    for stage in STAGES:
        cells = [cell(found.get(f"{name}, {model}: {stage}"), name) for model in MODELS]
        if any(cells):
            yield f"| {stage} | {' | '.join(cells)} |"


def cell(row: Mapping[str, Any] | None, name: str) -> str:
    """The chips, the samples per second, and those per chip-hour."""
    if row is None:
        return ""
    if "topology" not in row:
        return f"more than {max(TABLES[name][0].values())} chips"
    hourly = 3600 * row["samples"] / row["chips"]
    shape = row["topology"].partition(":")[2] or "1"
    return f"{shape}: {row['samples']:.1f}/s, {hourly:,.0f}"


def growth(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: what a chip computes and exchanges, and what it does, as chips grow."""
    columns = ("weights over", "chips", "GiB", "TFLOP", "GiB received", "between slices")
    columns += ("products", "exchanges", "samples per chip-hour")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for stage in GROWN_STAGES:
        for group in GROUPS:
            for chips in GROWTH:
                row = found.get(growth_name(stage, group, chips))
                if row is None:
                    continue
                label = f"| {stage}: {group} | {chips:,} | "
                if "topology" not in row:
                    yield f"{label}does not fit | | | | | | |"
                    continue
                time = row["time"]
                cells = [
                    f"{sum(row['memory'].values()):.1f}",
                    f"{row['flops'] / 1e12:.1f}",
                    f"{row['received'] / 2**30:.2f}",
                    f"{row['between'] / 2**30:.2f}",
                    f"{time['products']:.2f} s",
                    f"{max(time['exchanges'], time['network']):.2f} s",
                    f"{3600 * row['samples'] / row['chips']:,.0f}",
                ]
                yield f"{label}{' | '.join(cells)} |"


def main(config: Config) -> None:
    """Compiles row after row, and prints the tables."""
    found = json.loads(config.out.read_text()) if config.out.exists() else {}
    for name, configs in plans():
        if name in found or not all(word in name for word in config.only):
            continue
        found[name] = first_that_fits(configs)
        write_json(config.out, found)
        print(name, found[name], file=sys.stderr, flush=True)
    for name in TABLES:
        print("\n".join(table(name, found)), end="\n\n")
    print("\n".join(growth(found)), f"\n\n{ASSUMED[0].upper()}{ASSUMED[1:]}.")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except InbolError as error:
        sys.exit(f"error: {error}")
