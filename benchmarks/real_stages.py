"""Stages of a long benchmark: each runs once, so that a run that was stopped goes on."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inbol_jax.artifacts import write_atomically


class Stop(Exception):
    """The stage to stop behind is done."""


class Stages:
    """Stages by name: `<folder>/done` holds a file per stage that is done, with its seconds.

    Args:
      until: name of the stage to stop behind; empty for none.
    """

    def __init__(self, folder: Path, until: str = ""):
        self.folder, self.until = folder, until

    def run(self, name: str, action: Callable[[], object]) -> None:
        """Runs `action` unless the stage is done.

        Raises:
          Stop: if it is the stage to stop behind.
        """
        mark = self.folder / "done" / name.replace(" ", "-")
        if not mark.exists():
            print(f"--- {name} ({time.strftime('%H:%M:%S')})", flush=True)
            start = time.monotonic()
            action()
            write_atomically(mark, f"{time.monotonic() - start:.1f}\n")
        if name == self.until:
            raise Stop

    def command(self, name: str, *options: object) -> None:
        """A stage that is a command of the package."""
        call = [sys.executable, "-m", "inbol_jax", *map(str, options)]
        self.run(name, lambda: subprocess.run(call, check=True))
