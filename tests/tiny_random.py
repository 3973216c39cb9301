"""Random weights for a config."""

import json

import jax

from inbol_jax.models.config import load_config
from inbol_jax.models.loading import init_params
from inbol_jax.models.writing import save_params


def write_random(folder, config):
    """Writes config.json and random weights that fit it. Returns the folder."""
    (folder / "config.json").write_text(json.dumps(config))
    init = jax.jit(init_params, static_argnums=0)
    save_params(folder, init(load_config(folder), jax.random.key(0)))
    return folder
