"""Entry point of evaluation, the same as `inbol evaluate`:
`python evaluate.py --in-domain DIR --models base DIR idk_it DIR --out DIR`.
"""

import sys

from inbol_jax.interruption import listen

if __name__ == "__main__":
    listen()
    from inbol_jax.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
