"""Will a stage fit on a slice of TPUs, or on GPUs? It is compiled ahead of time; neither they, nor
weights, nor data are needed.

    pip install libtpu
    python tpu/plan.py dpo --topology v5e:4x4 --lora-rank 128 --remat full --batch-size 16
    python tpu/plan.py sft --topology v5e:16x16 --slices 4 --mesh 4 -1 1 --batch-size 1024
    python tpu/plan.py sample --topology v6e:2x2 --mesh -1 1 1 --batch-size 16

    pip install "jax[cuda12]"          # libcuda is not needed
    python tpu/plan.py dpo --topology h100:8 --lora-rank 128 --remat full --batch-size 16

The programs are those that training, `inbol confidence` and `inbol evaluate` run. Printed are the
memory that a chip needs, by kind, what the chips exchange, and how long a roofline says that a step
takes. With --search meshes, remat and micro-batches are tried. The exit code is 2 if it does not
fit.
"""

import os
import sys

if __name__ == "__main__":
    # Before JAX is imported: do not look for the TPU or GPU of this machine, and trace on its CPU.
    # What libtpu would ask a TPU's host is said, or it would write that it misses the answers; and
    # as no TPU is used, other processes may use libtpu too.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    os.environ |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}

import dataclasses
import importlib.util
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parent))
from costs import ASSUMED, Time, chip_of, count_flops, local_size, memory_of, traffic
from costs import time as step_time
from hlo import Collective, collectives, moved, runs
from lowering import (
    Program,
    abstract_batch,
    abstract_groups,
    abstract_pairs,
    abstract_variables,
    image_shapes,
    trace_step,
)

from inbol_jax.cli import parse_options
from inbol_jax.defaults import BatchSize, Bounded, Bounds, NumNewTokens, NumSamples
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.asking import greedy
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.layers import STACKED, attention_for
from inbol_jax.models.llava_next import LlavaNextConfig
from inbol_jax.models.packing import RowShape
from inbol_jax.models.stacking import stack_layers
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
SCANNED = "layers are scanned, as with --scan-layers; apart they take more (--no-scan-layers)"
SHAPES = Path(__file__).parent / "shapes"
H100 = Path(__file__).parent / "h100.txtpb"
ASKING = ("sample", "evaluate")
# Of a picture of 640 x 480 pixels; one in other families
USUAL_TILES = {"llava_next": 5, "llava_onevision": 5, "qwen2_5_vl": 391, "qwen3_vl": 300}


@dataclasses.dataclass(frozen=True)
class Config(Bounded):
    """Compile a stage ahead of time for TPUs or GPUs. Options mean the same as in training."""

    stage: tyro.conf.Positional[Literal["sft", "dpo", "rl", "sample", "evaluate"]]
    """Stage to plan: sft, dpo, rl (its update, without sampling), sample (`inbol confidence`) or
    evaluate (its greedy answers)."""
    topology: str = "v5e:4x4"
    """Generation and chips, such as v5e:4x4, v6e:2x4, v5p:2x2x2, v4:2x2x4, tpu7x:2x2x1; h100, or
    h100:8 for a node of eight."""
    slices: Annotated[int, Bounds(1)] = 1
    """Such slices of TPUs that train together. They lie along data: --mesh's first number is to be
    a multiple of them."""
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
    sample: questions per batch of one host, of which evaluate asks four at a time; --mesh then
    divides one host's chips."""
    gradient_accumulation_steps: BatchSize = 1
    """Micro-batches per optimizer step."""
    n: NumSamples = 10
    """Responses sampled per question."""
    lora_rank: Annotated[int, Bounds(0)] = 0
    """Rank of the adapters. With 0 the whole decoder and projector are trained."""
    remat: Literal["none", "selective", "full"] = "none"
    """Activations that the backward pass computes again: none, selective or full."""
    scan_layers: bool = True
    """Compile one decoder layer, scanned over, in place of all, if they are alike; not to sample.
    Training does so with --scan-layers. Layers apart take half an hour to compile in place of
    minutes, and more memory: LLaVA-1.5-7B's dpo on v5e:4x4 takes 5.4 GiB, and 4.6 scanned."""

    search: bool = False
    """Try meshes, remat and micro-batches, and print those that fit and the fastest of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_training = ("gradient_accumulation_steps", "remat", "slices")
        unused = {"sft": ("n",), "dpo": ("n",), "rl": (), "sample": of_training}
        unused["evaluate"] = ("n", *of_training)
        for option in unused[self.stage]:
            if getattr(self, option) != getattr(Config, option):
                raise InbolError(
                    f"--{option.replace('_', '-')} does nothing for {self.stage}; drop it"
                )


class Plan(NamedTuple):
    """What a stage needs on a slice, and how fast it may be."""

    memory: dict[str, float]
    """GiB of a device by kind."""
    room: float
    """GiB of HBM of a device."""
    flops: float
    """FLOPs of a step on all devices."""
    exchanges: list[Collective]
    time: Time
    samples: float
    """Rows, pairs or questions per second."""
    chips: int
    compiled: float
    """Seconds that compiling took."""
    scanned: bool = False
    """Whether the decoder's layers are scanned."""

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return sum(self.memory.values()) <= self.room


def plan(config: Config) -> int:
    """Compiles a stage and says whether it fits. Returns the exit code: 0 if it fits, 2 if not.

    Raises:
      InbolError: if the topology is not known, or libtpu is not installed.
    """
    folder = model_folder(config.model)
    devices = topology_devices(config.topology, config.slices)
    if config.search:
        from search import search

        return search(config, program_devices(config.stage, config.topology, devices))
    mesh = mesh_for(config, devices)
    _check_heads(load_config(folder), mesh)
    hosts = len({device.process_index for device in devices})
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    where = " on each host" if mesh.size < len(devices) else ""
    say(
        f"{config.stage} of {folder.name} on {config.topology}"
        f"{f' x {config.slices} slices' if config.slices > 1 else ''}: {len(devices)} x "
        f"{devices[0].device_kind}, {hosts} hosts; {sizes}{where}"
    )
    found = make_plan(config, folder, mesh)
    if isinstance(found, str):
        say(f"does not fit: {found}")
        return 2
    for line in report(found, mesh):
        say(line)
    return 0 if found.fits else 2


def model_folder(model: str) -> Path:
    """The folder of a model that is shipped, or that is one."""
    shipped = SHAPES / model
    return shipped if shipped.is_dir() else Path(model)


def mesh_for(config: Config, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh of the devices that a stage's program runs on."""
    own = program_devices(config.stage, config.topology, devices)
    return make_mesh(*config.mesh, devices=own)


def make_plan(config: Config, folder: Path, mesh: Mesh) -> Plan | str:
    """Compiles a stage. Returns why it does not fit, if the compiler says so.

    Raises:
      InbolError: if the rates of the chips are not known.
    """
    devices = list(mesh.devices.flat)
    chip, per_chip = chip_of(devices)
    if chip is None:
        raise InbolError(f"--topology {config.topology}: no rates of {devices[0].device_kind}")
    start, program = time.monotonic(), trace(config, folder, mesh)
    room = chip.memory / per_chip
    # All gradients are there at a time, for their norm.
    needed = sum(map(local_size, program.parts.values()))
    needed += local_size(program.parts.get("trained", {}))
    if needed > room * 2**30:
        return f"variables, optimizer and gradients take {needed / 2**30:.1f} of {room:.0f} GiB"
    trips = config.answer - 1  # of the loop that decodes; all others are known
    flops = count_flops(program.traced.jaxpr, trips)
    try:
        compiled = program.traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0]
    text = compiled.as_text()
    exchanges = list(collectives(text, trips))
    traffic = sum(moved(run) * run.count for run in runs(text, trips))
    cost = step_time(chip, per_chip, flops / len(devices), traffic, exchanges)
    if config.stage in ASKING:
        rows = _questions(config, mesh)
    else:
        rows = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    memory, seconds = memory_of(program.parts, compiled), time.monotonic() - start
    chips = len(devices) // per_chip
    rate, scanned = rows / cost.step, STACKED in text
    return Plan(memory, room, flops, exchanges, cost, rate, chips, seconds, scanned)


def report(found: Plan, mesh: Mesh) -> list[str]:
    """The lines that say what a plan found."""
    shown = ", ".join(f"{name} {n:.2f}" for name, n in found.memory.items() if n >= 0.005)
    total = sum(found.memory.values())
    times = found.time._asdict()
    if not times["network"]:
        del times["network"]
    of_steps = ", ".join(f"{name} {n:.3f} s" for name, n in times.items())
    hourly = 3600 * found.samples / found.chips
    waiting = found.time.step in (found.time.exchanges, found.time.network)
    hint = "the chips wait for exchanges: more rows per chip, or more of the mesh along data"
    return [
        f"memory per device: {total:.2f} of {found.room:.0f} GiB ({shown})",
        f"{found.flops / 1e12:,.1f} TFLOP per step on all chips, with what remat computes again",
        *traffic(found.exchanges, mesh.shape),
        f"step: {of_steps}; {found.samples:.1f} samples/s, {hourly:,.0f} per chip-hour",
        *[hint] * waiting,
        ASSUMED,
        f"compiled in {found.compiled:.0f} s: {'fits' if found.fits else 'does not fit'}"
        + found.scanned * f"; {SCANNED}",
    ]


def topology_devices(name: str, slices: int = 1) -> Sequence[jax.Device]:
    """The chips of so many slices of a topology of TPUs, or of a node of GPUs.

    Raises InbolError if it is not known, or what compiles for it is not installed.
    """
    options: dict[str, Any] = {"topology_name": name, "num_slices": slices}
    kind, _, shape = name.partition(":")
    if kind == "h100" and slices > 1:
        raise InbolError("--slices: the compiler knows one node of GPUs; plan that, or TPUs")
    if kind == "h100":
        options = {"topology": f"1x1x{shape or 1}", "target_config": H100.read_text()}
    elif not importlib.util.find_spec("libtpu") and "TPU_LIBRARY_PATH" not in os.environ:
        raise InbolError("compiling for TPUs takes libtpu, also without a TPU: pip install libtpu")
    if kind == "v4":  # a slice's chip is one device; libtpu would describe its two cores
        options["chip_config_name"] = "megacore"
    if name in ("v5e:2x4", "v6e:2x4"):  # eight chips of Cloud TPU are one host; on GKE two
        options["chips_per_host_bounds"] = (2, 4, 1)
    platform = "cuda" if kind == "h100" else "tpu"
    try:
        return topologies.get_topology_desc(platform=platform, **options).devices
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        hint = ' (is "jax[cuda12]" installed?)' if kind == "h100" else ""
        raise InbolError(f"--topology {name}: {reason}{hint}") from error


def _check_heads(model: ModelConfig, mesh: Mesh) -> None:
    """Says so if the axis tensor would split single heads.

    Their halves are then put together again around every attention.
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
    if stage not in ASKING or len(host) == len(devices):
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
    """What `trace` traces, lowered."""
    return trace(config, folder, mesh).traced.lower()


def trace(config: Config, folder: Path, mesh: Mesh) -> Program:
    """The stage's program, traced on arrays that do not exist.

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
    if config.stage in ASKING:
        return _trace_sample(config, model, variables, mesh)
    if config.scan_layers and len({*architecture.text.windows}) == 1:
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
    return trace_step(program, run, variables, batch, mesh, lora=lora)


def _questions(config: Config, mesh: Mesh) -> int:
    """How many questions a batch asks: four times as many of one answer each."""
    return round_batch(config.batch_size * (4 if config.stage == "evaluate" else 1), mesh)


def _trace_sample(
    config: Config, model: VisionLanguageModel, variables: dict, mesh: Mesh
) -> Program:
    rows = _questions(config, mesh)
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
    if config.stage == "evaluate":
        options = greedy(config.answer)
    everywhere = NamedSharding(mesh, PartitionSpec())
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=everywhere)

    def run(variables, batch, key):
        return sample(model, variables, batch, key=key, options=options)

    traced = jax.jit(run, compiler_options=COMPILER_OPTIONS).trace(variables, batch, key)
    return Program(traced, {"parameters": variables, "batch": batch})


if __name__ == "__main__":
    try:
        sys.exit(plan(parse_options(Config, "plan.py", sys.argv[1:])))
    except InbolError as error:
        sys.exit(f"error: {error}")
