"""A random checkpoint of LLaVA-1.5-7B's shapes, bfloat16, in shards, written and loaded: seconds, and peak host memory against its bound.

    python benchmarks/load_7b.py --folder runs/llava-7b [--mesh 1 -1 1] [--forward]

The bound is the largest shard plus 2 GiB, beside the parameters themselves where the host's memory is the device's (on a CPU).
Mesh sizes are data, fsdp and tensor; on a CPU XLA_FLAGS=--xla_force_host_platform_device_count=8 makes devices to split over.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from inbol_jax.models import load_pretrained
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.weights import save_params, weight_files
from inbol_jax.sharding import make_mesh

SHAPES = Path(__file__).parents[1] / "tpu/shapes/llava-1.5-7b/config.json"


@dataclasses.dataclass(frozen=True)
class Config:
    """Write (where it is not there yet) and load the checkpoint.

    Attributes:
      folder: of the checkpoint: 14 GB.
      mesh: sizes of data, fsdp and tensor.
      forward: also run one question of 640 tokens.
      load: only load, in this process; without it the script writes, and starts itself with it.
    """

    folder: Path = Path("runs/llava-7b")
    mesh: tuple[int, int, int] = (-1, 1, 1)
    forward: bool = False
    load: bool = False


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(SHAPES.read_bytes())
    start = time.monotonic()
    random = np.random.default_rng(0)
    noise = random.standard_normal(1 << 20, np.float32).astype(
        jnp.bfloat16
    )  # repeated: the values do not matter, their number does

    def lazy(leaf: jax.ShapeDtypeStruct) -> "Lazy":
        return Lazy(leaf.shape, noise)

    save_params(folder, jax.tree.map(lazy, param_shapes(load_config(folder))), max_shard_size="5GB")
    print(json.dumps({"what": "write", "seconds": round(time.monotonic() - start, 1)}), flush=True)


class Lazy:
    """An array that exists when it is written alone."""

    def __init__(self, shape: tuple[int, ...], noise: np.ndarray):
        self.shape, self.noise = shape, noise
        self.size = int(np.prod(shape))
        self.nbytes = 2 * self.size

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.resize(self.noise, self.shape) * jnp.bfloat16(max(self.shape[0], 1) ** -0.5)


class Peak(threading.Thread):
    """The largest anonymous memory of this process: the mapped pages of a file are the system's to take back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._ended = 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            self.bytes = max(self.bytes, 1024 * int(status.split("RssAnon:")[1].split()[0]))

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self.bytes


def load(config: Config) -> None:
    mesh = make_mesh(*config.mesh)
    peak = Peak()
    peak.start()
    start = time.monotonic()
    loaded = load_pretrained(config.folder, dtype=jnp.bfloat16, mesh=mesh)
    jax.block_until_ready(loaded.variables)
    seconds, anonymous = time.monotonic() - start, peak.end()
    leaves = jax.tree.leaves(loaded.variables)
    local = sum(part.data.nbytes for x in leaves for part in x.addressable_shards)
    on_host = local if jax.default_backend() == "cpu" else 0
    shard = max(file.stat().st_size for file in weight_files(config.folder))
    found = {
        "peak_anonymous": anonymous,
        "beside_parameters": anonymous - on_host,
        "bound": shard + 2 * 2**30,
    }
    found |= {
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10,
        "parameters_on_devices": local,
    }
    line = {
        "what": "load",
        "device": jax.devices()[0].device_kind,
        "mesh": dict(mesh.shape),
        "seconds": round(seconds, 1),
    }
    line |= {"parameters": sum(x.size for x in leaves)} | {
        f"{name}_gib": round(size / 2**30, 2) for name, size in found.items()
    }
    print(json.dumps(line), flush=True)
    if config.forward:
        c = loaded.config
        ids = np.ones((1, 640), np.int32)
        ids[:, 10 : 10 + c.num_image_tokens] = c.image_token_id
        batch = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "pixel_values": np.zeros((1, 1, 3, 336, 336), np.float32),
        }
        run = jax.jit(
            lambda variables, batch: loaded.model.apply(variables, batch)[:, -1].argmax(-1)
        )
        jax.block_until_ready(run(loaded.variables, batch))
        start = time.monotonic()
        jax.block_until_ready(run(loaded.variables, batch))
        print(
            json.dumps(
                {"what": "forward", "tokens": 640, "seconds": round(time.monotonic() - start, 2)}
            ),
            flush=True,
        )


def main(config: Config) -> None:
    if config.load:
        return load(config)
    if not (config.folder / "model.safetensors.index.json").exists():
        write(config.folder)
    # A process of its own: the peak is that of loading, not of writing.
    command = [
        sys.executable,
        __file__,
        "--folder",
        str(config.folder),
        "--mesh",
        *map(str, config.mesh),
        "--load",
    ]
    subprocess.run([*command, *(["--forward"] if config.forward else [])], check=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
