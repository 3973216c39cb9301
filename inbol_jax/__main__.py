"""`python -m inbol_jax` is `inbol`."""

import sys

from inbol_jax.cli import main

sys.exit(main())
