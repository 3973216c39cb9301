"""Weights between Hugging Face's layout and ours: one table, read in both directions.

A row is (our path, their key, transform). `{name}` stands for one path component and is carried over. Every leaf of the model
must match one row and every key of the checkpoint one leaf: an unmapped, missing or doubly mapped key raises with its name.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inbol_jax.artifacts import write_atomically
from inbol_jax.errors import InbolError


class Transform(NamedTuple):
    """`load` takes their array to ours, `save` back."""

    load: Callable[[np.ndarray], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]


SAME = Transform(lambda x: x, lambda x: x)
LINEAR = Transform(np.transpose, np.transpose)  # torch keeps [out, in]
PATCHES = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # [out, in, y, x] and [y, x, in, out]

_VISION, _TEXT = "vision_tower.vision_model", "language_model.model"
TABLE: tuple[tuple[str, str, Transform], ...] = (
    ("vision_tower/embeddings/patch_embedding", f"{_VISION}.embeddings.patch_embedding.weight", PATCHES),
    ("vision_tower/embeddings/class_embedding", f"{_VISION}.embeddings.class_embedding", SAME),
    ("vision_tower/embeddings/position_embedding", f"{_VISION}.embeddings.position_embedding.weight", SAME),
    ("vision_tower/pre_layernorm/scale", f"{_VISION}.pre_layrnorm.weight", SAME),  # the typo is theirs
    ("vision_tower/pre_layernorm/bias", f"{_VISION}.pre_layrnorm.bias", SAME),
    ("vision_tower/post_layernorm/scale", f"{_VISION}.post_layernorm.weight", SAME),
    ("vision_tower/post_layernorm/bias", f"{_VISION}.post_layernorm.bias", SAME),
    ("vision_tower/layers_{i}/layer_norm{n}/scale", f"{_VISION}.encoder.layers.{{i}}.layer_norm{{n}}.weight", SAME),
    ("vision_tower/layers_{i}/layer_norm{n}/bias", f"{_VISION}.encoder.layers.{{i}}.layer_norm{{n}}.bias", SAME),
    ("vision_tower/layers_{i}/fc{n}/kernel", f"{_VISION}.encoder.layers.{{i}}.mlp.fc{{n}}.weight", LINEAR),
    ("vision_tower/layers_{i}/fc{n}/bias", f"{_VISION}.encoder.layers.{{i}}.mlp.fc{{n}}.bias", SAME),
    ("vision_tower/layers_{i}/{m}_proj/kernel", f"{_VISION}.encoder.layers.{{i}}.self_attn.{{m}}_proj.weight", LINEAR),
    ("vision_tower/layers_{i}/{m}_proj/bias", f"{_VISION}.encoder.layers.{{i}}.self_attn.{{m}}_proj.bias", SAME),
    ("multi_modal_projector/linear_{n}/kernel", "multi_modal_projector.linear_{n}.weight", LINEAR),
    ("multi_modal_projector/linear_{n}/bias", "multi_modal_projector.linear_{n}.bias", SAME),
    ("language_model/embed_tokens/embedding", f"{_TEXT}.embed_tokens.weight", SAME),
    ("language_model/layers_{i}/{m}_layernorm/scale", f"{_TEXT}.layers.{{i}}.{{m}}_layernorm.weight", SAME),
    ("language_model/layers_{i}/self_attn/{m}_proj/kernel", f"{_TEXT}.layers.{{i}}.self_attn.{{m}}_proj.weight", LINEAR),
    ("language_model/layers_{i}/mlp/{m}_proj/kernel", f"{_TEXT}.layers.{{i}}.mlp.{{m}}_proj.weight", LINEAR),
    ("language_model/norm/scale", f"{_TEXT}.norm.weight", SAME),
    ("language_model/lm_head", "language_model.lm_head.weight", LINEAR),
)

# Other spellings of the same keys: inside transformers' modules, and from its version 5.
_ALIASES = (
    (re.compile(r"^model\.(?=vision_tower|multi_modal_projector|language_model)"), ""),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^language_model\.(?!model\.|lm_head\.)"), "language_model.model."),
    (re.compile(r"^vision_tower\.(?!vision_model\.)"), "vision_tower.vision_model."),
)
# Buffers that old versions saved beside the weights.
IGNORED = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")


def hf_key(path: str) -> tuple[str, Transform]:
    """Their key of our path, from the table.

    Raises:
      InbolError: when no row or more than one matches.
    """
    found = [(theirs.format(**m.groupdict()), t) for ours, theirs, t in TABLE if (m := _pattern(ours).fullmatch(path))]
    if len(found) != 1:
        raise InbolError(f"parameter {path} matches {len(found)} rows of the weight table")
    return found[0]


def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+?)", re.escape(ours)))


def load_params(folder: Path, shapes: Mapping) -> dict:
    """Reads model.safetensors into the tree of `shapes` (what `jax.eval_shape` of the model's init gives).

    Returns: nested dict of np.ndarray in the file's own dtype.
    Raises:
      InbolError: file missing, truncated or of another format; a key that is missing or unknown; a shape that disagrees.
    """
    file = folder / "model.safetensors"
    if not file.is_file() and (folder / f"{file.name}.index.json").is_file():
        raise InbolError(f"{folder}: its weights are split over several files, which is not supported yet; save them as one {file.name}")
    if not file.is_file():
        raise InbolError(f"{file} is missing: the folder holds no safetensors weights")
    wanted = {path: (*hf_key(path), leaf.shape) for path, leaf in flatten_dict(dict(shapes), sep="/").items()}
    params = {}
    try:
        with safe_open(file, framework="np") as tensors:
            stored = {}
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                name = key
                for pattern, replacement in _ALIASES:
                    name = pattern.sub(replacement, name)
                if name in stored:
                    raise InbolError(f"{file}: {key} and {stored[name]} are the same parameter")
                if not IGNORED.search(name):
                    stored[name] = key
            missing, unknown = (
                {key for key, _, _ in wanted.values()} - stored.keys(),
                stored.keys() - {key for key, _, _ in wanted.values()},
            )
            if missing or unknown:
                raise InbolError(f"{file}: {len(missing)} keys missing {sorted(missing)[:3]}, {len(unknown)} unknown {sorted(unknown)[:3]}")
            for path, (key, transform, shape) in wanted.items():
                theirs = tuple(tensors.get_slice(stored[key]).get_shape())
                expected = transform.save(np.empty(shape, np.bool_)).shape
                if theirs != expected:
                    raise InbolError(f"{file}: {stored[key]} has shape {theirs}, config.json says {expected}")
                params[path] = np.ascontiguousarray(transform.load(tensors.get_tensor(stored[key])))
    except (SafetensorError, OSError) as error:
        raise InbolError(f"{file}: not a readable safetensors file ({error}); copy or download it again") from error
    return unflatten_dict(params, sep="/")


def save_params(folder: Path, params: Mapping) -> None:
    """Writes model.safetensors in Hugging Face's layout, whole or not at all."""
    tensors = {}
    for path, value in flatten_dict(dict(params), sep="/").items():
        key, transform = hf_key(path)
        tensors[key] = np.ascontiguousarray(transform.save(np.asarray(jax.device_get(value))))
    temporary = folder / ".model.safetensors.partial"
    save_file(tensors, temporary, metadata={"format": "pt"})
    write_atomically(folder / "model.safetensors", temporary.read_bytes())
    temporary.unlink()
