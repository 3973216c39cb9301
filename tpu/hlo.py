"""The text of a compiled program (`compiled.as_text()`): what it runs, how often, how many bytes
that moves, and what the devices exchange.

XLA's HLO text is no stable interface: tests/tpu/test_hlo.py and tests/benchmarks/test_compiled.py
notice if it changes.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"s4": 0.5, "u4": 0.5, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
# Move nothing, or are counted where they start.
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "iota"}
FREE |= {"partition-id", "replica-id", "copy-done", "async-done", "async-update"}
# Exchanges between devices
OPERATIONS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


class Shape(NamedTuple):
    """An array of the program."""

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False
    """Whether it lies in a TPU's own memory (VMEM or SMEM) rather than in HBM."""

    @property
    def nbytes(self) -> int:
        """Its size, wherever it lies."""
        return int(_BYTES.get(self.dtype, 0) * math.prod(self.dims))


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

    @property
    def called(self) -> str:
        """The computation that it runs, if any."""
        return self.attribute(r"(?:body|to_apply|calls)=%?([\w.\-]+)")


Computation = dict[str, Instruction]


def size(shapes: Sequence[Shape]) -> int:
    """Bytes of arrays in HBM."""
    return sum(shape.nbytes for shape in shapes if not shape.on_chip)


def _shapes(text: str) -> list[Shape]:
    # bf16[8,4]{1,0:T(8,128)S(1)}: memory space 1 is VMEM; none, or 0, is HBM
    return [
        Shape(t, tuple(int(n) for n in dims.split(",") if n), bool(re.search(r"S\([1-9]", layout)))
        for t, dims, layout in _SHAPE.findall(text)
        if t in _BYTES
    ]


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
            # A parameter's only operand is its number, a constant's its value.
            literal = opcode in ("parameter", "constant")
            operands = [inputs] if literal else _OPERAND.findall(inputs)
            shapes = _shapes(re.sub(r"/\*.*?\*/", "", shape))
            current[name] = Instruction(name, shapes, opcode, operands, attributes, bool(root))
    return computations, entry


class Run(NamedTuple):
    """A line that a program runs."""

    line: Instruction
    scope: Computation
    count: int
    fused: Computation
    """What a fusion computes; empty for any other line."""


def runs(text: str, trips: int) -> Iterator[Run]:
    """The lines that a program runs, those of loops once with their count.

    Args:
      trips: how often a loop runs whose number of steps the program does not know.
    """
    computations, entry = parse(text)
    yield from _runs(computations, entry, 1, trips)


def _runs(
    computations: Mapping[str, Computation], name: str, count: int, trips: int
) -> Iterator[Run]:
    scope = computations[name]
    for line in scope.values():
        called = line.called
        if line.opcode == "while":
            steps = _steps(line, scope, computations) or trips
            asked = line.attribute(r"condition=%?([\w.\-]+)")
            for part in (asked, called):
                if part in computations:
                    yield from _runs(computations, part, count * steps, trips)
        elif line.opcode in ("call", "async-start"):
            yield from _runs(computations, called, count, trips) if called else ()
        elif line.opcode == "conditional":
            yield from _heaviest(computations, line, count, trips)
        else:
            yield Run(line, scope, count, computations.get(called, {}))


def _heaviest(
    computations: Mapping[str, Computation], line: Instruction, count: int, trips: int
) -> Iterator[Run]:
    """The lines of the branch that moves most; `count_flops` takes the one that computes most."""
    branches = _OPERAND.findall(line.attribute(r"branch_computations=\{([^}]*)\}"))
    branches += re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line.attributes)
    parts = [list(_runs(computations, name, count, trips)) for name in branches]
    yield from max(parts, key=lambda part: sum(run.count * moved(run) for run in part), default=[])


def _steps(loop: Instruction, scope: Computation, computations: Mapping[str, Computation]) -> int:
    """How often a loop runs: what XLA wrote, or what follows of a counter that stays below a
    constant; 0 if neither is known."""
    if known := loop.attribute(r'known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    condition = computations.get(loop.attribute(r"condition=%?([\w.\-]+)"), {})
    root, body = _root(condition), computations.get(loop.called, {})
    if root is None or root.opcode != "compare" or "direction=LT" not in root.attributes:
        return 0
    counter, limit = (condition.get(name) for name in root.operands)
    if counter is None or limit is None or limit.opcode != "constant":
        return 0
    # Loops that were unrolled count in steps of more than one.
    next_state, place = _root(body), counter.attribute(r"index=(\d+)")
    added = body.get(next_state.operands[int(place)]) if next_state and place else None
    values = [body[name] for name in added.operands if name in body] if added else []
    step = next((int(x.operands[0]) for x in values if x.opcode == "constant"), 1)
    return -(-(int(limit.operands[0]) - _start(loop, scope, int(place))) // step)


def _start(loop: Instruction, scope: Computation, place: int) -> int:
    """Where a loop's counter starts: at 1 if XLA put the first turn before the loop."""
    state = scope.get(loop.operands[0]) if loop.operands else None
    value = scope.get(state.operands[place]) if state and state.opcode == "tuple" else None
    while value and value.opcode in ("copy", "bitcast"):
        value = scope.get(value.operands[0])
    return int(value.operands[0]) if value and value.opcode == "constant" else 0


def _root(computation: Computation) -> Instruction | None:
    return next((line for line in computation.values() if line.root), None)


def moved(run: Run) -> int:
    """Bytes of HBM that one run of a line reads and writes."""
    line, inputs = run.line, [run.scope[x].shapes for x in run.line.operands if x in run.scope]
    if line.opcode in FREE or line.opcode.endswith("-done"):
        return 0
    operation = line.opcode.removesuffix("-start")
    if operation in OPERATIONS:
        return sum(map(size, inputs)) + size(_results(line, operation))
    if line.opcode.endswith("-start"):  # its source, its result, and numbers
        ends = [shape for shape in line.shapes if shape.dims]
        return sum(min(x.nbytes for x in ends) for shape in ends if not shape.on_chip)
    if line.opcode == "fusion":
        return _fusion_bytes(run.fused)
    if line.opcode == "dynamic-update-slice":
        return 2 * size(inputs[1])
    if line.opcode in ("dynamic-slice", "slice"):
        return 2 * size(line.shapes)
    return sum(map(size, inputs)) + size(line.shapes)


def _fusion_bytes(fused: Computation) -> int:
    """What a fusion reads and writes: of an array that it slices or updates, only that part."""
    users: dict[str, list[tuple[Instruction, int]]] = defaultdict(list)
    for line in fused.values():
        for place, name in enumerate(line.operands if line.opcode != "parameter" else ()):
            users[name].append((line, place))

    def read(name: str) -> int:
        whole, total = size(fused[name].shapes), 0
        for user, place in users[name]:
            # Fusions within one are slices with a change of layout, wherever their input stands.
            sliced = user.opcode in ("slice", "dynamic-slice", "gather") and not place
            if sliced or user.opcode == "fusion":
                total += size(user.shapes)
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
        return size(fused[line.operands[1]].shapes if in_place else fused[name].shapes)

    root = _root(fused)
    outputs = root.operands if root.opcode == "tuple" else [root.name]
    # What a fusion only hands on, or exchanges beside its work, is not read by it.
    passed = ("parameter", *OPERATIONS)
    inputs = [
        name
        for name, line in fused.items()
        if line.opcode == "parameter"
        and any(user.opcode not in ("tuple", *OPERATIONS) for user, _ in users[name])
    ]
    made = [name for name in outputs if fused[name].opcode not in passed]
    return sum(map(read, inputs)) + sum(map(written, made))


class Collective(NamedTuple):
    """One exchange between devices, such as an all-gather, with one of its results on a device."""

    operation: str
    dtype: str
    shape: tuple[int, ...]
    group: tuple[int, ...] = ()
    """The devices of one of its groups, by their number in the mesh; of a permutation, one pair."""
    count: int = 1
    """How often it runs."""
    slices: int = 1
    """How many slices exchange, over their network and not over the links between chips."""

    @property
    def nbytes(self) -> int:
        """The size of the result on a device, in bytes."""
        return Shape(self.dtype, self.shape).nbytes

    @property
    def received(self) -> float:
        """Bytes that a device receives in one run, by the usual algorithms on a ring."""
        n = max(len(self.group), self.slices, 2)
        # A ring's all-reduce is a reduce-scatter and an all-gather; a part of 1/n is one's own.
        share = {"all-gather": 1, "all-to-all": 1, "all-reduce": 2, "reduce-scatter": n}
        return (
            self.nbytes * share[self.operation] * (n - 1) / n
            if self.operation in share
            else (self.nbytes)
        )

    def where(self, sizes: Mapping[str, int]) -> str:
        """Its way: "between 2 slices", or "along fsdp", axes of the mesh in which the group's
        devices differ."""
        if self.slices > 1:
            return f"between {self.slices} slices"
        places = np.array(np.unravel_index(self.group, tuple(sizes.values())))  # [axes, devices]
        return "along " + "+".join(
            name for name, row in zip(sizes, places, strict=True) if len(set(row.tolist())) > 1
        )


def collectives(text: str, trips: int = 1) -> Iterator[Collective]:
    """The collectives of a compiled program, one in a loop once, with its count.

    On a TPU a collective that runs beside other work stands in several fusions with the same
    channel, and counts where it is started: a loop's first turn may stand before the loop, with the
    channels of the others. Between slices chips send to their hosts and receive from them.

    Args:
      trips: as in `runs`.
    """
    channels: set[tuple[int, str]] = set()
    lines = list(runs(text, trips))
    # Channels of collectives of which one fusion says that it starts them
    started = {_channel(line) for run in lines if _starts(run) for line in run.fused.values()}
    for run in lines:
        for line in (run.line, *run.fused.values()):
            operation = line.opcode.removesuffix("-start")
            between = line.attribute(r'_xla_megascale_transfer_type="(\w+)"')
            if line.opcode == "recv" and between:
                kind, result = between.lower().replace("_", "-"), line.shapes[0]
                yield Collective(kind, result.dtype, result.dims, (), run.count, _slices(line))
            if operation not in OPERATIONS:
                continue
            number = _channel(line)
            if run.fused and number in started and not _starts(run):
                continue
            channel = id(run.scope), number
            if channel in channels:
                continue
            channels |= {channel} if number else set()
            shapes, root = _results(line, operation), _root(run.fused)
            sliced = root is not None and root.opcode == "dynamic-slice"
            # So a TPU writes reduce-scatter: all that comes of the sum is a slice of it.
            if operation == "all-reduce" and sliced and root.operands[0] == line.name:
                operation, shapes = "reduce-scatter", root.shapes
            for shape in shapes:
                yield Collective(operation, shape.dtype, shape.dims, _group(line), run.count)


def _channel(line: Instruction) -> str:
    return line.attribute(r"channel_id=(\d+)")


def _starts(run: Run) -> bool:
    return any("AsyncCollectiveStart" in line.attributes for line in run.fused.values())


def _results(line: Instruction, operation: str) -> list[Shape]:
    """What comes of a collective. One that is split into -start and -done has its inputs before its
    results in a tuple, and a permutation two numbers behind them."""
    if line.opcode == operation or len(line.shapes) < 2:
        return line.shapes
    if operation == "collective-permute":
        return line.shapes[1:2]
    return line.shapes[len(line.shapes) // 2 :] if operation != "all-reduce" else line.shapes


def _slices(line: Instruction) -> int:
    """How many slices exchange: of "{1,2}x{0:3}" two with the chips 0 to 3 each, which is also
    written with the chips' numbers, {{100000,100001,...,200003}}."""
    numbers = line.attribute(r'_xla_megascale_target="?\{+([\d,]+)').split(",")
    return len({int(number) // 100_000 or number for number in numbers})


def _group(line: Instruction) -> tuple[int, ...]:
    """The first group of devices, from any of the three ways in which groups are written."""
    text = line.attributes
    # {{0,2},{1,3}}, or of a permutation {{0,1},{1,0}}
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", text):
        return tuple(map(int, match[1].split(",")))
    # mesh['a'=4,'b'=2] {'b'}: devices that differ in b alone
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        axes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", match[1])}
        along = re.findall(r"'([^']+)'", match[2])
        numbers = np.arange(math.prod(axes.values())).reshape(tuple(axes.values()))
        index = tuple(slice(None) if name in along else 0 for name in axes)
        return tuple(numbers[index].ravel().tolist())
    # [4,2]<=[2,4]T(1,0): 4 groups of 2, of the numbers 0 to 7 laid out as [2, 4] and transposed
    pattern = r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if match := re.search(pattern, text):
        shape, source, order = (tuple(map(int, (x or "0").split(","))) for x in match.groups())
        numbers = np.arange(math.prod(source)).reshape(source)
        numbers = numbers.transpose(order) if match[3] else numbers
        return tuple(numbers.reshape(shape)[0].tolist())
    return ()
