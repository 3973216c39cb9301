"""Entry point of plans: `python tpu/plan.py dpo --topology v5e:4x4` is `inbol plan`."""

import sys

from inbol_jax.interruption import end_at_once

if __name__ == "__main__":
    end_at_once()

from inbol_jax.cli import plan as main
from inbol_jax.training.plan import SHAPES, lower, make_mesh
from inbol_jax.training.plan_config import PlanConfig as Config

__all__ = ["SHAPES", "Config", "lower", "make_mesh"]

if __name__ == "__main__":
    sys.exit(main())
