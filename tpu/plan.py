"""Will a stage fit on a TPU slice? It is compiled ahead of time; no TPU, no weights and no data are
needed.

    pip install libtpu
    python tpu/plan.py dpo --topology v5e:4x4 --lora-rank 128 --remat full --batch-size 16
    python tpu/plan.py sample --topology v6e:2x2 --mesh -1 1 1 --batch-size 16

The programs are those that training and `inbol confidence` run. Printed are the memory that a chip
needs, whether it fits, and what the chips exchange per step. The exit code is 2 if it does not fit.
"""

import os
import sys

if __name__ == "__main__":
    # Before JAX is imported: do not look for the TPU of this machine, and trace on its CPU. What
    # libtpu would ask a TPU's host is said, or it would write that it misses the answers; and as no
    # TPU is used, other processes may use libtpu too.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}

import dataclasses
import importlib.util
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parent))
from hlo import Collective, collectives
from lowering import (
    abstract_batch,
    abstract_groups,
    abstract_pairs,
    abstract_variables,
    image_shapes,
    lower_step,
    stack_layers,
)

from inbol_jax.cli import parse_options
from inbol_jax.defaults import BatchSize, Bounded, Bounds, NumNewTokens, NumSamples
from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.layers import attention_for
from inbol_jax.models.llava_next import LlavaNextConfig
from inbol_jax.models.packing import RowShape
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.progress import say
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.sampler import sample
from inbol_jax.sharding import COMPILER_OPTIONS, make_mesh, round_batch
from inbol_jax.training.ca_dpo import ca_dpo_objective
from inbol_jax.training.config import DpoConfig, RlConfig, SftConfig
from inbol_jax.training.model import lora_config
from inbol_jax.training.parallel import round_batch_size
from inbol_jax.training.rl import policy_gradient_objective
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.step import make_program

# Options of the stage's own command
_SHARED = ("batch_size", "gradient_accumulation_steps", "lora_rank", "remat")
SHAPES = Path(__file__).parent / "shapes"
# Of a picture of 640 x 480 pixels; one in other families
USUAL_TILES = {"llava_next": 5, "llava_onevision": 5, "qwen2_5_vl": 391, "qwen3_vl": 300}
# GiB per chip, by `device_kind`
HBM = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}


@dataclasses.dataclass(frozen=True)
class Config(Bounded):
    """Compile a stage ahead of time for a TPU slice. Options mean the same as in training."""

    stage: tyro.conf.Positional[Literal["sft", "dpo", "rl", "sample"]]
    """Stage to plan: sft, dpo, rl (its update, without sampling) or sample (`inbol confidence`)."""
    topology: str = "v5e:4x4"
    """Generation and chips, such as v5e:4x4, v6e:2x4, v5p:2x2x2, v4:2x2x4."""
    model: str = "llava-1.5-7b"
    """Folder with config.json, or shipped: llava-1.5-{7b,13b}, llava-1.6-{vicuna,mistral}-7b,
    llava-onevision-{0.5b,7b}, smolvlm-256m, smolvlm2-{500m,2.2b}, internvl3-{2b,8b},
    internvl3.5-{1b,4b,8b}, gemma3-{4b,12b}, qwen2.5-vl-{3b,7b}, qwen3-vl-{2b,4b,8b}."""
    mesh: tuple[int, int, int] = (1, -1, 1)
    """Number of chips along data, fsdp and tensor. -1 takes what the others leave."""
    prompt: Annotated[int, Bounds(1)] = 640
    """Tokens per prompt, those of its image included."""
    tiles: Annotated[int | None, Bounds(0)] = None
    """Tiles (or tokens, at native resolution) per image, part of --prompt; by default the usual."""
    answer: NumNewTokens = 32
    """Tokens per response."""
    batch_size: BatchSize = 16
    """Rows (sft), pairs (dpo) or questions (rl) per optimizer step on all chips together. For
    sample: questions per batch of one host; --mesh then divides one host's chips."""
    gradient_accumulation_steps: BatchSize = 1
    """Micro-batches per optimizer step."""
    n: NumSamples = 10
    """Responses sampled per question."""
    lora_rank: Annotated[int, Bounds(0)] = 0
    """Rank of the adapters. With 0 the whole decoder and projector are trained."""
    remat: Literal["none", "selective", "full"] = "none"
    """Activations that the backward pass computes again: none, selective or full."""
    scan: bool = True
    """Compile one decoder layer, scanned over, in place of all, if they are alike; not for sample.
    That takes minutes in place of half an hour."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_training = ("gradient_accumulation_steps", "remat")
        unused = {"sft": ("n",), "dpo": ("n",), "rl": (), "sample": of_training}
        for option in unused[self.stage]:
            if getattr(self, option) != getattr(Config, option):
                raise InbolError(
                    f"--{option.replace('_', '-')} does nothing for {self.stage}; drop it"
                )


def plan(config: Config) -> int:
    """Compiles a stage and says whether it fits. Returns the exit code: 0 if it fits, 2 if not.

    Raises:
      InbolError: if the topology is not known, or libtpu is not installed.
    """
    shipped = SHAPES / config.model
    folder = shipped if shipped.is_dir() else Path(config.model)
    devices = topology_devices(config.topology)
    own = program_devices(config.stage, config.topology, devices)
    mesh = make_mesh(*config.mesh, devices=own)
    hosts = len({device.process_index for device in devices})
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    where = " on each host" if mesh.size < len(devices) else ""
    _check_heads(load_config(folder), mesh)
    say(
        f"{config.stage} of {folder.name} on {config.topology}: {len(devices)} x "
        f"{devices[0].device_kind}, {hosts} hosts; {sizes}{where}"
    )
    start = time.monotonic()
    try:
        compiled = lower(config, folder, mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        say(f"does not fit: {str(error).splitlines()[0]}")
        return 2
    memory = compiled.memory_analysis()
    held, scratch = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    peak = held + scratch + memory.output_size_in_bytes - memory.alias_size_in_bytes
    room = HBM.get(devices[0].device_kind)
    of_room = f", of {room} GiB" if room else ""
    amounts = f"{_gib(held)} held, {_gib(scratch)} besides, {_gib(peak)} together"
    say(f"memory per chip: {amounts}{of_room}")
    trips = config.answer - 1  # of the loop that decodes; all others are known
    for line in traffic(collectives(compiled.as_text(), trips), mesh.shape):
        say(line)
    say(f"compiled in {time.monotonic() - start:.0f} s: fits")
    return 0


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The chips of a TPU topology. Raises InbolError if it is not known, or without libtpu."""
    if not importlib.util.find_spec("libtpu") and "TPU_LIBRARY_PATH" not in os.environ:
        raise InbolError("compiling for TPUs takes libtpu, also without a TPU: pip install libtpu")
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        raise InbolError(f"--topology {name}: {str(error).splitlines()[0]}") from error


def _check_heads(model: ModelConfig, mesh: Mesh) -> None:
    """Says so if the axis tensor would split single heads.

    Their halves are then put together again around every attention, each with permutations.
    """
    heads, of_keys, tensor = model.text.num_heads, model.text.num_kv_heads, mesh.shape["tensor"]
    if heads % tensor or of_keys % tensor:
        common = math.gcd(heads, of_keys)
        good = [str(n) for n in range(1, common + 1) if common % n == 0]
        say(
            f"tensor {tensor} cuts through heads, of which there are {heads}, and {of_keys} of "
            f"keys: choose {', '.join(good)}, and more along fsdp or data"
        )


def program_devices(
    stage: str, topology: str, devices: Sequence[jax.Device]
) -> Sequence[jax.Device]:
    """The devices that one program runs on: training spans all hosts, sampling keeps to one.

    The compiler takes no part of a slice, so the chips of a host are a topology of their own.
    """
    host = [device for device in devices if device.process_index == devices[0].process_index]
    if stage != "sample" or len(host) == len(devices):
        return devices
    kind, _, shape = topology.partition(":")
    sides = [len({*axis}) for axis in zip(*(device.coords for device in host), strict=True)]
    return topology_devices(f"{kind}:{'x'.join(map(str, sides[: shape.count('x') + 1]))}")


def most_image_tokens(model: ModelConfig, tiles: int) -> int:
    """How many tokens an image of so many tiles has at most."""
    if not isinstance(model, LlavaNextConfig):
        return tiles * model.num_image_tokens
    layouts = [model.layout(*size) for size in model.resolutions]
    if tiles not in (numbers := sorted({layout.tiles for layout in layouts})):
        raise InbolError(f"--tiles {tiles}: the model's resolutions have {numbers} per image")
    return max(x.num_tokens(model.num_image_tokens) for x in layouts if x.tiles == tiles)


def lower(config: Config, folder: Path, mesh: Mesh) -> jax.stages.Lowered:
    """The stage's program, lowered on arrays that do not exist.

    Args:
      folder: folder with the model's config.json.
    """
    architecture = load_config(folder)
    if config.tiles is None:
        tiles = USUAL_TILES.get(architecture.model_type, 1)
        config = dataclasses.replace(config, tiles=tiles)
    images = most_image_tokens(architecture, config.tiles)
    if config.tiles > 1 and not architecture.tiled:
        raise InbolError(f"--tiles {config.tiles}: {folder.name} does not cut images; drop it")
    if not 0 < images < config.prompt:
        raise InbolError(
            f"--prompt {config.prompt}: the {config.tiles} tiles of an image have {images} tokens"
        )
    stage = {"sft": SftConfig, "rl": RlConfig}.get(config.stage, DpoConfig)
    data = (Path(),) if stage is RlConfig else Path()
    run = stage.from_options(
        data=data, out=Path(), **{name: getattr(config, name) for name in _SHARED}
    )
    lora = lora_config(run.lora)
    attention = attention_for(mesh.devices.flat[0], jnp.bfloat16)
    model = make_model(architecture, jnp.bfloat16, lora, config.remat, attention)
    variables = abstract_variables(architecture, mesh, dtype=jnp.bfloat16, lora=lora)
    if config.stage == "sample":
        return _lower_sample(config, model, variables, mesh)
    if config.scan and len({*architecture.text.windows}) == 1:
        variables = stack_layers(variables, architecture)
    rows = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    if isinstance(run, DpoConfig):
        objective, answers = ca_dpo_objective(model, run.pair_loss), 2 * config.answer
    elif isinstance(run, RlConfig):
        objective = policy_gradient_objective(model, run.policy_gradient)
        answers = config.n * config.answer
    else:
        objective, answers = sft_objective(model), config.answer
    shape = RowShape(config.prompt + answers, answers)
    batch = abstract_pairs(architecture, mesh, rows=rows, shape=shape, tiles=config.tiles)
    if isinstance(run, RlConfig):
        batch |= abstract_groups(mesh, rows=rows, n=config.n)
    run = run.with_rate(adapters=lora is not None)
    program = make_program(objective, run, total_steps=100)
    return lower_step(program, run, variables, batch, mesh, lora=lora)


def _lower_sample(
    config: Config, model: VisionLanguageModel, variables: dict, mesh: Mesh
) -> jax.stages.Lowered:
    rows = round_batch(config.batch_size, mesh)
    batch = abstract_batch(
        mesh,
        {
            "input_ids": ((rows, config.prompt), jnp.int32),
            "attention_mask": ((rows, config.prompt), jnp.int32),
            "question": ((rows,), jnp.uint32),
            "valid": ((rows,), jnp.bool),
        }
        | image_shapes(model.config, rows, config.tiles),
    )
    options = SamplingOptions(n=config.n, max_new_tokens=config.answer)
    everywhere = NamedSharding(mesh, PartitionSpec())
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=everywhere)

    def run(variables, batch, key):
        return sample(model, variables, batch, key=key, options=options)

    return jax.jit(run, compiler_options=COMPILER_OPTIONS).lower(variables, batch, key)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def traffic(exchanges: Iterable[Collective], sizes: Mapping[str, int]) -> list[str]:
    """A line per kind of exchange and axes of the mesh: how often it runs, and what a chip receives
    by it.

    Args:
      sizes: of the mesh's axes.
    """
    counts: dict[tuple[str, str], int] = defaultdict(int)
    received: dict[tuple[str, str], float] = defaultdict(float)
    for exchange in exchanges:
        kind = exchange.operation, exchange.axes(sizes)
        counts[kind] += exchange.count
        received[kind] += exchange.count * exchange.received
    return [
        f"{operation} along {axes}: {counts[operation, axes]:,} per step, "
        f"{_gib(received[operation, axes])} received per chip"
        for operation, axes in sorted(counts)
    ]


if __name__ == "__main__":
    try:
        sys.exit(plan(parse_options(Config, "plan.py", sys.argv[1:])))
    except InbolError as error:
        sys.exit(f"error: {error}")
