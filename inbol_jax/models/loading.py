"""Checkpoints in Hugging Face layout: load one, with its adapters if any; save one beside its processor."""

import dataclasses
import functools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import file_fingerprint, fingerprint, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models import peft
from inbol_jax.models.config import LlavaConfig, load_config, read_json
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import merge_lora
from inbol_jax.models.weights import load_params, save_params
from inbol_jax.processes import is_main, wait_for_all

_FILES = (
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
)  # config, tokenizer, processor and template of a checkpoint


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
      model: the Linen module; `model.apply` with its methods is what sampling and training call.
      variables: {"params": nested dict of arrays}, and {"lora": ...} where there are adapters.
      config: what was read of config.json.
      path: the folder that it came from.
      adapters: the folder of its adapters.
      hub_id: of the model (without its adapters), where it was loaded by that.
    """

    model: Llava
    variables: Mapping[str, Any]
    config: LlavaConfig
    path: Path
    adapters: Path | None = None
    hub_id: str | None = None

    def apply(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        """Logits f32[b, t, V] of a processor's batch (see `models.llava`).

        Raises:
          InbolError: when the batch holds more or fewer images than its image tokens need.
        """
        ids, pixels = batch["input_ids"], batch.get("pixel_values")
        if not isinstance(ids, jax.core.Tracer) and (pixels is None or pixels.ndim == 4):
            tokens, images = (
                int((np.asarray(ids) == self.config.image_token_id).sum()),
                0 if pixels is None else len(pixels),
            )
            if tokens != images * self.config.num_image_tokens:
                raise InbolError(
                    f"{tokens} image tokens in the batch, but its {images} images have {self.config.num_image_tokens} each"
                )
        return self.model.apply(
            variables, {name: value for name, value in batch.items() if value is not None}
        )

    @functools.cached_property
    def processor(self) -> Any:
        """The checkpoint's own processor, by transformers; it does not need torch."""
        from transformers import AutoProcessor  # seconds to import, and not every caller needs it

        try:
            return AutoProcessor.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError, KeyError) as error:
            raise InbolError(
                f"{self.path}: the processor cannot be loaded ({str(error).splitlines()[0]})"
            ) from error

    @functools.cached_property
    def base_fingerprint(self) -> str:
        """Of weights, config, tokenizer and template, without adapters."""
        return file_fingerprint(
            *sorted(
                p for p in self.path.iterdir() if p.suffix in {".safetensors", ".json", ".jinja"}
            )
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Two checkpoints that could answer differently have different ones."""
        if self.adapters is None:
            return self.base_fingerprint
        return fingerprint(
            [
                self.base_fingerprint,
                file_fingerprint(self.adapters / peft.CONFIG, self.adapters / peft.WEIGHTS),
            ]
        )


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


def find_checkpoint(path_or_id: str | Path) -> Path:
    """The local folder of a checkpoint; one that is named by its hub id is downloaded, without anything that could be code.

    Raises:
      InbolError: when there is neither.
    """
    path, name = Path(path_or_id), str(path_or_id)
    if path.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*_FILES, "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InbolError(
            f"{name} is no folder here, and as a model id of the Hugging Face hub it cannot be loaded ({reason})"
        ) from error


def load_pretrained(
    path_or_id: str | Path,
    *,
    dtype: Any = jnp.bfloat16,
    mesh: Mesh | None = None,
    adapters: str | Path | None = None,
) -> Checkpoint:
    """Loads a LLaVA checkpoint.

    Args:
      path_or_id: a folder in Hugging Face layout, or a hub id. A folder that holds an adapter alone is loaded with the base that it names.
      dtype: of the parameters and of the computation; "auto" for float32 where the file says float32, bfloat16 elsewhere.
      mesh: devices that the parameters are split over (`sharding.make_mesh`); by default all on the first.
      adapters: folder or hub id of a LoRA in PEFT's format. Its leaves are f32 whatever `dtype` is.
    Raises:
      InbolError: naming the file and the cause, when it is no checkpoint that the port can run.
    """
    name, path = str(path_or_id), find_checkpoint(path_or_id)
    if adapters is None and peft.is_adapter(path):
        name, adapters = peft.base_of(path), path
        path = find_checkpoint(name)
    config = load_config(path)
    if isinstance(dtype, str) and dtype == "auto":
        dtype = jnp.float32 if config.stored_dtype == "float32" else jnp.bfloat16
    params = load_params(
        path, param_shapes(config), dtype=dtype, mesh=mesh, tied=config.text.tie_word_embeddings
    )
    hub_id = None if Path(name) == path else name
    loaded = Checkpoint(
        Llava(config, jnp.dtype(dtype)), {"params": params}, config, path, hub_id=hub_id
    )
    if adapters is None:
        return loaded
    folder = find_checkpoint(adapters)
    lora_config, lora, params = peft.load_adapter(
        folder, params, base_fingerprint=lambda: loaded.base_fingerprint, mesh=mesh
    )
    model = Llava(config, jnp.dtype(dtype), lora_config)
    return dataclasses.replace(
        loaded, model=model, variables={"params": params, "lora": lora}, adapters=folder
    )


def save_pretrained(
    loaded: Checkpoint,
    path: str | Path,
    *,
    merge_adapters: bool = False,
    max_shard_size: str = "5GB",
) -> None:
    """Saves `loaded.variables` as a folder that transformers loads, with config, tokenizer, processor and template of where it came from.

    Where there are adapters, they alone are written, in PEFT's format with the base's path; or, with `merge_adapters`, a whole model. Of
    several processes all must call this.

    Args:
      max_shard_size: of one weight file, such as "5GB".
    Raises:
      InbolError: when the folder cannot be written.
    """
    path, lora = Path(path), loaded.variables.get("lora")
    refuse_folder(loaded, path, adapters=bool(lora) and not merge_adapters)
    try:
        if is_main():
            path.mkdir(parents=True, exist_ok=True)
            for source in (source for pattern in _FILES for source in loaded.path.glob(pattern)):
                if not source.name.endswith(".index.json") and not (
                    lora and not merge_adapters and source.name == "config.json"
                ):
                    shutil.copyfile(source, path / source.name)
        if lora and not merge_adapters:
            base = loaded.hub_id or str(loaded.path.resolve())
            peft.save_adapter(
                path,
                loaded.variables,
                loaded.model.lora,
                base=base,
                base_fingerprint=loaded.base_fingerprint,
            )
        else:
            params = loaded.variables["params"]
            if lora:
                params = merge_lora(params, lora, loaded.model.lora)
            save_params(path, params, max_shard_size=max_shard_size)
            if is_main():
                dtype = str(jax.tree.leaves(params)[0].dtype)
                write_json(
                    path / "config.json", _with_dtype(read_json(loaded.path / "config.json"), dtype)
                )
                for name in (
                    peft.CONFIG,
                    peft.WEIGHTS,
                ):  # of an adapter that was here before: transformers would apply it
                    (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise InbolError(
            f"cannot write the checkpoint {path}: {error.strerror or error}"
        ) from error
    wait_for_all(f"saved {path}")


def refuse_folder(loaded: Checkpoint, path: Path, *, adapters: bool) -> None:
    """Raises InbolError where a checkpoint cannot be saved because of what the folder holds; asked before long work, too."""
    if path.resolve() in (loaded.path.resolve(), loaded.adapters and loaded.adapters.resolve()):
        raise InbolError(f"{path} is where the model was loaded from: choose another folder")
    if adapters and (path / "config.json").is_file():
        raise InbolError(f"{path} holds a whole model: choose another folder for the adapters")


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The config with the dtype that the weights have now, wherever it says one: transformers loads as the config says."""
    parts = {name: _with_dtype(part, dtype) if "dtype" in part or "torch_dtype" in part else part
             for name, part in config.items() if isinstance(part, dict)}  # fmt: skip
    rest = {name: value for name, value in config.items() if name != "torch_dtype"}
    return rest | parts | {"dtype": dtype}
