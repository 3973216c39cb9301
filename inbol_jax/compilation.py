"""JAX's persistent compilation cache: what one command has compiled, the next one reads.

Nothing here imports JAX, which reads the environment when it is imported.
"""

import os
import platform
import sys
import tempfile
import zlib
from pathlib import Path

import filelock

FOLDER = "JAX_COMPILATION_CACHE_DIR"
"""JAX's own variable; where it names a folder or an address, that is used."""
_SIZE = 4 << 30
"""Bytes that the default folder may hold; what was used longest ago goes first."""


def use_cache() -> None:
    """Turns the cache on for this process. Must run before JAX is imported.

    By default programs are kept in the user's cache folder. A folder that cannot be written is one
    line on standard error, and programs are then compiled each time.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    named = os.environ.get(FOLDER)
    if named is not None and (not named or "://" in named):  # none, or an object store
        return
    try:
        folder = Path(named).expanduser() if named else _default_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if not named:
            _drop_torn(folder)
            # With a bound JAX locks the folder, so that no process reads what another one writes.
            os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_SIZE))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        print(
            f"what is compiled is not kept for the next command ({error}); {FOLDER} can name "
            "another folder",
            file=sys.stderr,
        )
        return
    os.environ[FOLDER] = str(folder)


def _default_folder() -> Path:
    """One per kind of processor: homes are shared, and programs for a CPU are not portable."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            kind += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        pass
    return root / "inbol_jax" / f"programs-{zlib.crc32(kind.encode()):08x}"


def _drop_torn(folder: Path) -> None:
    """Removes what a killed process has left: JAX writes the time of use last, and fails for good
    where it is missing."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):  # the name is JAX's
        for entry in folder.glob("*-cache"):
            if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
                entry.unlink()
