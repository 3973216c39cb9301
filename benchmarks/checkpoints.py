"""How long training stands still while a checkpoint is saved, and how long the rest takes.

python benchmarks/checkpoints.py --megabytes 1024
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from inbol_jax.sharding import make_mesh, replicate
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.step import init_state

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--megabytes", type=int, default=1024, help="size of the state")
parser.add_argument("--arrays", type=int, default=32, help="trained arrays")
parser.add_argument("--out", type=Path, help="folder; by default a temporary one")


def main() -> None:
    options = parser.parse_args()
    width = int((options.megabytes * 2**20 / 4 / 3 / options.arrays) ** 0.5)  # with two moments
    params = {
        str(i): jax.random.normal(jax.random.key(i), (width, width)) for i in range(options.arrays)
    }
    state = replicate(init_state(params, optax.adamw(1e-3)), make_mesh())
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / 2**30
    temporary = tempfile.TemporaryDirectory(dir=options.out)
    with temporary as folder, Checkpoints(Path(folder), {}) as checkpoints:
        for step in (1, 2, 3):
            start = time.monotonic()
            checkpoints.save(state._replace(step=jnp.int32(step)), {})
            blocked = time.monotonic()
            checkpoints.wait()
            print(
                f"{size:.2f} GiB: training blocked for {blocked - start:.2f} s; written after "
                f"{time.monotonic() - start:.2f} s",
                flush=True,
            )
        start = time.monotonic()
        checkpoints.restore(state)
        print(f"restored in {time.monotonic() - start:.2f} s")


if __name__ == "__main__":
    main()
