"""The kernels of a compiled GPU program, and how long a roofline says that each takes.

They are read from the text of XLA's optimised program by tpu/hlo.py. The rates are an H100's: on
seven programs that were timed on one, the estimate was off by 4% at most. What is chosen by timing
kernels on a device, which a compiler without one cannot do, is not seen here.
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tpu"))
from hlo import FREE, Computation, Instruction, Run, Shape, moved, runs, size

FLOPS = 700e12  # of large bfloat16 products, per second
BANDWIDTH = 2.85e12  # bytes per second
# Shares of FLOPS that other kernels reach
SLOW_PRODUCT, FUSED_PRODUCT, ATTENTION = 0.45, 0.5, 0.43
SHORTEST, GAP = 1.5e-6, 1e-6  # seconds of the smallest kernel, and between two kernels


class Kernel(NamedTuple):
    """A kernel that a program runs."""

    kind: str
    source: str
    """The path of the operation in the model, as JAX named it."""
    count: int
    flops: float
    nbytes: int
    seconds: float
    """Of one run, by the roofline."""


def kernels(text: str, trips: int) -> list[Kernel]:
    """The kernels that a program runs.

    Args:
      trips: how often a loop runs whose number of steps the program does not know.
    """
    found = []
    for run in runs(text, trips):
        if run.line.opcode in FREE:
            continue
        kind, flops, nbytes, rate = _cost(run)
        seconds = max(flops / rate, nbytes / BANDWIDTH, SHORTEST)
        source = run.line.attribute(r'op_name="([^"]*)"')
        found.append(Kernel(kind, source, run.count, flops, nbytes, seconds))
    return found


def _cost(run: Run) -> tuple[str, float, int, float]:
    """A kernel's kind, FLOPs, bytes, and FLOPs per second."""
    line, fused = run.line, run.fused
    if line.opcode == "custom-call":
        inputs = [run.scope[name].shapes for name in line.operands if name in run.scope]
        return _library_cost(line, inputs)
    if line.opcode == "fusion":
        flops = sum(_dot_flops(x, fused) for x in fused.values() if x.opcode == "dot")
        kind = "fusion with a product" if flops else "fusion"
        return kind, flops, moved(run), FLOPS * FUSED_PRODUCT
    return line.opcode, 0, moved(run), FLOPS


def _library_cost(line: Instruction, inputs: list[list[Shape]]) -> tuple[str, float, int, float]:
    """The cost of what cuBLAS and cuDNN compute."""
    kind = line.attribute(r'custom_call_target="([^"]*)"')
    outputs = [shape for shape in line.shapes if shape.dtype not in ("s8", "u8")]  # no workspace
    nbytes = sum(map(size, inputs)) + size(outputs)
    if "fmha" in kind:
        (b, q, heads, dim), k = inputs[0][0].dims, inputs[1][0].dims[1]
        flops = 4 * b * heads * q * k * dim * (2.5 if "Backward" in kind else 1)
        return kind, flops / (2 if "CAUSAL" in line.attributes else 1), nbytes, FLOPS * ATTENTION
    if "cublas" not in kind:
        return kind, 0, nbytes, FLOPS
    dtype, dims, _ = inputs[0][0]
    inner = math.prod(dims[i] for i in line.numbers("lhs_contracting_dimensions"))
    batched = bool(line.numbers("lhs_batch_dimensions"))
    kind = f"{kind} {dtype}{' batched' if batched else ''}"
    rate = FLOPS * (SLOW_PRODUCT if batched or dtype == "f32" else 1)
    return kind, 2 * math.prod(outputs[0].dims) * inner, nbytes, rate


def _dot_flops(dot: Instruction, scope: Computation) -> float:
    dims = scope[dot.operands[0]].shapes[0].dims
    inner = math.prod(dims[i] for i in dot.numbers("lhs_contracting_dims"))
    return 2 * math.prod(dot.shapes[0].dims) * inner
