"""What the stages cost on an H100 or a TPU, read from their compiled programs; neither is needed.

    pip install "jax[cuda12]"          # for an H100; libcuda is not needed
    python benchmarks/compiled.py --out compiled.json
    pip install libtpu
    python benchmarks/compiled.py --device v5e:4x4 --models qwen3-vl-8b --only sft dpo

    python benchmarks/compiled.py --models qwen3-vl-4b gemma3-4b

Each stage of LLaVA-1.5-7B with adapters of rank 128 is compiled as `tpu/plan.py` compiles it. As
its layers are alike, three programs of few layers tell what all cost; `--whole` compiles all. Other
models have three programs each, with a picture of 640 x 480 pixels and 64 tokens of text. A line
per program says how much memory it needs, and, for an H100, what a roofline
(benchmarks/roofline.py) makes of its kernels. For TPUs memory, FLOPs and bytes are the compiler's
own, per chip; what travels between chips is not in the estimate, and as the body of a loop is
counted once, sampling has none. The tables are those of docs/performance.md.
"""

import os

# Before JAX is imported: nothing runs, so neither a driver nor a TPU is looked for.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"

import dataclasses
import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro

from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config
from inbol_jax.models.qwen3_vl import Qwen3VLConfig
from inbol_jax.sharding import make_mesh

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tpu"))
from plan import SHAPES, lower, program_devices, topology_devices
from plan import Config as PlanConfig
from roofline import GAP, Kernel, kernels

# FLOPs of bfloat16 and bytes per second of a chip, by `device_kind`
CHIPS = {"TPU v4": (275e12, 1.23e12), "TPU v5 lite": (197e12, 0.82e12)}
CHIPS |= {"TPU v5": (459e12, 2.77e12), "TPU v6 lite": (918e12, 1.64e12)}

_TRAINING = {"batch_size": 12, "lora_rank": 128}
_IN_PARTS = _TRAINING | {"batch_size": 32, "gradient_accumulation_steps": 8, "answer": 64}
# Rows of 704 tokens; prompts of 640 tokens and ten responses of 16
PROGRAMS = {
    "sft": PlanConfig("sft", answer=64, **_TRAINING),
    "sft, selective remat": PlanConfig("sft", answer=64, remat="selective", **_TRAINING),
    "sft, full remat": PlanConfig("sft", answer=64, remat="full", **_TRAINING),
    "dpo": PlanConfig("dpo", **_TRAINING),
    # 672 tokens, about what rows of short answers are padded to by default
    "672 tokens: sft": PlanConfig("sft", answer=32, **_TRAINING),
    "672 tokens: dpo": PlanConfig("dpo", prompt=608, **_TRAINING),
    "sample, 16 questions": PlanConfig("sample", answer=16, batch_size=16),
    "sample, 32 questions": PlanConfig("sample", answer=16, batch_size=32),
    # 32 rows of IDK-IT per step, 4 at a time
    "24 GB: bfloat16, full remat": PlanConfig("sft", remat="full", **_IN_PARTS),
}
# Image tokens and tiles of a picture of 640 x 480 pixels, by each model's processor as published
PICTURES = {"smolvlm2-2.2b": (13 * 81, 13), "qwen3-vl-4b": (300, None), "qwen3-vl-8b": (300, None)}
PICTURES |= dict.fromkeys(("internvl3.5-8b", "gemma3-4b"), (256, 1))
# What a kernel is part of: the first whose pattern is in the path of its operation.
PARTS = {
    "vision tower": r"vision_|projector|connector",
    "adapters": r"_adapter/",
    "attention": r"self_attn/(?!\w_proj)",
    "products of attention": r"self_attn/",
    "MLP": r"mlp/",
    "norms and embeddings": r"layernorm|/norm/|embed_tokens",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile the programs and print what they cost."""

    device: str = "h100"
    """h100, or a TPU topology such as v5e:4x4, over whose chips the weights are split (fsdp)."""
    only: tuple[str, ...] = ()
    """Words of the programs to compile. By default all are compiled."""
    models: tuple[str, ...] = ()
    """Models to compile sft, dpo and sample of, in place of LLaVA-1.5-7B."""
    whole: bool = False
    """Compile all layers of each program, which takes minutes."""
    out: Path | None = None
    """File that the figures are written to as JSON."""


class Cost(NamedTuple):
    """What one run of a program costs."""

    program: str
    rows: int
    totals: dict[str, float]
    """GiB of memory, with what is given to the program; TFLOP; GB that are read and written."""
    kernels: dict[str, float]
    """How often each kind runs; nothing on a TPU."""
    parts: dict[str, float]
    """Milliseconds of each part of the model, estimated; nothing if there is no estimate."""

    @property
    def milliseconds(self) -> float:
        """Of one run, estimated."""
        return sum(self.parts.values())


def programs(models: Iterable[str]) -> dict[str, PlanConfig]:
    """The programs of other models, each by its name."""
    found = {}
    for model in models:
        if model not in PICTURES:
            raise InbolError(f"--models {model}: choose among {', '.join(PICTURES)}")
        tokens, tiles = PICTURES[model]
        common = {"model": model, "prompt": tokens + 64, "tiles": tiles}
        for stage, options in (("sft", _TRAINING), ("dpo", _TRAINING), ("sample", {})):
            answer = {"sft": 64, "dpo": 32, "sample": 16}[stage]
            own = {"batch_size": 16, "answer": answer} | options | common
            found[f"{model}: {stage}"] = PlanConfig(stage, **own)
    return found


def period(config: ModelConfig) -> int:
    """The fewest decoder layers, at least two, whose multiples have the same mix of layers."""
    windows = config.text.windows
    if config.text.local_rope_theta:  # one layer that sees everything behind some that do not
        return windows.index(None) + 1
    return 2


def shortened(architecture: dict[str, Any], layers: int, tower_layers: int) -> dict[str, Any]:
    """A config.json with so many layers."""
    text, vision = architecture["text_config"], architecture["vision_config"]
    text |= {"num_hidden_layers": layers}
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][:layers]
    if "num_hidden_layers" in vision:  # the depth of Qwen3-VL's tower stays
        vision |= {"num_hidden_layers": tower_layers}
    return architecture


def compile_for(
    devices: Sequence[jax.Device], config: PlanConfig, layers: tuple[int, int] | None = None
) -> jax.stages.Compiled:
    """The program, with all layers of decoder and tower or so many."""
    with tempfile.TemporaryDirectory() as folder:
        architecture = json.loads((SHAPES / config.model / "config.json").read_text())
        if layers:
            architecture = shortened(architecture, *layers)
        (Path(folder) / "config.json").write_text(json.dumps(architecture))
        mesh = make_mesh(1, -1, 1, devices=devices)
        # On GPUs layers are not scanned, and these are few.
        return lower(dataclasses.replace(config, scan_layers=False), Path(folder), mesh).compile()


def whole_cost(devices: Sequence[jax.Device], name: str, config: PlanConfig) -> Cost:
    """What all layers cost: as much more as further layers cost more than few."""
    sizes = load_config(SHAPES / config.model)
    few, tower = period(sizes), 2
    if isinstance(sizes, Qwen3VLConfig):  # features of given tower layers go into the first three
        few, tower = 4, sizes.vision.num_layers
    counts = (few, tower), (2 * few, tower), (few, tower + 2)
    base, deeper, *taller = (
        cost(name, config, compile_for(devices, config, layers), devices[0].device_kind)
        for layers in counts[: 2 if tower == sizes.vision.num_layers else 3]
    )
    (taller,) = taller or [base]

    def extend(*values: dict[str, float]) -> dict[str, float]:
        a, b, c = values
        more = (sizes.text.num_layers - few) / few, (sizes.vision.num_layers - tower) / 2
        return {
            key: a.get(key, 0)
            + more[0] * (b.get(key, 0) - a.get(key, 0))
            + more[1] * (c.get(key, 0) - a.get(key, 0))
            for key in {**a, **b, **c}
        }

    return Cost(*base[:2], *map(extend, base[2:], deeper[2:], taller[2:]))


def cost(name: str, config: PlanConfig, compiled: jax.stages.Compiled, kind: str) -> Cost:
    """What a program costs on a kind of device."""
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    size += memory.output_size_in_bytes - memory.alias_size_in_bytes
    kinds: dict[str, float] = defaultdict(float)
    parts: dict[str, float] = defaultdict(float)
    if kind in CHIPS:
        counted = compiled.cost_analysis()
        flops, nbytes = counted["flops"], counted["bytes accessed"]
        if config.stage != "sample":
            parts["all"] = 1e3 * max(flops / CHIPS[kind][0], nbytes / CHIPS[kind][1])
    else:
        run = kernels(compiled.as_text(), trips=config.answer - 1)
        for kernel in run:
            kinds[kernel.kind] += kernel.count
            parts[part_of(kernel)] += 1e3 * kernel.count * (kernel.seconds + GAP)
        flops = sum(kernel.count * kernel.flops for kernel in run)
        nbytes = sum(kernel.count * kernel.nbytes for kernel in run)
    totals = {"GiB": size / 2**30, "TFLOP": flops / 1e12, "GB": nbytes / 1e9}
    return Cost(name, config.batch_size, totals, dict(kinds), dict(parts))


def part_of(kernel: Kernel) -> str:
    """Which part of the model a kernel computes, and whether in decoding."""
    found = (part for part, pattern in PARTS.items() if re.search(pattern, kernel.source))
    part = next(found, "logits, loss, optimizer, copies")
    return f"decoding: {part}" if "/while/" in kernel.source else part


def table(costs: Iterable[Cost]) -> Iterator[str]:
    """Markdown, a row per program."""
    yield "| program | GiB | TFLOP | GB | cuDNN attention | estimate |"
    yield "|---|---|---|---|---|---|"
    for row in costs:
        fused = sum(n for kind, n in row.kernels.items() if "fmha" in kind)
        amounts = f"{row.totals['GiB']:.1f} | {row.totals['TFLOP']:.0f} | {row.totals['GB']:.0f}"
        time = row.milliseconds
        speed = f"{time:.0f} ms, {1e3 * row.rows / time:.1f}/s" if time else "none"
        yield f"| {row.program} | {amounts} | {fused:.0f} | {speed} |"


def parts_table(costs: Iterable[Cost]) -> Iterator[str]:
    """Markdown: what of each program's time, in milliseconds, each part of the model takes."""
    costs = [row for row in costs if row.parts]
    parts = sorted({part for row in costs for part in row.parts})
    yield f"| | {' | '.join(row.program for row in costs)} |"
    yield f"|---|{'---|' * len(costs)}"
    for part in parts:
        yield f"| {part} | {' | '.join(f'{row.parts.get(part, 0.0):.0f}' for row in costs)} |"


def main(config: Config) -> None:
    """Compiles the programs, one after the other, and prints the tables."""
    chips, costs = topology_devices(config.device), []
    for name, program in (programs(config.models) if config.models else PROGRAMS).items():
        if config.only and not any(word in name for word in config.only):
            continue
        start = time.monotonic()
        if program.stage != "sample":  # every chip gets a row
            rows = -(-program.batch_size // len(chips)) * len(chips)
            program = dataclasses.replace(program, batch_size=rows)
        devices = program_devices(program.stage, config.device, chips)
        if config.whole:
            whole = compile_for(devices, program)
            costs.append(cost(name, program, whole, devices[0].device_kind))
        else:
            costs.append(whole_cost(devices, name, program))
        print(f"{name}: compiled in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        if config.out:  # after each: the next may take minutes
            found: dict[str, Any] = {"device": devices[0].device_kind, "jax": jax.__version__}
            found["programs"] = [row._asdict() for row in costs]
            config.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join((*table(costs), "", *parts_table(costs))))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except InbolError as error:
        sys.exit(f"error: {error}")
