"""One run in several processes: how they find each other, which of them writes, and arrays that are spread over them."""

import os
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from inbol_jax.errors import InbolError

_PATIENCE = (
    7 * 24 * 3600
)  # seconds that a process which is done waits for the others; sampling, each has as much to do as it has
_NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Joins the other processes, before anything else asks for a device.

    Where JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set they say who the others are; elsewhere jax finds them by
    itself on Cloud TPU, Slurm, Kubernetes and Open MPI.

    Raises:
      InbolError: when the variables are incomplete, or jax cannot find or reach the others.
    """
    given = [os.environ.get(name) for name in _NAMES]
    if any(given) and not all(given):
        missing = next(name for name, value in zip(_NAMES, given, strict=True) if not value)
        raise InbolError(
            f"--distributed: of {', '.join(_NAMES)} set all or none; missing: {missing}"
        )
    address, *numbers = given
    try:
        if address:
            count, index = map(int, numbers)
            jax.distributed.initialize(address, count, index, shutdown_timeout_seconds=_PATIENCE)
        else:
            jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InbolError(
            f"--distributed: the other processes cannot be joined ({reason}); set {', '.join(_NAMES)}"
        ) from error


def leave(code: int, message: str) -> None:
    """Says why on stderr and ends this process at once, with that exit code, where it is one of several; otherwise does nothing.

    An ordinary end waits for the others, and they wait in the next exchange for this one. Without it they notice within two minutes that
    this one is gone, and end as well.
    """
    if jax.distributed.is_initialized():
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)


def is_main() -> bool:
    """Whether this process is the one that writes files and says what was done."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Until every process is here: what the first one wrote before is there for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def to_host(x: Any) -> np.ndarray:
    """An array as a whole on the host of every process. Where it is spread over several of them, all must ask for it."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
