"""Writes and loads a random checkpoint of LLaVA-1.5-7B's shapes: seconds, and peak host memory.

    python benchmarks/load_7b.py --folder runs/llava-7b [--mesh 1 -1 1] [--forward]

The checkpoint is bfloat16, in shards. Loading may take the largest shard plus 2 GiB of host memory;
on a CPU the parameters themselves come on top. On a CPU, devices to split over come from
XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from inbol_jax.models import Checkpoint, load_pretrained
from inbol_jax.models.families import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.reading import weight_files
from inbol_jax.models.writing import save_params
from inbol_jax.sharding import make_mesh

SHAPES = Path(__file__).parents[1] / "inbol_jax/training/shapes/llava-1.5-7b/config.json"


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the checkpoint, unless it is there, and load it."""

    folder: Path = Path("runs/llava-7b")
    """Folder of the checkpoint: 14 GB."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Sizes of data, fsdp and tensor."""
    forward: bool = False
    """Also run one question of 640 tokens."""
    load: bool = False
    """Only load, in this process. Without this the script writes, and starts itself with it."""


class LazyArray:
    """An array that exists only while it is written."""

    def __init__(self, shape: tuple[int, ...], noise: np.ndarray):
        self.shape, self._noise = shape, noise
        self.nbytes = 2 * int(np.prod(shape))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        # The noise is repeated: the values do not matter, their number does.
        scale = max(self.shape[0], 1) ** -0.5
        return np.resize(self._noise, self.shape) * self._noise.dtype.type(scale)


class PeakMemory(threading.Thread):
    """The largest anonymous memory of this process, without the mapped pages of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._bytes, self._ended = 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            self._bytes = max(self._bytes, 1024 * int(status.split("RssAnon:")[1].split()[0]))

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self._bytes


def report(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(SHAPES.read_bytes())
    start = time.monotonic()
    noise = np.random.default_rng(0).standard_normal(1 << 20, np.float32).astype(jnp.bfloat16)
    shapes = param_shapes(load_config(folder))
    save_params(folder, jax.tree.map(lambda leaf: LazyArray(leaf.shape, noise), shapes))
    report(what="write", seconds=round(time.monotonic() - start, 1))


def load(config: Config) -> None:
    mesh = make_mesh(*config.mesh)
    peak = PeakMemory()
    peak.start()
    start = time.monotonic()
    checkpoint = load_pretrained(config.folder, mesh=mesh)
    leaves = jax.block_until_ready(jax.tree.leaves(checkpoint.variables))
    seconds, anonymous = time.monotonic() - start, peak.end()
    local = sum(part.data.nbytes for x in leaves for part in x.addressable_shards)
    on_host = local if jax.default_backend() == "cpu" else 0
    sizes = {
        "peak_anonymous": anonymous,
        "beside_parameters": anonymous - on_host,
        "bound": max(file.stat().st_size for file in weight_files(config.folder)) + 2 * 2**30,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10,
        "parameters_on_devices": local,
    }
    report(
        what="load",
        device=jax.devices()[0].device_kind,
        mesh=dict(mesh.shape),
        seconds=round(seconds, 1),
        parameters=sum(x.size for x in leaves),
        **{f"{name}_gib": round(size / 2**30, 2) for name, size in sizes.items()},
    )
    if config.forward:
        forward(checkpoint)


def forward(checkpoint: Checkpoint) -> None:
    ids = np.ones((1, 640), np.int32)
    ids[:, 10 : 10 + checkpoint.config.num_image_tokens] = checkpoint.config.image_token_id
    batch = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "pixel_values": np.zeros((1, 1, 3, 336, 336), np.float32),
    }
    apply = checkpoint.model.apply
    run = jax.jit(lambda variables, batch: apply(variables, batch)[:, -1].argmax(-1))
    jax.block_until_ready(run(checkpoint.variables, batch))  # compile
    start = time.monotonic()
    jax.block_until_ready(run(checkpoint.variables, batch))
    report(what="forward", tokens=640, seconds=round(time.monotonic() - start, 2))


def main(config: Config) -> None:
    if config.load:
        return load(config)
    if not (config.folder / "model.safetensors.index.json").exists():
        write(config.folder)
    # A process of its own: the peak is that of loading, not of writing.
    command = [sys.executable, __file__, "--load", "--folder", str(config.folder)]
    command += ["--mesh", *map(str, config.mesh), *(["--forward"] if config.forward else [])]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
