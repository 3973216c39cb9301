"""Runs of several processes: how they join, which one writes, and arrays spread over them."""

import contextlib
import functools
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from inbol_jax import artifacts, interruption
from inbol_jax.errors import InbolError

# Seconds that a process which is done waits for the others. In sampling, some have more to do.
_SHUTDOWN_TIMEOUT = 7 * 24 * 3600
_LOST = re.compile(r"Gloo \S+ failed|remote process exited|coordination service")
_boundaries = itertools.count(1)  # at which it was asked whether all end
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Joins the other processes. Must run before anything else asks for a device.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say who the others are. Without
    them, JAX finds the others by itself on Cloud TPU, Slurm, Kubernetes and Open MPI.

    Raises:
      InbolError: if some of the variables are missing, or if JAX cannot find or reach the others.
    """
    names = ", ".join(_VARIABLES)
    address, count, index = found = [os.environ.get(name) for name in _VARIABLES]
    if any(found) and not all(found):
        raise InbolError(f"--distributed: set all of {names}, or none")
    try:
        jax.distributed.initialize(
            address or None,
            int(count) if count else None,
            int(index) if index else None,
            shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InbolError(
            f"--distributed: the other processes cannot be joined ({reason}); set {names}"
        ) from error


def leave(code: int, message: str) -> None:
    """Prints the message and ends this process at once if it is one of several; else does nothing.

    An ordinary end waits for the others, which wait for this one in their next exchange. Without it
    they notice within two minutes that this process is gone, and end as well.
    """
    if jax.distributed.is_initialized():
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)


def lost_peer(error: BaseException) -> str | None:
    """What to say of an exchange that failed as another process is gone; None of other errors."""
    text = next(iter(str(error).splitlines()), "")
    if not (jax.distributed.is_initialized() and _LOST.search(text)):
        return None
    return (
        f"another process is gone, or cannot be reached ({text[:200]}); give the same command "
        "again in every process, it goes on from the newest checkpoint"
    )


def all_end() -> bool:
    """Whether all processes end here, because one got a signal or a notice of preemption. Each must
    ask at the same boundaries."""
    if jax.process_count() == 1:
        return interruption.has_come()
    return multihost_utils.reached_preemption_sync_point(next(_boundaries))


def is_main() -> bool:
    """Whether this process is the one that writes files and prints results."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def sole_writer(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`artifacts.sole_writer`, by the process that writes."""
    return artifacts.sole_writer(folder) if is_main() else contextlib.nullcontext()


# For a stage that several processes run together.
one_writer = functools.partial(artifacts.one_writer, lock=sole_writer)


def wait_for_all(what: str) -> None:
    """Waits until every process is here, so that all see what the main process wrote before."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def to_host(x: Any) -> np.ndarray:
    """Returns the whole array on the host. If it is spread over processes, all must call this."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def from_all(x: np.ndarray) -> np.ndarray:
    """[...] of each process -> [processes, ...] on all of them. All must call this."""
    return x[None] if jax.process_count() == 1 else multihost_utils.process_allgather(x)
