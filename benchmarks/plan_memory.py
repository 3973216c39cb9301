"""Does a step need the memory that `tpu/plan.py` plans? It is planned for the devices at hand, and
run on them.

    python benchmarks/plan_memory.py              # a CPU: Linux, a few GiB
    python benchmarks/plan_memory.py --devices 4  # that CPU as four devices
    JAX_PLATFORMS=cuda python benchmarks/plan_memory.py --only "LoRA"

Each case runs in a process of its own, on arrays of zeros. What it allocates on a CPU is the growth
of the largest resident size, of the kernel's own account; on a GPU, what JAX says that it had in
use. A line per case: GiB planned (parameters, optimizer, batch; and all else), GiB measured.
"""

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tpu"))
from costs import memory_of
from plan import Config as PlanConfig
from plan import model_folder, trace

from inbol_jax.sharding import make_mesh

SMALL = {"model": "smolvlm-256m", "prompt": 256, "answer": 32, "batch_size": 8}
CASES = {
    "sft, LoRA 16": {"stage": "sft", "lora_rank": 16},
    "dpo, LoRA 16": {"stage": "dpo", "lora_rank": 16},
    "dpo, LoRA 16, full remat": {"stage": "dpo", "lora_rank": 16, "remat": "full"},
    "dpo, LoRA 16, layers apart": {"stage": "dpo", "lora_rank": 16, "scan_layers": False},
    "dpo, whole": {"stage": "dpo"},
    "rl, LoRA 16": {"stage": "rl", "lora_rank": 16, "n": 4},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Plan and run the cases."""

    devices: int = 1
    """Devices that a CPU is divided into, along fsdp."""
    only: str = ""
    """Part of the names of the cases that are run."""


class Account:
    """What the devices allocate from now on."""

    def __init__(self) -> None:
        self._gpus = [device for device in jax.devices() if device.platform != "cpu"]
        gc.collect()
        if not self._gpus:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._before = self._used("VmRSS", "bytes_in_use")

    def _used(self, of_process: str, of_device: str) -> int:
        if self._gpus:
            return sum(device.memory_stats()[of_device] for device in self._gpus)
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(of_process))

    @property
    def grown(self) -> int:
        """Bytes that are in use now, less those before."""
        return self._used("VmRSS", "bytes_in_use") - self._before

    @property
    def peak(self) -> int:
        """Bytes that were in use at most, less those before."""
        return self._used("VmHWM", "peak_bytes_in_use") - self._before


def measure(options: Mapping[str, Any]) -> dict[str, float]:
    """GiB of all devices: planned and measured, of what is given to the step and of all else."""
    config = PlanConfig(**SMALL | options)
    program = trace(config, model_folder(config.model), make_mesh(1, -1, 1))
    compiled = program.traced.lower().compile()
    planned = memory_of(program.parts, compiled)
    inner = planned.pop("activations and temporaries") + planned.pop("outputs")
    given = Account()

    def zeros(x: Any, place: Any) -> jax.Array:
        return jax.device_put(jnp.zeros(x.shape, x.dtype), place)

    arguments = jax.tree.map(zeros, program.traced.args_info[0], compiled.input_shardings[0])
    arguments = jax.block_until_ready(arguments)
    found = {"given": given.grown}
    run = Account()
    result = jax.block_until_ready(compiled(*arguments))
    found["inner"] = run.peak
    del result
    of_all = {"planned given": sum(planned.values()), "planned inner": inner}
    of_all = {name: size * jax.device_count() for name, size in of_all.items()}
    return of_all | {name: size / 2**30 for name, size in found.items()}


def main(config: Config) -> None:
    """Runs each case in a process of its own."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={config.devices}"
    print("| case | given: planned | measured | all else: planned | measured | together |")
    print("|---|---|---|---|---|---|")
    for name, options in CASES.items():
        if config.only not in name:
            continue
        command = [sys.executable, __file__, json.dumps(options)]
        environment = os.environ | {"XLA_FLAGS": flags}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        row = json.loads(done.stdout.splitlines()[-1])
        planned, found = row["planned given"] + row["planned inner"], row["given"] + row["inner"]
        cells = [row["planned given"], row["given"], row["planned inner"], row["inner"]]
        cells = " | ".join(f"{size:.2f}" for size in cells)
        print(f"| {name} | {cells} | {found / planned - 1:+.0%} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main(tyro.cli(Config))
