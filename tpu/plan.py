"""Will it fit? A stage compiled ahead of time for a TPU slice: no TPU, no weights and no data are needed.

    pip install libtpu
    python tpu/plan.py dpo --topology v5e:4x4 --lora-rank 128 --remat full --mesh 1 -1 1 --batch-size 16
    python tpu/plan.py sample --topology v6e:2x2 --mesh -1 1 1 --batch-size 16

The programs are those that `train.py` and `inbol confidence` run. Says what a chip must hold, whether it can, and what the chips send one
another in a step. Exit code 0 when it fits, 2 when it does not.
"""

import dataclasses
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # do not look for the TPU of this machine
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import LoraConfig
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.sampler import sample
from inbol_jax.sharding import BATCH, make_mesh, round_batch
from inbol_jax.training.parallel import round_rows
from inbol_jax.training.plan import (
    Collective,
    abstract_pairs,
    abstract_variables,
    collectives,
    lower_step,
)
from inbol_jax.training.stage import FROZEN
from inbol_jax.training.state import make_optimizer
from inbol_jax.training.step import ca_dpo_objective, sft_objective

SHAPES = Path(__file__).parent / "shapes"
HBM = {
    "TPU v4": 32,
    "TPU v5 lite": 16,
    "TPU v5": 95,
    "TPU v6 lite": 32,
}  # GiB a chip, by `device_kind`


@dataclasses.dataclass(frozen=True)
class Config:
    """Plan a stage on a TPU slice. Options that train.py has mean the same here.

    Attributes:
      stage: sft (IDK-IT), dpo (CA-DPO), or sample (`inbol confidence`).
      topology: generation and chips, as v5e:4x4, v6e:2x4, v5p:2x2x2, v4:2x2x4.
      model: folder with a config.json in Hugging Face layout, or a name below tpu/shapes.
      prompt: tokens of a prompt, its image's 576 included.
      answer: tokens of a response.
      batch_size: rows (sft) or pairs (dpo) of all chips together; questions (sample) of a host's chips, which are what mesh is of then.
      n: responses sampled to each question.
      lora_rank: 0 trains the whole decoder and projector.
    """

    stage: tyro.conf.Positional[Literal["sft", "dpo", "sample"]]
    topology: str = "v5e:4x4"
    model: str = "llava-1.5-7b"
    mesh: tuple[int, int, int] = (1, -1, 1)
    prompt: int = 640
    answer: int = 32
    batch_size: int = 16
    accumulate: int = 1
    n: int = 10
    lora_rank: int = 0
    remat: Literal["none", "dots", "full"] = "none"
    reference: Literal["cached", "online"] = "cached"
    optimizer: str = "adamw"
    masters: bool = True


# Options that a stage has no use for.
IDLE = {
    "sft": ("n", "reference"),
    "dpo": ("n",),
    "sample": ("accumulate", "remat", "reference", "optimizer", "masters"),
}


def main(config: Config) -> int:
    for option in IDLE[config.stage]:
        if getattr(config, option) != getattr(Config, option):
            raise InbolError(f"--{option} does nothing for {config.stage}")
    folder = SHAPES / config.model if (SHAPES / config.model).is_dir() else Path(config.model)
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=config.topology
        ).devices
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        raise InbolError(
            f"--topology {config.topology}: {str(error).splitlines()[0]} (is libtpu installed?)"
        ) from error
    hosts = len({device.process_index for device in devices})
    mesh = make_mesh(*config.mesh, devices=of_a_run(config.stage, devices))
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items()) + (
        " on each host" if mesh.size < len(devices) else ""
    )
    print(
        f"{config.stage} of {folder.name} on {config.topology}: {len(devices)} x {devices[0].device_kind}, {hosts} hosts; {sizes}",
        flush=True,
    )
    start = time.monotonic()
    try:
        compiled = lower(config, folder, mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"does not fit: {str(error).splitlines()[0]}")
        return 2
    plan = compiled.memory_analysis()
    held, scratch = plan.argument_size_in_bytes, plan.temp_size_in_bytes
    peak = held + scratch + plan.output_size_in_bytes - plan.alias_size_in_bytes
    room = HBM.get(devices[0].device_kind)
    print(
        f"memory a chip: {gib(held)} held, {gib(scratch)} besides, {gib(peak)} together"
        + (f", of {room} GiB" if room else "")
    )
    for line in traffic(collectives(compiled.as_text())):
        print(line)
    print(f"compiled in {time.monotonic() - start:.0f} s: fits")
    return 0


def of_a_run(stage: str, devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those that one program runs on: training spans all hosts, sampling keeps to each host's own."""
    return [
        device
        for device in devices
        if stage != "sample" or device.process_index == devices[0].process_index
    ]


def lower(config: Config, folder: Path, mesh: Mesh) -> jax.stages.Lowered:
    """The stage's program on arrays that do not exist."""
    llava = load_config(folder)
    lora = LoraConfig(config.lora_rank, 2.0 * config.lora_rank) if config.lora_rank else None
    model = Llava(llava, jnp.bfloat16, lora, config.remat)
    variables = abstract_variables(llava, mesh, dtype=jnp.bfloat16, lora=lora)
    if config.stage == "sample":
        return lower_sample(config, model, variables, mesh, round_batch(config.batch_size, mesh))
    rows = round_rows(config.batch_size, mesh, config.accumulate)
    answers = config.answer * (2 if config.stage == "dpo" else 1)
    batch = abstract_pairs(llava, mesh, rows=rows, tokens=config.prompt + answers, targets=answers)
    online = config.reference == "online"
    objective = sft_objective(model)
    if config.stage == "dpo":
        objective = ca_dpo_objective(
            model, beta=0.1, scheme="value", anchor=1.0, online_reference=online
        )
    return lower_step(
        objective,
        make_optimizer(1e-4, 100, name=config.optimizer),
        variables,
        batch,
        mesh,
        frozen=FROZEN,
        lora=lora,
        masters=config.masters,
        accumulate=config.accumulate,
        online=online and config.stage == "dpo",
    )


def lower_sample(
    config: Config, model: Llava, variables: dict, mesh: Mesh, rows: int
) -> jax.stages.Lowered:
    size = model.config.vision.image_size
    shapes = dict.fromkeys(("input_ids", "attention_mask"), ((rows, config.prompt), jnp.int32))
    shapes |= {
        "pixel_values": ((rows, 1, 3, size, size), jnp.float32),
        "question": ((rows,), jnp.uint32),
        "valid": ((rows,), jnp.bool),
    }
    batch = {
        name: jax.ShapeDtypeStruct(*shape, sharding=NamedSharding(mesh, BATCH))
        for name, shape in shapes.items()
    }
    options = SamplingOptions(n=config.n, max_new_tokens=config.answer)
    key = jax.ShapeDtypeStruct(
        (), jax.random.key(0).dtype, sharding=NamedSharding(mesh, PartitionSpec())
    )
    return jax.jit(lambda v, b, k: sample(model, v, b, key=k, options=options)).lower(
        variables, batch, key
    )


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def traffic(found) -> list[str]:
    """A line a kind of exchange: how many there are in the program, and the size of their results on a chip."""
    kinds: dict[str, list[Collective]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)
    return [
        f"{kind}: {len(some)} in the program, {gib(sum(c.nbytes for c in some))} a chip"
        for kind, some in sorted(kinds.items())
    ]


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Config)))
    except InbolError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
