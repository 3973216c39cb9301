"""Meshes; how arrays lie on them is tested beside what places them."""

import pytest

from inbol_jax.errors import InbolError
from inbol_jax.sharding import make_mesh


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (1, 1, 3)])
def test_meshes_that_do_not_fit(sizes):
    with pytest.raises(InbolError, match=r"does not fit 1 devices"):
        make_mesh(*sizes)
