"""Checkpoint folders in Hugging Face layout: load one, save a trained one beside its processor."""

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LlavaConfig, load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.weights import load_params, save_params

TINY = Path(__file__).parent.parent / "world/assets/tiny-llava"  # the checkpoint that ships with the package


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
      model: the Linen module; `model.apply` with its methods is what sampling and training call.
      variables: {"params": nested dict of arrays}.
      config: what was read of config.json.
      path: the folder that it came from.
    """

    model: Llava
    variables: Mapping[str, Any]
    config: LlavaConfig
    path: Path

    def apply(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        """Logits f32[b, t, V] of a processor's batch (see `models.llava`)."""
        return self.model.apply(variables, batch)

    @functools.cached_property
    def processor(self) -> Any:
        """The checkpoint's own processor, by transformers; it does not need torch."""
        from transformers import AutoProcessor  # seconds to import, and not every caller needs it

        try:
            return AutoProcessor.from_pretrained(self.path, local_files_only=True, trust_remote_code=False, backend="pil")
        except (OSError, ValueError, KeyError) as error:
            raise InbolError(f"{self.path}: the processor cannot be loaded ({str(error).splitlines()[0]})") from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of weights, config, tokenizer and template: two checkpoints that could answer differently have different ones."""
        return file_fingerprint(*sorted(p for p in self.path.iterdir() if p.suffix in {".safetensors", ".json", ".jinja"}))


def param_shapes(config: LlavaConfig) -> Mapping[str, Any]:
    """The tree of parameters as shapes, without making any. f32 leaves."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def init_params(config: LlavaConfig, key: jax.Array) -> Mapping[str, Any]:
    """Random parameters, for training from scratch. f32 leaves."""
    c = config.vision
    ids = np.full((1, config.num_image_tokens + 1), config.image_token_id, np.int32)
    ids[:, -1] = 0
    batch = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "pixel_values": np.zeros((1, 3, c.image_size, c.image_size), np.float32),
    }
    return Llava(config).init(key, batch)["params"]


def load_pretrained(path: str | Path, *, dtype: Any = jnp.float32) -> Loaded:
    """Loads a LLaVA checkpoint folder.

    Args:
      dtype: of the parameters and of the computation.
    Raises:
      InbolError: naming the file and the cause, when the folder is not a checkpoint that the port can run.
    """
    path = Path(path)
    config = load_config(path)
    params = load_params(path, param_shapes(config))
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    return Loaded(Llava(config, dtype), {"params": params}, config, path)


def save_pretrained(loaded: Loaded, params: Mapping[str, Any], path: Path) -> None:
    """Saves `params` as a checkpoint folder: config, tokenizer, processor and template are copied from where the model came from."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        for source in loaded.path.iterdir():
            if source.suffix in {".json", ".jinja"} and not source.name.endswith(".safetensors.index.json"):
                shutil.copyfile(source, path / source.name)
        save_params(path, params)
    except OSError as error:
        raise InbolError(f"cannot write the checkpoint {path}: {error.strerror}") from error
