"""`inbol`, and `python -m inbol_jax`, which is the same."""

import sys

from inbol_jax.interruption import listen


def main() -> int:
    """Runs the command line. Returns the exit code."""
    listen()
    from inbol_jax.cli import main as inbol

    return inbol()


if __name__ == "__main__":
    sys.exit(main())
