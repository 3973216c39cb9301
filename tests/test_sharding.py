"""Meshes, and rows on them; how parameters lie on them is tested beside what places them."""

import dataclasses

import pytest
from virtual_devices import run_on_devices

from inbol_jax.errors import InbolError
from inbol_jax.sharding import make_mesh


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (1, 1, 3)])
def test_meshes_that_do_not_fit(sizes):
    with pytest.raises(InbolError, match=r"does not fit 1 devices"):
        make_mesh(*sizes)


@dataclasses.dataclass(frozen=True)
class _Device:
    """A device of several nodes, as GPUs have it; slices of TPUs are described alike."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "gpu"
    device_kind: str = "H100"


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ((2, -1, 1), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((4, 1, 2), [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ((1, -1, 2), [[0, 1, 2, 3, 4, 5, 6, 7]]),  # fsdp goes over both: not two of tensor
    ],
)
def test_slices_lie_along_data(sizes, rows):
    """`jax.make_mesh` refuses them. What exchanges most stays within one."""
    devices = [_Device(i, i // 4) for i in range(8)]
    mesh = make_mesh(*sizes, devices=devices[::-1])
    assert [sorted(device.id for device in row.flat) for row in mesh.devices] == rows
    for group in mesh.devices.reshape(-1, mesh.shape["tensor"]):
        assert len({device.slice_index for device in group}) == 1


def test_slices_that_the_mesh_does_not_divide():
    with pytest.raises(InbolError, match="2 slices, or nodes: data or fsdp must be a multiple"):
        make_mesh(1, 1, 8, devices=[_Device(i, i // 4) for i in range(8)])


GRADIENTS = """
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from inbol_jax.losses import token_logprobs
from inbol_jax.sharding import BATCH, keep_rows, make_mesh
mesh, random = make_mesh(2, 2, 2), np.random.default_rng(0)
matrix = PartitionSpec("fsdp", "tensor")
shapes = (8, 8, 32), (32, 32), (32, 64)
x, kernel, head = (random.normal(size=shape).astype(np.float32) for shape in shapes)
targets = random.integers(0, 64, (8, 8)).astype(np.int32)
def loss(x, kernel, head):
    return token_logprobs(keep_rows(x @ kernel), head, targets).sum()
gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
parts = zip((x, kernel, head), (BATCH, matrix, matrix))
split = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in parts]
for found, expected in zip(gradients(*split), gradients(x, kernel, head), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
odd = jax.jit(lambda x: keep_rows(x[:3]))(split[0])  # rows that the devices do not divide
np.testing.assert_array_equal(odd, x[:3])
"""


def test_gradients_on_a_mesh_whose_three_axes_are_all_split():
    """Without `keep_rows` those of the first two are wrong, whichever partitioner XLA uses."""
    run_on_devices(GRADIENTS)
