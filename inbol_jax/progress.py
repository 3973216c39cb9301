"""Progress bars with rate and time left, and the one line that a stage prints when it is done."""

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

console = Console(stderr=True, highlight=False)


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s")


@contextmanager
def progress(
    label: str, total: int | None, unit: str, done: int = 0, *, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, note="")`. On a terminal a bar on standard error; elsewhere a line every half a minute.

    Args:
      total: None where it is not known, as of a set that is read as it comes.
    """
    if not shown:
        yield lambda n=1, note=None: None
        return
    if console.is_terminal:
        columns = (TextColumn("{task.description:<22}"), BarColumn(bar_width=24), MofNCompleteColumn(), _Rate(""), TimeElapsedColumn(),
                   TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, completed=done, unit=unit, note="")
            yield lambda n=1, note=None: bar.update(
                task, advance=n, **({} if note is None else {"note": note})
            )
        return
    start = last = time.monotonic()
    first, count = done, done

    def advance(n: int = 1, note: str | None = None) -> None:
        nonlocal last, count
        count += n
        if (now := time.monotonic()) - last > 30:
            last = now
            rate = (count - first) / (now - start)
            left = "" if total is None else f", {(total - count) / rate if rate else 0:,.0f} s left"
            of = "" if total is None else f"/{total}"
            print(
                f"{label}: {count}{of}, {rate:,.1f} {unit}/s{left} {note or ''}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield advance


def say(line: str) -> None:
    """One line for one result, on standard output."""
    print(line, flush=True)
