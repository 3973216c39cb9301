"""Is a slice fit to train on? To be run on all of its hosts before anything that takes hours.

    tpu/launch.sh run NAME ZONE tpu/doctor.py --distributed --shared /mnt/run --devices 16

Printed is a line per check, by the first process. The exit code is 0 if all hold, and else 1. With
the options of a training command behind `--` it also sees whether all hosts were told the same.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from inbol_jax.artifacts import sole_writer
from inbol_jax.cli import parse_options
from inbol_jax.defaults import Bounded, Bounds
from inbol_jax.errors import InbolError
from inbol_jax.processes import from_all, is_main, join, wait_for_all
from inbol_jax.sharding import make_mesh

ROOT = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "transformers")
# What of the environment changes programs; JAX_PROCESS_ID differs by design.
PREFIXES = ("JAX_", "XLA_", "LIBTPU_")
OWN = ("JAX_PROCESS_ID",)
REPORT_BYTES = 1 << 14  # of a process
SLACK = {"computing": 0.0, "writing": 1.0}  # seconds that one host may always take longer
Report = dict[str, Any]  # what one process found
Finding = tuple[str, str, str]  # name of a check, what it found, what is wrong (empty if nothing)


@dataclasses.dataclass(frozen=True)
class Config(Bounded):
    """Look at all hosts of a slice: devices, code, versions, storage, network, speed."""

    shared: Path
    """Folder that all hosts must see, where data and results are to lie."""
    distributed: bool = False
    """Join the other processes, as in training."""
    processes: Annotated[int | None, Bounds(1)] = None
    """Number of processes that there must be."""
    devices: Annotated[int | None, Bounds(1)] = None
    """Number of devices that there must be on all processes together."""
    free: Annotated[float, Bounds(0)] = 20.0
    """GiB that must be free on --shared and on each host's disk."""
    megabytes: Annotated[int, Bounds(1)] = 256
    """Size per device of what is summed over all devices to measure the network."""
    slowest: Annotated[float, Bounds(1)] = 1.5
    """A host that takes so many times the median is too slow."""
    timeout: Annotated[float, Bounds(1)] = 600.0
    """Seconds after which a check that does not end has failed."""


def examine(config: Config, told: Sequence[str]) -> list[Finding]:
    """Everything that is looked at, in the same order in all processes. All must call this.

    Args:
      told: the words that must be the same on all hosts.
    """
    mesh = make_mesh()
    right, seconds = all_reduce(mesh, config.megabytes)
    token = exchange({"token": uuid.uuid4().hex})[0]["token"]  # the same one in all processes
    unseen, broken, stored = storage(config.shared, token, patience=min(60.0, config.timeout / 10))
    reports = exchange(
        {
            "host": os.uname().nodename,
            "devices": [device.device_kind for device in jax.local_devices()],
            "code": code_hash(),
            "told": hash_of([[*told], [*map(content_hash, told)], environment()]),
            "versions": versions(),
            "free": [free_space(config.shared), free_space(Path.cwd())],
            "unseen": unseen,
            "broken": broken,
            "sum": right,
            "seconds": {"computing": compute_seconds(), "writing": stored},
        }
    )
    size = f"{config.megabytes} MiB in {1e3 * seconds:.1f} ms"
    sent = f"{speed(config.megabytes, mesh.size, seconds):.2f} GB/s per device, {size}"
    return [*findings(reports, config), ("speed of all-reduce", sent, "")]


def findings(reports: Sequence[Report], config: Config) -> list[Finding]:
    """What the reports of all processes, in their order, say of the slice."""
    names = [f"process {i} on {report['host']}" for i, report in enumerate(reports)]

    def same(check: str, about: str, values: Sequence[Any]) -> Finding:
        usual = statistics.mode(map(json.dumps, values))
        odd = [f"{n}: {v}" for n, v in zip(names, values, strict=True) if json.dumps(v) != usual]
        found = json.loads(usual)
        return check, found if isinstance(found, str) else about, "; ".join(odd)

    def those(check: str, about: str, faults: Iterable[str]) -> Finding:
        odd = [f"{n}: {fault}" for n, fault in zip(names, faults, strict=True) if fault]
        return check, about, "; ".join(odd)

    def of(key: str) -> list[Any]:
        return [report[key] for report in reports]

    count, total = len(reports), sum(map(len, of("devices")))
    per_process = f"{len(reports[0]['devices'])} x {reports[0]['devices'][0]} each"
    found = [
        ("processes", f"{count}", differs(count, config.processes)),
        ("devices", f"{total}", differs(total, config.devices)),
        same("devices per process", per_process, of("devices")),
        same("code", "", of("code")),
        same("command and environment", "", of("told")),
        same("versions", "", of("versions")),
        those("shared storage is seen by all", str(config.shared), of("unseen")),
        those("shared storage keeps its promises", "rename, lock, append", of("broken")),
        those(
            "free disk",
            f"{min(map(min, of('free'))):.0f} GiB at least",
            [
                f"{min(free):.0f} GiB, of --free {config.free:g}" * (min(free) < config.free)
                for free in of("free")
            ],
        ),
        those("all-reduce", "the sum is right", ["the sum is wrong" * (not x) for x in of("sum")]),
    ]
    for what in reports[0]["seconds"]:
        taken = [report["seconds"][what] for report in reports]
        usual = statistics.median(taken)
        slow = [f"{x:.3f} s" * (x > config.slowest * usual + SLACK[what]) for x in taken]
        found.append(those(f"speed of {what}", f"{usual:.3f} s in the median", slow))
    return found


def differs(found: int, expected: int | None) -> str:
    """What to say if that many were not expected."""
    return f"{expected} are expected" if expected not in (None, found) else ""


def exchange(report: Report) -> list[Report]:
    """The reports of all processes, in their order. All must call this."""
    data = json.dumps(report).encode()
    assert len(data) <= REPORT_BYTES
    padded = np.frombuffer(data.ljust(REPORT_BYTES), np.uint8)
    return [json.loads(row.tobytes()) for row in from_all(padded)]


def hash_of(value: Any) -> str:
    """Twelve hex digits."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def content_hash(name: str | Path) -> str:
    """Of a file, as the one of --config; empty if there is none of that name."""
    return hash_of(Path(name).read_bytes().hex()) if Path(name).is_file() else ""


def code_hash() -> str:
    """Of the package's files, the entry points and the programs in tpu/."""
    files = [*ROOT.glob("*.py"), *ROOT.glob("tpu/*.*"), *ROOT.glob("inbol_jax/**/*.*")]
    files = sorted(file for file in files if file.is_file() and file.suffix != ".pyc")
    return hash_of([[file.relative_to(ROOT).as_posix(), content_hash(file)] for file in files])


def environment() -> list[list[str]]:
    """The variables that programs depend on."""
    return sorted(
        [name, value]
        for name, value in os.environ.items()
        if name.startswith(PREFIXES) and name not in OWN
    )


def versions() -> str:
    """Of Python and of what it runs."""
    found = [f"python {sys.version.split()[0]}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def free_space(folder: Path) -> float:
    """GiB that are free where a folder is to be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 2**30


def storage(shared: Path, token: str, *, patience: float) -> tuple[str, str, float]:
    """Whether this process sees what all others write, and can write as a run must.

    Args:
      patience: seconds after which it must see it: an NFS keeps what it knows of a folder.
    Returns:
      whose files it does not see, what it cannot do, and the seconds that writing took.
    """
    folder, own = shared / f".doctor-{token}", str(jax.process_index())
    broken, start = "", time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / own).write_text(token)
        broken = promises(folder / f"{own}.folder")
    except (OSError, InbolError) as error:
        broken = f"it cannot be written ({error})"
    seconds = time.monotonic() - start
    wait_for_all("doctor: written")
    missing, end = set(map(str, range(jax.process_count()))), time.monotonic() + patience
    while missing and time.monotonic() < end:
        missing = {name for name in missing if not _holds(folder / name, token)}
        time.sleep(1.0 if missing else 0.0)
    wait_for_all("doctor: read")
    if is_main():
        shutil.rmtree(folder, ignore_errors=True)
    lost = ", ".join(sorted(missing, key=int))
    return f"it does not see what process {lost} has written" * bool(lost), broken, seconds


def promises(folder: Path) -> str:
    """What the storage of an empty folder cannot do that runs rely on; empty if it can do all."""
    made, whole, log = folder / "made", folder / "whole", folder / "log"
    made.mkdir(parents=True)
    (made / "file").write_text("1")
    try:
        made.rename(whole)  # a checkpoint, once it is whole
    except OSError as error:
        return f"folders cannot be renamed ({error})"
    with log.open("ab") as file:  # answers are appended, each batch at once
        for _ in range(2):
            file.write(b"line\n")
            file.flush()
            os.fsync(file.fileno())
    if log.read_bytes() != b"line\n" * 2:
        return "what was appended is not there"
    try:
        with sole_writer(folder):
            pass
    except (OSError, InbolError) as error:
        return f"folders cannot be locked ({error})"
    return ""


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False


def all_reduce(mesh: jax.sharding.Mesh, megabytes: int) -> tuple[bool, float]:
    """Sums an array over all devices: whether the sum is right, and the seconds of the fastest of
    five."""
    n, size = mesh.size, megabytes * 2**20 // 4
    rows = PartitionSpec(mesh.axis_names)
    spread = jax.NamedSharding(mesh, rows)
    # Device i has i + 1 everywhere, so each element of the sum is n (n + 1) / 2.
    ones = jax.make_array_from_callback(
        (n, size), spread, lambda index: np.full((1, size), index[0].start or 0, np.float32) + 1
    )

    @jax.jit
    def total(x: jax.Array) -> jax.Array:
        def per_device(part: jax.Array) -> jax.Array:
            return jax.lax.psum(part, mesh.axis_names)

        whole = PartitionSpec()
        return jax.shard_map(per_device, mesh=mesh, in_specs=rows, out_specs=whole)(x)

    found = total(ones)
    right = bool((np.asarray(found.addressable_data(0)) == n * (n + 1) / 2).all())
    return right, fastest(lambda: total(ones))


def speed(megabytes: int, devices: int, seconds: float) -> float:
    """GB/s that each device sends: an all-reduce of size s sends 2 s (n - 1) / n."""
    return 2 * megabytes * 2**20 * (devices - 1) / devices / seconds / 1e9


def compute_seconds() -> float:
    """Seconds of a product of matrices on the slowest of this process's devices."""
    side = 4096 if jax.local_devices()[0].platform == "tpu" else 512

    @jax.jit
    def product(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 20, lambda _, y: (y @ x) / side, x)

    taken = []
    for device in jax.local_devices():
        x = jax.device_put(jnp.ones((side, side), jnp.bfloat16), device)
        product(x).block_until_ready()
        taken.append(fastest(lambda x=x: product(x)))
    return max(taken)


def fastest(run: Callable[[], jax.Array]) -> float:
    """Seconds of the fastest of five."""
    taken = []
    for _ in range(5):
        start = time.monotonic()
        run().block_until_ready()
        taken.append(time.monotonic() - start)
    return min(taken)


def give_up() -> None:
    """Ends a process whose exchange with the others does not come to an end."""
    print(
        "FAIL  the processes do not reach each other, or one is gone", file=sys.stderr, flush=True
    )
    os._exit(1)


def main(words: Sequence[str]) -> int:
    """Prints a line per check. Returns the exit code."""
    words = [*words, "--"]
    own, told = words[: words.index("--")], words[words.index("--") + 1 : -1]
    config = parse_options(Config, "doctor.py", own)
    clock = threading.Timer(config.timeout, give_up)
    clock.daemon = True
    clock.start()
    if config.distributed:
        join()
    found = examine(config, told)
    clock.cancel()
    for check, about, fault in found if is_main() else ():
        print(f"{'FAIL' if fault else 'ok':5} {check}: {about}{fault and f'; {fault}'}", flush=True)
    return int(any(fault for _, _, fault in found))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InbolError as error:
        sys.exit(f"error: {error}")
