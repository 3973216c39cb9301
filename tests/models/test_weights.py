"""The weight table: every parameter and every key in exactly one row."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file
from torch_reference import RANDOM, random_torch

from inbol_jax.errors import InbolError
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.weights import TABLE, canonical_key, module_name, path_pattern, table_row


def paths_of(config):
    return flatten_dict(dict(param_shapes(config)), sep="/")


def test_the_table_is_a_bijection(random_pair, tiny):
    _, folder = random_pair
    for config in (load_config(folder), tiny.config):
        paths = paths_of(config)
        assert len({table_row(path).key for path in paths}) == len(paths)
    rows = {table_row(path).key for path in paths_of(load_config(folder))}
    assert {canonical_key(key, rows) for key in load_file(folder / "model.safetensors")} == rows


def test_no_row_of_the_table_is_idle(tmp_path):
    used = set()
    for case in RANDOM:
        random_torch(case).save_pretrained(tmp_path)
        paths = paths_of(load_config(tmp_path))
        used |= {
            row.path for row in TABLE for path in paths if path_pattern(row.path).fullmatch(path)
        }
    assert used == {row.path for row in TABLE}


def test_orders_undo_each_other():
    for row in TABLE:
        x = np.random.default_rng(0).normal(size=(5, 3, 2, 4, 6)[: len(row.order)])
        np.testing.assert_array_equal(row.to_hf(row.from_hf(x)), x)


def test_modules_have_transformers_own_names(random_pair):
    model, folder = random_pair
    names = {name for name, _ in model.named_modules()}
    assert {module_name(path) for path in paths_of(load_config(folder))} <= names


def test_a_path_outside_the_table_is_named():
    with pytest.raises(InbolError, match="language_model/adapter/scale matches 0 rows"):
        table_row("language_model/adapter/scale")
