"""JAX's persistent compilation cache: what one command has compiled, the next one reads.

Nothing here imports JAX, which reads the environment when it is imported.
"""

import os
import platform
import zlib
from pathlib import Path


def use_cache() -> None:
    """Turns the cache on for this process. Must run before JAX is imported.

    JAX_COMPILATION_CACHE_DIR, JAX's own variable, can name a folder or an address; by default it is
    in the user's cache folder, or nowhere if that cannot be made.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # One folder per kind of processor: homes are shared, and programs for a CPU are not portable.
    kind = platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            kind += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        pass
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "inbol_jax" / f"programs-{zlib.crc32(kind.encode()):08x}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
