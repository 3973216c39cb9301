"""Entry point of training, the same as `inbol sft` and `inbol dpo`: `python train.py sft ...` is
IDK-IT, `python train.py dpo ...` is CA-DPO.
"""

import sys

from inbol_jax.cli import train

if __name__ == "__main__":
    sys.exit(train())
