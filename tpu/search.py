"""Meshes, remat and micro-batches for a stage on a slice: what fits is compared by its estimated
rate. `tpu/plan.py --search` runs it.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
from plan import ASKING, SCANNED, Config, Plan, make_plan, mesh_for, model_folder

from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config
from inbol_jax.progress import say

REMATS = ("none", "selective", "full")  # from the fastest to the smallest


def meshes(model: ModelConfig, devices: int, slices: int = 1) -> Iterator[tuple[int, int, int]]:
    """Meshes worth trying: of each slice all along fsdp, all along data, fsdp in groups of up to
    16, and tensor up to 4 where it divides the heads.

    Args:
      devices: of all slices, which lie along data.
    """
    heads, each = math.gcd(model.text.num_heads, model.text.num_kv_heads), devices // slices
    found = {(slices, each, 1), (devices, 1, 1)}
    found |= {(devices // n, n, 1) for n in (4, 8, 16) if each % n == 0}
    found |= {(slices, each // n, n) for n in (2, 4) if each % n == heads % n == 0}
    yield from sorted(found)


def settings(config: Config, devices: int) -> Iterator[tuple[str, int]]:
    """Remat and micro-batches from the fastest to the smallest in memory: each device keeps a row
    at least."""
    if config.stage in ASKING:
        yield config.remat, config.gradient_accumulation_steps
        return
    rows = max(1, config.batch_size // devices)
    counts = [n for n in (1, 2, 4, 8, 16) if n <= rows]
    # Micro-batches cost less than computing activations again, but weights are gathered for each.
    yield from ((remat, count) for remat in REMATS for count in counts)


def search(config: Config, devices: Sequence[jax.Device]) -> int:
    """Compiles what may fit, prints a table of it, and the options of the best. Returns the exit
    code: 2 if nothing fits.

    Each mesh is tried from the fastest settings on, up to the first that fit: those behind them
    compute more in less memory.
    """
    folder = model_folder(config.model)
    found: list[tuple[Config, Plan]] = []
    say("| mesh | remat | micro-batches | GiB per device | samples/s |\n|---|---|---|---|---|")
    for sizes in meshes(load_config(folder), len(devices), config.slices):
        for remat, count in settings(config, len(devices)):
            options = {"mesh": sizes, "remat": remat, "gradient_accumulation_steps": count}
            tried = dataclasses.replace(config, **options)
            plan = make_plan(tried, folder, mesh_for(tried, devices))
            say(f"| {' '.join(map(str, sizes))} | {remat} | {count} | {outcome(plan)} |")
            if isinstance(plan, Plan) and plan.fits:
                found.append((tried, plan))
                break
    if not found:
        say("nothing fits: more chips, a lower --lora-rank, or --prompt with fewer tokens")
        return 2
    best, plan = max(found, key=lambda pair: pair[1].samples)
    options = f"--mesh {' '.join(map(str, best.mesh))}"
    if best.stage not in ASKING:
        options += f" --remat {best.remat}"
        options += f" --gradient-accumulation-steps {best.gradient_accumulation_steps}"
    say(f"best of those that fit: {options}, {plan.samples:.1f} samples/s")
    if plan.scanned:
        say(SCANNED)
    return 0


def outcome(plan: Plan | str) -> str:
    """Two cells of a table: memory and rate."""
    if isinstance(plan, str):
        return f"does not fit: {plan} | "
    total = f"{sum(plan.memory.values()):.1f} of {plan.room:.0f}"
    return f"{total} | {plan.samples:.1f}" if plan.fits else f"{total}: does not fit | "
