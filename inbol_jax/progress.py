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
from rich.text import Text

from inbol_jax.errors import printable
from inbol_jax.interruption import boundaries, look

console = Console(stderr=True, highlight=False)
_SECONDS_PER_LINE = 30


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s")


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
    with (
        boundaries() if boundary else nullcontext(),
        _counter(label, total, unit, done, shown) as count,
    ):

        def advance(n: int = 1, note: str | None = None) -> None:
            count(n, note)
            if n and boundary:
                look()

        yield advance


@contextmanager
def _counter(
    label: str, total: int | None, unit: str, done: int, shown: bool
) -> Iterator[Callable[[int, str | None], None]]:
    if not shown:
        yield lambda n, note: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(""),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, completed=done, unit=unit, note="")

            def count(n: int, note: str | None) -> None:
                bar.update(task, advance=n, **({} if note is None else {"note": note}))

            yield count
    else:
        yield _print_lines(label, total, unit, done)


def _print_lines(
    label: str, total: int | None, unit: str, done: int
) -> Callable[[int, str | None], None]:
    """Progress without a terminal: the function that counts."""
    count, start = done, time.monotonic()
    last = start

    def advance(n: int, note: str | None) -> None:
        nonlocal count, last
        count += n
        now = time.monotonic()
        if now - last <= _SECONDS_PER_LINE:
            return
        last = now
        rate = (count - done) / (now - start)
        of = left = ""
        if total is not None:
            seconds = (total - count) / rate if rate else 0
            of, left = f"/{total}", f", {seconds:,.0f} s left"
        line = f"{label}: {count}{of}, {rate:,.1f} {unit}/s{left} {note or ''}"
        print(printable(line.rstrip()), file=sys.stderr, flush=True)

    return advance


def say(line: str) -> None:
    """Prints the line of a result on standard output, as `printable` writes it."""
    print(printable(line), flush=True)
