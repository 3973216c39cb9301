"""`inbol plan` from a checkout: `python tpu/plan.py dpo --topology v5e:4x4 --lora-rank 128`. See
inbol_jax/training/plan.py.
"""

import sys

import tyro

from inbol_jax.errors import InbolError
from inbol_jax.training.config import PlanConfig as Config
from inbol_jax.training.plan import SHAPES, lower, make_mesh, plan

__all__ = ["SHAPES", "Config", "lower", "make_mesh", "plan"]

if __name__ == "__main__":
    try:
        sys.exit(plan(tyro.cli(Config)))
    except InbolError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
