"""The weight table: Hugging Face keys, our parameter paths, and the logical axes of each parameter.

Loading, saving, sharding and PEFT's names all read this one table. Every parameter of the model
must match exactly one row, and every key of a checkpoint exactly one parameter. A family's file
adds its rows when it is imported; families give their parts different paths, or share rows.
"""

import functools
import re
from collections.abc import Container
from typing import NamedTuple

import numpy as np

from inbol_jax.errors import InbolError


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


TABLE: dict[str, WeightRow] = {}
"""The rows of the families that have been imported, by their paths."""


def add_rows(*rows: WeightRow) -> None:
    """Adds rows to the table; those that another family has added already must be the same."""
    for row in rows:
        if TABLE.setdefault(row.path, row) != row:
            raise ValueError(f"{row.path} has two rows in the weight table")


def array(key: str, path: str, axes: str, order: tuple[int, ...] | None = None) -> WeightRow:
    """A parameter; `axes` are the names of its axes, `order` is by default theirs."""
    names = tuple(axes.split())
    return WeightRow(key, path, names, order or tuple(range(len(names))))


def matrix(key: str, path: str, axes: str) -> WeightRow:
    """A kernel, which torch has as [out, in]."""
    return array(key, path, axes, order=(1, 0))


def dense(key: str, path: str, axes: str) -> tuple[WeightRow, ...]:
    """Kernel and bias. `axes` names those of input and output."""
    out = axes.split()[1]
    # A bias along the residual stream is a small vector, which is needed whole.
    bias = array(f"{key}.bias", f"{path}/bias", "norm" if out == "embed" else out)
    return matrix(f"{key}.weight", f"{path}/kernel", axes), bias


def layer_norm(key: str, path: str) -> tuple[WeightRow, ...]:
    """Scale and bias."""
    scale = array(f"{key}.weight", f"{path}/scale", "norm")
    return scale, array(f"{key}.bias", f"{path}/bias", "norm")


def patches(key: str) -> tuple[WeightRow, ...]:
    """The embedding of patches, which torch has as the kernel [out, in, height, width]."""
    # Theirs [out, in, height, width], ours [height, width, in, out].
    axes, order = "patch patch patch norm", (2, 3, 1, 0)
    kernel = array(f"{key}.weight", "patch_embedding", axes, order)
    return kernel, array(f"{key}.bias", "patch_bias", "norm")


def below(key: str, path: str, *rows: WeightRow) -> tuple[WeightRow, ...]:
    """The rows of a part whose keys and paths begin so."""
    return tuple(row._replace(key=key + row.key, path=path + row.path) for row in rows)


def tower(key: str, path: str) -> tuple[WeightRow, ...]:
    """What all towers have: patches, positions, layers, and the norm behind them."""
    layers = (
        *layer_norm("layer_norm{n}", "layer_norm{n}"),
        *dense("self_attn.{m}_proj", "{m:[qkv]}_proj", "embed heads"),
        *dense("self_attn.out_proj", "out_proj", "heads embed"),
        *dense("mlp.fc1", "fc1", "embed mlp"),
        *dense("mlp.fc2", "fc2", "mlp embed"),
    )
    embeddings = (
        *patches("patch_embedding"),
        array("position_embedding.weight", "position_embedding", "position norm"),
    )
    return (
        *below(f"{key}embeddings.", f"{path}embeddings/", *embeddings),
        *below(f"{key}encoder.layers.{{i}}.", f"{path}layers_{{i}}/", *layers),
        *layer_norm(f"{key}post_layernorm", f"{path}post_layernorm"),
    )


def decoder(key: str, path: str, head: str, *, mlp_bias: bool = True) -> tuple[WeightRow, ...]:
    """A decoder whose keys begin with `key`, and its head with the key `head`."""
    mlp = (
        *dense("mlp.{m}_proj", "mlp/{m:gate|up}_proj", "embed mlp"),
        *dense("mlp.down_proj", "mlp/down_proj", "mlp embed"),
    )
    layers = (
        array("{m}_layernorm.weight", "{m}_layernorm/scale", "norm"),
        *dense("self_attn.{m}_proj", "self_attn/{m:[qkv]}_proj", "embed heads"),
        *dense("self_attn.o_proj", "self_attn/o_proj", "heads embed"),
        array("self_attn.{m}_norm.weight", "self_attn/{m:[qk]}_norm/scale", "norm"),
        *(row for row in mlp if mlp_bias or not row.path.endswith("/bias")),
    )
    return (
        *below(f"{key}layers.{{i}}.", f"{path}layers_{{i}}/", *layers),
        array(f"{key}embed_tokens.weight", f"{path}embed_tokens/embedding", "vocab embed"),
        array(f"{key}norm.weight", f"{path}norm/scale", "norm"),
        matrix(head, f"{path}lm_head", "embed vocab"),
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
    matches = [(row, m) for row in TABLE.values() if (m := path_pattern(row.path).fullmatch(path))]
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
