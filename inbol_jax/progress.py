"""Progress bars with rate and time left, and the lines that a command prints for its results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

console = Console(stderr=True, highlight=False)
_SECONDS_PER_LINE = 30


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s")


@contextmanager
def progress(
    label: str, total: int | None, unit: str, done: int = 0, *, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, note=None)`, which counts n more units.

    On a terminal it moves a bar on standard error; elsewhere it prints a line every half minute.

    Args:
      total: None if it is not known, as of a dataset that is streamed.
      done: units that are done before the first `advance`; the rate leaves them out.
    """
    if not shown:
        yield lambda n=1, note=None: None
    elif console.is_terminal:
        with Progress(*_columns(), console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, completed=done, unit=unit, note="")

            def advance(n: int = 1, note: str | None = None) -> None:
                bar.update(task, advance=n, **({} if note is None else {"note": note}))

            yield advance
    else:
        yield _Lines(label, total, unit, done).advance


def _columns() -> Iterator[TextColumn | BarColumn]:
    yield TextColumn("{task.description:<22}")
    yield BarColumn(bar_width=24)
    yield MofNCompleteColumn()
    yield _Rate("")
    yield TimeElapsedColumn()
    yield TextColumn("left")
    yield TimeRemainingColumn()
    yield TextColumn("{task.fields[note]}")


class _Lines:
    """Progress without a terminal."""

    def __init__(self, label: str, total: int | None, unit: str, done: int):
        self._label, self._total, self._unit = label, total, unit
        self._first = self._count = done
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        self._count += n
        now = time.monotonic()
        if now - self._last <= _SECONDS_PER_LINE:
            return
        self._last = now
        rate = (self._count - self._first) / (now - self._start)
        of = left = ""
        if self._total is not None:
            seconds = (self._total - self._count) / rate if rate else 0
            of, left = f"/{self._total}", f", {seconds:,.0f} s left"
        line = f"{self._label}: {self._count}{of}, {rate:,.1f} {self._unit}/s{left} {note or ''}"
        print(printable(line.rstrip()), file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Prints one line for one result on standard output, as `printable` writes it."""
    print(printable(line), flush=True)
