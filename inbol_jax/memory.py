"""Whether a program fits into its device's memory, before it runs for the first time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from inbol_jax.errors import InbolError


def memory_limit() -> int | None:
    """Bytes that JAX may use on each of this process's devices; None where it is not known, as on
    CPUs."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def check_fits(compiled: jax.stages.Compiled, what: str, advice: Callable[[float], str]) -> None:
    """Compares what the compiler plans with what the device has.

    Args:
      what: what the program is, for the message.
      advice: what to do, given the share of the program's rows that would fit. It is less than 1,
        and 0 if not even the variables fit.
    Raises:
      InbolError: if the program needs more than there is.
    """
    limit, memory = memory_limit(), compiled.memory_analysis()
    if limit is None or memory is None:
        return
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held, scratch = memory.argument_size_in_bytes + outputs, memory.temp_size_in_bytes
    if held + scratch <= limit:
        return
    share = max(0.0, (limit - held) / scratch)
    raise InbolError(
        f"{what} needs {(held + scratch) / 2**30:.1f} GiB on each device, which has "
        f"{limit / 2**30:.1f} GiB; {advice(share)}"
    )


def check_batch_fits(
    step: functools.partial, variables: Mapping[str, Any], arrays: Mapping[str, jax.Array]
) -> None:
    """Raises InbolError, which names the batch size that fits, if a batch of questions does not.

    Args:
      step: (variables, arrays) -> arrays, all other arguments of a jitted function filled in.
    """
    size = len(arrays["input_ids"])

    def advice(share: float) -> str:
        fits = int(share * size)
        return f"--batch-size {fits} fits" if fits else "spread the model by --mesh"

    # The first call takes what is compiled here.
    lowered = step.func.lower(*step.args, variables, arrays, **step.keywords)
    check_fits(lowered.compile(), f"a batch of {size} questions", advice)
