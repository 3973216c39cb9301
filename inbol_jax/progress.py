"""Progress bars with rate and time left, and the lines that a command prints for its results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from tqdm import tqdm

from inbol_jax.errors import printable
from inbol_jax.interruption import boundaries, look

_SECONDS_PER_LINE = 30


@contextmanager
def progress(
    label: str,
    total: int | None,
    unit: str,
    done: int = 0,
    *,
    shown: bool = True,
    boundary: bool = True,
) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, note=None)`, which counts n more units.

    On a terminal it moves a bar on standard error; elsewhere it prints a line every half minute.

    Args:
      total: None if it is not known, as of a dataset that is streamed.
      done: units that are done before the first `advance`; the rate leaves them out.
      boundary: whether the command may be interrupted at the end of a unit. What it has done must
        be kept by then.
    """
    name, unit = printable(label), f" {unit}"
    live, count, said = shown and sys.stderr.isatty(), done, ""
    start = last = time.monotonic()
    own = {"initial": done, "unit": unit, "leave": False, "dynamic_ncols": True}
    bar = tqdm(desc=name, total=total, disable=not live, **own)
    with boundaries() if boundary else nullcontext(), bar:

        def advance(n: int = 1, note: str | None = None) -> None:
            nonlocal count, said, last
            count, said = count + n, said if note is None else note
            bar.set_postfix_str(said, refresh=False)
            bar.update(n)
            now = time.monotonic()
            if shown and not live and now - last > _SECONDS_PER_LINE:
                own = {"initial": done, "unit": unit, "postfix": said, "ncols": 0}
                line = tqdm.format_meter(count, total, now - start, prefix=name, **own)
                print(printable(line), file=sys.stderr, flush=True)
                last = now
            if n and boundary:
                look()

        yield advance


def say(line: str) -> None:
    """Prints the line of a result on standard output, as `printable` writes it."""
    tqdm.write(printable(line))  # above a bar, if there is one
    sys.stdout.flush()
