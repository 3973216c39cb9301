"""Entry point of training, the same as `inbol sft`, `inbol dpo` and `inbol rl`.

`python train.py sft ...` is IDK-IT, `python train.py dpo ...` is CA-DPO, and `python train.py rl
...` is on-policy refusal.
"""

import sys

from inbol_jax.interruption import listen

if __name__ == "__main__":
    listen()
    from inbol_jax.cli import main

    sys.exit(main())
