"""Shares of groups: how many of each to keep, and which; in an order of the questions' own, so that the order of files does not matter."""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from inbol_jax.errors import InbolError

Group = TypeVar("Group", bound=Hashable)


def check_shares(
    option: str,
    given: tuple[tuple[Group, float], ...],
    groups: Mapping[Group, object] | tuple[Group, ...],
) -> dict[Group, float]:
    """The shares as a mapping.

    Args:
      option: its name, for the errors.
      given: group and share; groups that are not named share what is left.
      groups: all there can be.

    Raises:
      InbolError: where a group is not known or there twice, or the shares cannot be.
    """
    shares = dict(given)
    names = ", ".join(str(group) for group in groups)
    for group, share in given:
        if group not in groups:
            raise InbolError(f"{option} {group}: choose among {names}")
        if not 0 <= share <= 1:
            raise InbolError(f"{option} {group} {share}: a share between 0 and 1 is needed")
    total = math.fsum(shares.values())
    if len(shares) < len(given):
        raise InbolError(f"{option}: one of {names} is there twice")
    if total > 1 + 1e-6 or (set(shares) == set(groups) and total < 1 - 1e-6):
        raise InbolError(
            f"{option}: the shares add up to {total:g}; they must be 1, or less where the rest is for groups that are not named"
        )
    return shares


def quotas(
    option: str, counts: Mapping[Group, int], shares: Mapping[Group, float]
) -> dict[Group | None, int]:
    """How many of each group to keep so that the shares hold and no more is left out than that takes.

    Args:
      option: its name, for the errors.
      counts: how many there are.
      shares: as `check_shares` gives them.

    Returns: the number to keep of each group in `shares`; under None that of all other groups together.

    Raises:
      InbolError: where a group is to have a share, and there is none of it or so few of another one that none of it can be kept.
    """
    there: dict[Group | None, int] = {group: counts.get(group, 0) for group in shares}
    there[None] = sum(counts.values()) - sum(there.values())
    wanted: dict[Group | None, float] = {**shares, None: 1 - math.fsum(shares.values())}
    if wanted[None] < 1e-6:
        wanted[None] = 0.0
    total = min(there[group] / share for group, share in wanted.items() if share)
    keep = {
        group: min(there[group], math.floor(total * share + 1e-6))
        for group, share in wanted.items()
    }
    for group, share in wanted.items():
        if share and not keep[group]:
            name = "what is not named" if group is None else group
            raise InbolError(
                f"{option}: nothing is left of {name} (there are {there[group]}); lower its share, or use more data"
            )
    return keep


def kept(keys: np.ndarray, groups: np.ndarray, keep: Mapping[int, int]) -> np.ndarray:
    """Which items to keep: of each group those with the smallest keys.

    Args:
      keys: u64[n], as good as random and the items' own.
      groups: i8[n].
      keep: how many of each group; groups that are not in it stay whole.

    Returns: bool[n].
    """
    mask = np.ones(len(keys), bool)
    for group, n in keep.items():
        (items,) = np.nonzero(groups == group)
        if n < len(items):
            mask[items] = keys[items] <= np.partition(keys[items], n - 1)[n - 1] if n else False
    return mask
