"""Progress bars with rate and time left, and the lines that a command prints for its results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from inbol_jax.errors import printable
from inbol_jax.interruption import boundaries, look

console = Console(stderr=True, highlight=False)
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
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    live = shown and console.is_terminal
    bar = Progress(*columns, console=console, transient=True)  # only counts if it is not started
    with boundaries() if boundary else nullcontext(), bar if live else nullcontext():
        name = bar.add_task(label, total=total, completed=done, rate="", note="")
        # The rate is of this process alone: what was done before it is left out.
        task, start = bar.tasks[0], time.monotonic()
        last = start

        def advance(n: int = 1, note: str | None = None) -> None:
            nonlocal last
            rate = (task.completed + n - done) / max(time.monotonic() - start, 1e-9)
            fields = {} if note is None else {"note": note}
            bar.update(name, advance=n, rate=f"{rate:,.1f} {unit}/s", **fields)
            if shown and not live and time.monotonic() - last > _SECONDS_PER_LINE:
                last = time.monotonic()
                print(printable(_line(task, rate)), file=sys.stderr, flush=True)
            if n and boundary:
                look()

        yield advance


def _line(task: Task, rate: float) -> str:
    of = left = ""
    if task.total is not None:
        seconds = (task.total - task.completed) / rate if rate else 0
        of, left = f"/{task.total:.0f}", f", {seconds:,.0f} s left"
    about = f"{task.fields['rate']}{left} {task.fields['note']}"
    return f"{task.description}: {task.completed:.0f}{of}, {about}".rstrip()


def say(line: str) -> None:
    """Prints the line of a result on standard output, as `printable` writes it."""
    print(printable(line), flush=True)
