"""What compiled steps send between devices: the parts of a model that a mesh splits are not put
together again.
"""

import dataclasses
import json
import math
import os
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from hlo import collectives
from lowering import abstract_pairs, abstract_variables, lower_step
from virtual_devices import run_on_devices

from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.packing import RowShape
from inbol_jax.models.stacking import stack_layers
from inbol_jax.models.weights import table_row
from inbol_jax.sharding import RULES, make_mesh
from inbol_jax.training.ca_dpo import ca_dpo_objective
from inbol_jax.training.config import DpoConfig
from inbol_jax.training.step import make_program


def distinct(config):
    """Sizes that no other array of the step has, eight heads each."""
    text = {"hidden_size": 64, "intermediate_size": 160, "num_layers": 2, "windows": (None,) * 2}
    text |= {"num_heads": 8, "num_kv_heads": 8, "head_dim": 12}
    vision = {"hidden_size": 48, "intermediate_size": 112, "num_heads": 8, "num_layers": 1}
    return dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, **text),
        vision=dataclasses.replace(config.vision, **vision),
    )


def lowered(config, mesh, *, scanned=False):
    """The CA-DPO step of a whole model."""
    run = DpoConfig(data=Path("pairs"), out=Path("out")).with_rate(adapters=False)
    program = make_program(ca_dpo_objective(Llava(config), run.pair_loss), run, total_steps=10)
    variables = abstract_variables(config, mesh, dtype=jnp.float32)
    if scanned:
        variables = stack_layers(variables, config)
    batch = abstract_pairs(config, mesh, rows=8, shape=RowShape(40, 12))
    return lower_step(program, run, variables, batch, mesh)


def test_a_plan_is_the_step_that_runs(micro):
    """Memory of the arguments: variables, two moments of what is trained, the batch."""
    plan = lowered(micro.config, make_mesh()).compile().memory_analysis()
    sizes = {path: x.size for path, x in flatten_dict(param_shapes(micro.config), sep="/").items()}
    frozen = [n for path, n in sizes.items() if path.startswith("vision_tower/")]
    frozen += [n for path, n in sizes.items() if "embed_tokens" in path]
    trained = sum(sizes.values()) - sum(frozen)
    pixels = 8 * 3 * micro.config.vision.image_size**2
    channels = 8 * 3 * 2  # by which pixels, a byte each, are normalised
    packed = 8 * 3 * (40 + 12) + 8 * 5
    expected = 4 * (sum(sizes.values()) + 2 * trained + channels + packed) + pixels
    assert plan.argument_size_in_bytes == pytest.approx(expected, rel=0.02)
    assert plan.alias_size_in_bytes >= 4 * 3 * trained, "the state is updated in place"


MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)]
PROGRAM = """
import json, sys
from pathlib import Path
here = Path(sys.argv[1])  # the tests, what they share, and what they test
sys.path[:0] = map(str, [here, here.parent, here.parents[1] / "tpu"])
from test_lowering import MESHES, distinct, lowered
from inbol_jax.models.families import load_config
from inbol_jax.models.config import LoraConfig
from inbol_jax.sharding import make_mesh
config = distinct(load_config(Path(sys.argv[2])))
for sizes in MESHES:
    print(json.dumps(lowered(config, make_mesh(*sizes)).compile().as_text()))
print(json.dumps(lowered(config, make_mesh(1, 8, 1), scanned=True).compile().as_text()))
"""


@pytest.fixture(scope="module")
def programs(micro):
    """The compiled CA-DPO step of a whole model on each mesh of eight virtual devices, and with its
    layers scanned on that of fsdp alone."""
    here = os.path.dirname(__file__)
    done = run_on_devices(PROGRAM, here, micro.path, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    assert "Involuntary full rematerialization" not in done.stderr
    names = (*MESHES, "scanned")
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_no_parameter_is_gathered_that_should_stay_split(micro, programs, mesh):
    """fsdp gathers a matrix for each use, forward and backward; along tensor, or where nothing is
    split, none is gathered.
    """
    sizes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    gathered = Counter(c.shape for c in collectives(programs[mesh]) if c.operation == "all-gather")
    allowed, whole = Counter(), {}
    for path, leaf in flatten_dict(param_shapes(distinct(micro.config)), sep="/").items():
        axes = [RULES[axis] for axis in table_row(path).axes]
        if len(leaf.shape) < 2:
            continue
        split = tuple(
            n // (sizes["tensor"] if axis == "tensor" else 1)
            for axis, n in zip(axes, leaf.shape, strict=True)
        )
        whole[path] = leaf.shape, split
        if "fsdp" in axes and mesh[1] > 1:
            allowed[split] += 2
    for path, (shape, split) in whole.items():
        if split != shape and shape not in allowed:
            assert not gathered[shape], f"{path} is put together on {mesh}"
        count = gathered[split]
        assert count <= allowed[split], f"{path} is gathered {count} times on {mesh}"
    if mesh[1] > 1:  # the test sees what fsdp gathers
        assert any(gathered[split] for _, split in whole.values())


@pytest.mark.slow
def test_scanned_layers_are_gathered_and_reduced_one_by_one(micro, programs):
    """No exchange has all layers of a kernel; each layer's is gathered forward and backward, in the
    loop, and its gradient is summed over the devices there.
    """
    config = distinct(micro.config)
    layers = config.text.num_layers
    gathered, summed = Counter(), Counter()  # of gradients by size: some are transposed
    for c in collectives(programs["scanned"]):
        if c.operation == "all-gather":
            gathered[c.shape[1:] if c.shape[:1] == (1,) else c.shape] += c.count
        elif c.operation in ("all-reduce", "reduce-scatter"):
            summed[math.prod(c.shape)] += c.count
    kernels, sizes = Counter(), Counter()
    for path, leaf in flatten_dict(param_shapes(config), sep="/").items():
        if "language_model/layers_0/" in path and path.endswith("/kernel"):
            kernels[leaf.shape] += 1
            sizes[leaf.size] += 1
    for shape, count in kernels.items():
        assert not gathered[layers, *shape], f"all {layers} layers of {shape} at a time"
        assert layers * count <= gathered[shape] <= 2 * layers * count, shape
    for size, count in sizes.items():
        assert summed[size] + summed[size // 8] >= layers * count, size
        assert not summed[layers * size], "all layers at a time"
