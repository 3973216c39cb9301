"""The kernels of a compiled GPU program, and how long a roofline says that each takes.

They are read from the text of XLA's optimised program (`compiled.as_text()`), which is no stable
interface: tests/benchmarks/test_compiled.py notices if it changes. The rates are an H100's: on
seven programs that were timed on one, the estimate was off by 4% at most. What is chosen by timing
kernels on a device, which a compiler without one cannot do, is not seen here.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

FLOPS = 700e12  # of large bfloat16 products, per second
BANDWIDTH = 2.85e12  # bytes per second
# Shares of FLOPS that other kernels reach
SLOW_PRODUCT, FUSED_PRODUCT, ATTENTION = 0.45, 0.5, 0.43
SHORTEST, GAP = 1.5e-6, 1e-6  # seconds of the smallest kernel, and between two kernels

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"s4": 0.5, "u4": 0.5, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
# Run nothing on the device, or are counted where they start.
_FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "iota"}
_FREE |= {"partition-id", "replica-id", "copy-done", "async-done", "async-update"}

Shape = tuple[str, tuple[int, ...]]  # dtype and sizes


class Instruction(NamedTuple):
    """A line of the program."""

    name: str
    shapes: list[Shape]
    opcode: str
    operands: list[str]
    attributes: str
    root: bool

    def attribute(self, pattern: str) -> str:
        """The first group of the pattern in the attributes, or nothing."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""

    def numbers(self, key: str) -> list[int]:
        """A list of numbers among the attributes, as HLO or JSON."""
        return [
            int(n) for n in re.findall(r"\d+", self.attribute(rf'"?{key}"?[=:][{{\[]([^}}\]]*)'))
        ]


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


Computation = dict[str, Instruction]


def _size(shapes: list[Shape]) -> int:
    return sum(int(_BYTES.get(dtype, 0) * math.prod(dims)) for dtype, dims in shapes)


def _shapes(text: str) -> list[Shape]:
    found = _SHAPE.findall(text)
    return [(t, tuple(int(n) for n in dims.split(",") if n)) for t, dims in found if t in _BYTES]


def _until_closed(text: str) -> int:
    """Where the bracket that is open before the text closes."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return i
    return len(text)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of the one that is run."""
    computations: dict[str, Computation] = {}
    current, entry = {}, ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
        elif match := _LINE.match(line):
            root, name, shape, opcode, rest = match.groups()
            end = _until_closed(rest)
            inputs, attributes = rest[:end], rest[end:]
            # A parameter's only operand is its number.
            operands = [inputs] if opcode == "parameter" else _OPERAND.findall(inputs)
            shapes = _shapes(re.sub(r"/\*.*?\*/", "", shape))
            current[name] = Instruction(name, shapes, opcode, operands, attributes, bool(root))
    return computations, entry


def kernels(text: str, trips: int) -> list[Kernel]:
    """The kernels that a program runs.

    Args:
      trips: how often a loop runs whose number of steps the program does not know.
    """
    computations, entry = parse(text)
    return list(_kernels(computations, entry, 1, trips))


def _kernels(
    computations: Mapping[str, Computation], name: str, count: int, trips: int
) -> Iterator[Kernel]:
    scope = computations[name]
    for line in scope.values():
        called = line.attribute(r"(?:body|to_apply|calls)=%?([\w.\-]+)")
        if line.opcode == "while":
            steps = int(line.attribute(r'known_trip_count":\{"n":"(\d+)"') or trips)
            yield from _kernels(computations, called, count * steps, trips)
        elif line.opcode in ("call", "conditional", "async-start"):
            yield from _kernels(computations, called, count, trips) if called else ()
        elif line.opcode not in _FREE:
            kind, flops, nbytes, rate = _cost(line, scope, computations.get(called, {}))
            seconds = max(flops / rate, nbytes / BANDWIDTH, SHORTEST)
            source = line.attribute(r'op_name="([^"]*)"')
            yield Kernel(kind, source, count, flops, nbytes, seconds)


def _cost(
    line: Instruction, scope: Computation, fused: Computation
) -> tuple[str, float, int, float]:
    """A kernel's kind, FLOPs, bytes, and FLOPs per second."""
    inputs = [scope[name].shapes for name in line.operands if name in scope]
    nbytes = sum(map(_size, inputs)) + _size(line.shapes)
    if line.opcode == "custom-call":
        return _library_cost(line, inputs)
    if line.opcode == "fusion":
        flops = sum(_dot_flops(x, fused) for x in fused.values() if x.opcode == "dot")
        kind = "fusion with a product" if flops else "fusion"
        return kind, flops, _fusion_bytes(fused), FLOPS * FUSED_PRODUCT
    if line.opcode == "dynamic-update-slice":
        nbytes = 2 * _size(inputs[1])
    elif line.opcode in ("dynamic-slice", "slice"):
        nbytes = 2 * _size(line.shapes)
    return line.opcode, 0, nbytes, FLOPS


def _library_cost(line: Instruction, inputs: list[list[Shape]]) -> tuple[str, float, int, float]:
    """The cost of what cuBLAS and cuDNN compute."""
    kind = line.attribute(r'custom_call_target="([^"]*)"')
    outputs = [shape for shape in line.shapes if shape[0] not in ("s8", "u8")]  # no workspace
    nbytes = sum(map(_size, inputs)) + _size(outputs)
    if "fmha" in kind:
        (b, q, heads, dim), k = inputs[0][0][1], inputs[1][0][1][1]
        flops = 4 * b * heads * q * k * dim * (2.5 if "Backward" in kind else 1)
        return kind, flops / (2 if "CAUSAL" in line.attributes else 1), nbytes, FLOPS * ATTENTION
    if "cublas" not in kind:
        return kind, 0, nbytes, FLOPS
    dtype, dims = inputs[0][0]
    inner = math.prod(dims[i] for i in line.numbers("lhs_contracting_dimensions"))
    batched = bool(line.numbers("lhs_batch_dimensions"))
    kind = f"{kind} {dtype}{' batched' if batched else ''}"
    rate = FLOPS * (SLOW_PRODUCT if batched or dtype == "f32" else 1)
    return kind, 2 * math.prod(outputs[0][1]) * inner, nbytes, rate


def _dot_flops(dot: Instruction, scope: Computation) -> float:
    dims = scope[dot.operands[0]].shapes[0][1]
    inner = math.prod(dims[i] for i in dot.numbers("lhs_contracting_dims"))
    return 2 * math.prod(dot.shapes[0][1]) * inner


def _fusion_bytes(fused: Computation) -> int:
    """What a fusion reads and writes: of an array that it slices or updates, only that part."""
    users: dict[str, list[tuple[Instruction, int]]] = defaultdict(list)
    for line in fused.values():
        for place, name in enumerate(line.operands if line.opcode != "parameter" else ()):
            users[name].append((line, place))

    def read(name: str) -> int:
        whole, total = _size(fused[name].shapes), 0
        for user, place in users[name]:
            if user.opcode in ("slice", "dynamic-slice", "gather") and not place:
                total += _size(user.shapes)
            elif user.opcode == "bitcast":
                total += read(user.name)
            elif user.opcode != "dynamic-update-slice" or place:
                return whole
        return min(whole, total)

    def written(name: str) -> int:
        line = fused[name]
        while line.opcode == "bitcast":
            line = fused[line.operands[0]]
        in_place = line.opcode == "dynamic-update-slice"
        return _size(fused[line.operands[1]].shapes if in_place else fused[name].shapes)

    root = next(line for line in fused.values() if line.root)
    outputs = root.operands if root.opcode == "tuple" else [root.name]
    inputs = [line.name for line in fused.values() if line.opcode == "parameter"]
    return sum(map(read, inputs)) + sum(map(written, outputs))
