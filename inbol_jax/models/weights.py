"""The weight table: Hugging Face keys, our parameter paths, and the logical axes of each parameter.

Loading, saving, sharding and PEFT's names all read this one table. Every parameter of the model
must match exactly one row, and every key of a checkpoint exactly one parameter.
"""

import functools
import re
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from inbol_jax.errors import InbolError
from inbol_jax.sharding import parameter_sharding


class WeightRow(NamedTuple):
    """One row of the table."""

    key: str
    """Key of the tensor in the checkpoint; the path fills in placeholders such as `{i}`."""
    path: str
    """Path of our parameter. `{name}` or `{name:regex}` matches one varying part of it."""
    axes: tuple[str, ...]
    """Logical names of our axes, which `sharding.RULES` maps to mesh axes."""
    order: tuple[int, ...]
    """Our axis i is the checkpoint's axis order[i]: torch keeps dense kernels as [out, in]."""

    def from_hf(self, x: np.ndarray) -> np.ndarray:
        """Returns the checkpoint's array in our layout."""
        return x.transpose(self.order)

    def to_hf(self, x: np.ndarray) -> np.ndarray:
        """Returns our array in the checkpoint's layout."""
        return x.transpose(self.hf_order)

    @property
    def hf_order(self) -> tuple[int, ...]:
        """The inverse of `order`: the checkpoint's axis j is our axis hf_order[j]."""
        # order (2, 3, 1, 0) has the inverse (3, 2, 0, 1).
        return tuple(np.argsort(self.order).tolist())


def _array(key: str, path: str, axes: str, order: tuple[int, ...] | None = None) -> WeightRow:
    names = tuple(axes.split())
    return WeightRow(key, path, names, order or tuple(range(len(names))))


def _matrix(key: str, path: str, axes: str) -> WeightRow:
    return _array(key, path, axes, order=(1, 0))


def _dense(key: str, path: str, axes: str) -> tuple[WeightRow, ...]:
    """Kernel and bias. `axes` names those of input and output."""
    out = axes.split()[1]
    # A bias along the residual stream is a small vector, which is needed whole.
    bias = _array(f"{key}.bias", f"{path}/bias", "norm" if out == "embed" else out)
    return _matrix(f"{key}.weight", f"{path}/kernel", axes), bias


def _layer_norm(key: str, path: str) -> tuple[WeightRow, ...]:
    scale = _array(f"{key}.weight", f"{path}/scale", "norm")
    return scale, _array(f"{key}.bias", f"{path}/bias", "norm")


def _patches(key: str) -> tuple[WeightRow, ...]:
    """The embedding of patches, which torch has as the kernel [out, in, height, width]."""
    # Theirs [out, in, height, width], ours [height, width, in, out].
    axes, order = "patch patch patch norm", (2, 3, 1, 0)
    kernel = _array(f"{key}.weight", "patch_embedding", axes, order)
    return kernel, _array(f"{key}.bias", "patch_bias", "norm")


def _below(key: str, path: str, *rows: WeightRow) -> tuple[WeightRow, ...]:
    return tuple(row._replace(key=key + row.key, path=path + row.path) for row in rows)


def _tower(key: str, path: str) -> tuple[WeightRow, ...]:
    """What all towers have: patches, positions, layers, and the norm behind them."""
    layers = (
        *_layer_norm("layer_norm{n}", "layer_norm{n}"),
        *_dense("self_attn.{m}_proj", "{m:[qkv]}_proj", "embed heads"),
        *_dense("self_attn.out_proj", "out_proj", "heads embed"),
        *_dense("mlp.fc1", "fc1", "embed mlp"),
        *_dense("mlp.fc2", "fc2", "mlp embed"),
    )
    embeddings = (
        *_patches("patch_embedding"),
        _array("position_embedding.weight", "position_embedding", "position norm"),
    )
    return (
        *_below(f"{key}embeddings.", f"{path}embeddings/", *embeddings),
        *_below(f"{key}encoder.layers.{{i}}.", f"{path}layers_{{i}}/", *layers),
        *_layer_norm(f"{key}post_layernorm", f"{path}post_layernorm"),
    )


def _decoder(key: str, path: str, head: str, *, mlp_bias: bool = True) -> tuple[WeightRow, ...]:
    """A decoder whose keys begin with `key`, and its head with the key `head`."""
    mlp = (
        *_dense("mlp.{m}_proj", "mlp/{m:gate|up}_proj", "embed mlp"),
        *_dense("mlp.down_proj", "mlp/down_proj", "mlp embed"),
    )
    layers = (
        _array("{m}_layernorm.weight", "{m}_layernorm/scale", "norm"),
        *_dense("self_attn.{m}_proj", "self_attn/{m:[qkv]}_proj", "embed heads"),
        *_dense("self_attn.o_proj", "self_attn/o_proj", "heads embed"),
        _array("self_attn.{m}_norm.weight", "self_attn/{m:[qk]}_norm/scale", "norm"),
        *(row for row in mlp if mlp_bias or not row.path.endswith("/bias")),
    )
    return (
        *_below(f"{key}layers.{{i}}.", f"{path}layers_{{i}}/", *layers),
        _array(f"{key}embed_tokens.weight", f"{path}embed_tokens/embedding", "vocab embed"),
        _array(f"{key}norm.weight", f"{path}norm/scale", "norm"),
        _matrix(head, f"{path}lm_head", "embed vocab"),
    )


def _merger(key: str, path: str) -> tuple[WeightRow, ...]:
    """Qwen3-VL's patches of a square into one feature."""
    return (
        *_layer_norm(f"{key}norm", f"{path}norm"),
        *_dense(f"{key}linear_fc1", f"{path}linear_fc1", "embed mlp"),
        *_dense(f"{key}linear_fc2", f"{path}linear_fc2", "mlp embed"),
    )


# Families give their parts different paths, so that one table serves all.
TABLE: tuple[WeightRow, ...] = (
    # LLaVA
    *_tower("vision_tower.vision_model.", "vision_tower/"),
    *_below(
        "vision_tower.vision_model.",
        "vision_tower/",
        _array("embeddings.class_embedding", "embeddings/class_embedding", "norm"),
        *_layer_norm("pre_layrnorm", "pre_layernorm"),  # the checkpoints' spelling
    ),
    *_below(
        "vision_tower.vision_model.head.",
        "vision_tower/head/",
        _array("probe", "probe", "position position norm"),
        _matrix("attention.in_proj_weight", "in_proj_kernel", "embed heads"),
        _array("attention.in_proj_bias", "in_proj_bias", "heads"),
        _matrix("attention.out_proj.weight", "out_proj_kernel", "heads embed"),
        _array("attention.out_proj.bias", "out_proj_bias", "norm"),
        _array("layernorm.weight", "layernorm_scale", "norm"),
        _array("layernorm.bias", "layernorm_bias", "norm"),
        _matrix("mlp.{m}.weight", "{m:fc[12]}_kernel", "embed mlp"),
        _array("mlp.{m}.bias", "{m:fc[12]}_bias", "norm"),
    ),
    *_below(
        "multi_modal_projector.",
        "multi_modal_projector/",
        *_dense("linear_1", "linear_1", "embed mlp"),
        *_dense("linear_2", "linear_2", "mlp embed"),
    ),
    *_decoder("language_model.model.", "language_model/", "language_model.lm_head.weight"),
    # LLaVA-NeXT and LLaVA-OneVision, which are LLaVA's besides
    _array("image_newline", "image_newline", "norm"),
    # InternVL; projector and decoder besides are LLaVA's
    *_below(
        "vision_tower.",
        "vision_tower/",
        _array("embeddings.cls_token", "cls_token", "norm norm norm"),
        _array("embeddings.position_embeddings", "position_embeddings", "norm position norm"),
        *_patches("embeddings.patch_embeddings.projection"),
    ),
    *_below(
        "vision_tower.encoder.layer.{i}.",
        "vision_tower/layer_{i}/",
        *_layer_norm("layernorm_before", "layer_norm1"),
        *_layer_norm("layernorm_after", "layer_norm2"),
        *_dense("attention.{m}_proj", "{m:[qkv]}_proj", "embed heads"),
        _array("attention.{m}_norm.weight", "{m:[qk]}_norm/scale", "heads"),
        *_dense("attention.projection_layer", "out_proj", "heads embed"),
        *_dense("mlp.fc1", "fc1", "embed mlp"),
        *_dense("mlp.fc2", "fc2", "mlp embed"),
        _array("lambda_{n}", "lambda_{n}", "norm"),
    ),
    *_layer_norm("multi_modal_projector.layer_norm", "multi_modal_projector/layer_norm"),
    # Gemma 3; tower and decoder are LLaVA's
    _array(
        "multi_modal_projector.mm_input_projection_weight",
        "multi_modal_projector/mm_input_projection_weight",
        "embed mlp",
    ),
    _array(
        "multi_modal_projector.mm_soft_emb_norm.weight",
        "multi_modal_projector/mm_soft_emb_norm/scale",
        "norm",
    ),
    # Idefics3, SmolVLM, SmolVLM2
    *_tower("model.vision_model.", "vision_model/"),
    _matrix(
        "model.connector.modality_projection.proj.weight", "connector/proj/kernel", "mlp embed"
    ),
    *_decoder("model.text_model.", "text_model/", "lm_head.weight"),
    # Qwen3-VL
    *_below(
        "model.visual.",
        "vision_tower/",
        _array(
            "patch_embed.proj.weight",
            "patch_projection",
            "patch patch patch patch norm",
            (1, 2, 3, 4, 0),
        ),
        _array("patch_embed.proj.bias", "patch_projection_bias", "norm"),
        _array("pos_embed.weight", "position_embedding", "position norm"),
    ),
    *_below(
        "model.visual.blocks.{i}.",
        "vision_tower/blocks_{i}/",
        *_layer_norm("norm{n}", "norm{n}"),
        *_dense("attn.qkv", "qkv", "embed heads"),
        *_dense("attn.proj", "proj", "heads embed"),
        *_dense("mlp.linear_fc1", "linear_fc1", "embed mlp"),
        *_dense("mlp.linear_fc2", "linear_fc2", "mlp embed"),
    ),
    *_merger("model.visual.merger.", "merger/"),
    # Qwen2.5-VL, which is Qwen3-VL's besides
    *_below(
        "model.visual.blocks.{i}.mlp.",
        "vision_tower/blocks_{i}/",
        *_dense("{m}_proj", "{m:gate|up}_proj", "embed mlp"),
        *_dense("down_proj", "down_proj", "mlp embed"),
    ),
    _array("model.visual.merger.ln_q.weight", "merger/ln_q/scale", "norm"),
    *_dense("model.visual.merger.mlp.0", "merger/mlp_0", "embed mlp"),
    *_dense("model.visual.merger.mlp.2", "merger/mlp_2", "mlp embed"),
    # Qwen3-VL
    *_merger("model.visual.deepstack_merger_list.{i}.", "deepstack_merger_{i}/"),
    *_decoder("model.language_model.", "language_decoder/", "lm_head.weight", mlp_bias=False),
)

# Other spellings of LLaVA's and InternVL's keys: those of transformers' modules, and of version 5;
# and those of Qwen2.5-VL's checkpoints on the hub.
_ALIASES = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?=layers|embed_tokens|norm)"), "model.language_model."),
    (
        re.compile(r"^model\.(?=vision_tower|multi_modal_projector|language_model|image_newline)"),
        "",
    ),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^language_model\.(?!model\.|lm_head\.)"), "language_model.model."),
    (re.compile(r"^vision_tower\.(?!vision_model\.)"), "vision_tower.vision_model."),
)


def canonical_key(key: str, rows: Container[str]) -> str:
    """Returns a checkpoint's key in the spelling of the table; a model's own `rows` keep theirs."""
    # Each spelling that is found may lead to the next: all are tried in this order.
    for pattern, replacement in _ALIASES:
        if key in rows:
            break
        key = pattern.sub(replacement, key)
    return key


@functools.cache
def path_pattern(path: str) -> re.Pattern[str]:
    """Compiles the path of a row: each placeholder becomes a named group."""
    # [text, name, regex, text, name, regex, ..., text]
    text, *rest = re.split(r"\{(\w+)(?::([^}]+))?\}", path)
    # "layers_{i}/{m:[qkv]}_proj/bias" -> layers_(?P<i>[^/]+?)/(?P<m>[qkv])_proj/bias
    pattern = re.escape(text)
    for name, regex, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        pattern += f"(?P<{name}>{regex or '[^/]+?'}){re.escape(text)}"
    return re.compile(pattern)


def table_row(path: str) -> WeightRow:
    """Returns the row of a parameter, filled in. Raises InbolError unless exactly one matches."""
    matches = [(row, m) for row in TABLE if (m := path_pattern(row.path).fullmatch(path))]
    if len(matches) != 1:
        raise InbolError(f"parameter {path} matches {len(matches)} rows of the weight table")
    row, match = matches[0]
    return row._replace(path=path, key=row.key.format(**match.groupdict()))


def module_key(key: str) -> str:
    """Returns a key of the table in the spelling of transformers 5's modules, and so of PEFT."""
    if key.startswith(("model.", "lm_head.")):
        return key
    if key.startswith("language_model.lm_head."):
        return key.removeprefix("language_model.")
    key = key.replace("vision_tower.vision_model", "vision_tower")
    return "model." + key.replace("language_model.model", "language_model")


def module_name(path: str) -> str:
    """Returns the name of the module that holds a parameter, in that spelling."""
    return module_key(table_row(path).key).rpartition(".")[0]


def param_shardings(shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Returns the sharding of every leaf, which may be an array or a `jax.ShapeDtypeStruct`.

    Values and scales of a quantised kernel have the axes of the kernel.
    """
    shardings = {}
    for path, parameter in flatten_dict(shapes, sep="/").items():
        # One leaf, or two for a quantised kernel.
        shard = functools.partial(parameter_sharding, mesh, table_row(path).axes)
        shardings[path] = jax.tree.map(lambda x, shard=shard: shard(x.shape), parameter)
    return unflatten_dict(shardings, sep="/")
