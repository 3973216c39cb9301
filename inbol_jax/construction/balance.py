"""Which items to keep so that groups have the shares that the user wants.

Items are left out by a random order that depends on each item alone, so that the order of the files
does not matter.
"""

import math
from collections.abc import Mapping

import numpy as np

from inbol_jax.errors import InbolError

_OTHERS = -1  # group of all items whose group has no share of its own


def keep_shares(
    option: str,
    shares: Mapping[int, float],
    groups: np.ndarray,
    keys: np.ndarray,
    names: Mapping[int, str],
) -> np.ndarray:
    """bool[n]: the items to keep so that the shares hold and no more is left out than that takes.

    Args:
      option: the option that asks for the shares, for the errors.
      shares: by group; the groups that it does not name get what is left of 1, in any proportion.
      groups: i8[n], the group of each item, at least 0.
      keys: u64[n], a random number of each item; those with the smallest keys are kept.
      names: by group, for the errors.

    Raises:
      InbolError: if nothing would be left of a group that is to have a share.
    """
    groups = np.where(np.isin(groups, list(shares)), groups, _OTHERS)
    rest = 1 - math.fsum(shares.values())
    wanted = {**shares, _OTHERS: rest if rest >= 1e-6 else 0.0}
    counts = {group: int((groups == group).sum()) for group in wanted}
    # The largest total of which every group can fill its share.
    total = min(counts[group] / share for group, share in wanted.items() if share)
    mask = np.ones(len(keys), bool)
    for group, share in wanted.items():
        n = min(counts[group], math.floor(total * share + 1e-6))
        if share and not n:
            name = "what is not named" if group == _OTHERS else names[group]
            raise InbolError(
                f"{option}: nothing is left of {name} (there are {counts[group]}); "
                "lower its share, or use more data"
            )
        (items,) = np.nonzero(groups == group)
        if n < len(items):
            mask[items] = False
            mask[items[np.argsort(keys[items], kind="stable")[:n]]] = True
    return mask
