"""The smallest slice of v5e chips for each model and stage, by compiling it; no TPU is needed.

    pip install libtpu
    python benchmarks/tpu_tables.py --out tables.json
    python benchmarks/tpu_tables.py --out tables.json --only llava-1.5-7b dpo

Slices are tried from four chips on, with the weights split over all of them (fsdp), full remat, and
a row of 640 prompt tokens per chip; the layers are scanned (`tpu/plan.py`). A slice that variables,
optimizer and gradients alone would fill is not compiled. Each row takes minutes; the file is
written after each, and the same command goes on from it. What is not in it is not in the table.
"""

import os

# Before JAX is imported, as in tpu/plan.py.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
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
STAGES = {
    "dpo, LoRA 128": {"stage": "dpo", "lora_rank": 128},
    "sft, LoRA 128": {"stage": "sft", "lora_rank": 128},
    "dpo, whole": {"stage": "dpo"},
    "sft, whole": {"stage": "sft"},
    "on-policy update, LoRA 128": {"stage": "rl", "lora_rank": 128},
    "sampling": {"stage": "sample"},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile what the file has not, and print the table."""

    out: Path
    """File of the results."""
    only: tuple[str, ...] = ()
    """Words that a row's name must all contain; by default all rows are made."""


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows by name, with the options of their plans."""
    for stage, options in STAGES.items():
        for model in MODELS:
            yield f"{model}: {stage}", {"model": model, **options}


def smallest(options: Mapping[str, Any]) -> dict[str, Any]:
    """The first slice that is enough, and what was found on those before it."""
    tried = {}
    for topology, chips in SLICES.items():
        own = {"remat": "full"} if options["stage"] != "sample" else {}
        config = PlanConfig(**options, **own, topology=topology, batch_size=chips)
        found = plan_of(config)
        if isinstance(found, str) or not found.fits:
            tried[topology] = found if isinstance(found, str) else "more than its memory"
            continue
        memory = {name: round(size, 3) for name, size in found.memory.items()}
        rates = {"samples": found.samples, "chips": found.chips, "compiled": found.compiled}
        time = found.time._asdict()
        return {"topology": topology, "memory": memory, "time": time, "tried": tried, **rates}
    return {"tried": tried}


def plan_of(config: PlanConfig) -> Plan | str:
    """What the compiler says of a program."""
    mesh = mesh_for(config, topology_devices(config.topology))
    return make_plan(config, model_folder(config.model), mesh)


def table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Markdown, a row per stage and a column per model; what has not been compiled is left out."""
    yield f"| | {' | '.join(MODELS)} |"
    yield "|---" * (len(MODELS) + 1) + "|"
    for stage in STAGES:
        cells = [cell(found.get(f"{model}: {stage}")) for model in MODELS]
        if any(cells):
            yield f"| {stage} | {' | '.join(cells)} |"


def cell(row: Mapping[str, Any] | None) -> str:
    """The slice, the samples per second, and those per chip-hour."""
    if row is None:
        return ""
    if "topology" not in row:
        return "more than 64 chips"
    hourly = 3600 * row["samples"] / row["chips"]
    return f"{row['topology'].removeprefix('v5e:')}: {row['samples']:.1f}/s, {hourly:,.0f}"


def main(config: Config) -> None:
    """Compiles row after row, and prints the table."""
    found = json.loads(config.out.read_text()) if config.out.exists() else {}
    for name, options in rows():
        if name in found or not all(word in name for word in config.only):
            continue
        found[name] = smallest(options)
        write_json(config.out, found)
        print(name, found[name], file=sys.stderr, flush=True)
    print("\n".join(table(found)), f"\n\n{ASSUMED[0].upper()}{ASSUMED[1:]}.")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except InbolError as error:
        sys.exit(f"error: {error}")
