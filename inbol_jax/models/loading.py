"""Checkpoints in Hugging Face layout: load one, with its adapters if it has any, and save one."""

import copy
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
from PIL import Image

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_json, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models import peft
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.hf_config import GENERATION, read_generation, read_refusing
from inbol_jax.models.layers import attention_for
from inbol_jax.models.lora import merge_lora
from inbol_jax.models.pixels import first_line, prepare_picture
from inbol_jax.models.reading import (
    OTHER_FILES,
    checkpoint_files,
    has_own_head,
    load_params,
    own_files,
    unread_tensors,
)
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.models.writing import save_params
from inbol_jax.processes import is_main, wait_for_all
from inbol_jax.prompts import FILE, Prompt, read_prompt


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    model: VisionLanguageModel
    """The Linen module; sampling and training call `model.apply` with its methods."""
    variables: Mapping[str, Any]
    """{"params": nested dict of arrays}, and {"lora": ...} if there are adapters."""
    config: ModelConfig
    path: Path
    """The folder that the model was loaded from."""
    adapters: Path | None = None
    """The folder that its adapters were loaded from."""
    hub_id: str | None = None
    """The model's hub id (without its adapters), if it was loaded by that."""
    prompt: Prompt | None = None
    """How it is asked: what its folder says, if anything, until a command chooses (`asked_by`)."""

    def asked_by(self, prompt: Prompt) -> "Checkpoint":
        """Returns the same checkpoint, asked in another way; nothing is loaded again."""
        other = copy.copy(self)  # with the processor and fingerprints that are known
        object.__setattr__(other, "prompt", prompt)
        return other

    @functools.cached_property
    def processor(self) -> Any:
        """The checkpoint's own processor, loaded by transformers; it does not need torch.

        Raises:
          InbolError: if it cannot be loaded, or does not make the model's pixels of a picture.
        """
        import transformers  # seconds to import, and not every caller needs it

        try:
            # The backend of numpy and Pillow; the other one needs torchvision.
            kind = without_videos(getattr(transformers, self.config.processor_class))
            processor = kind.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        # Files can be wrong in any way, and tokenizers raises bare exceptions.
        except Exception as error:
            raise InbolError(
                f"{self.path}: the processor cannot be loaded ({first_line(error)})"
            ) from error
        self.image_inputs(Image.new("RGB", (16, 16)), processor)  # of the model's sizes, or refused
        return processor

    def image_inputs(
        self, picture: Image.Image, processor: Any = None, *, alone: bool = True
    ) -> dict[str, np.ndarray]:
        """Returns what `pixels.prepare_picture` does, by default with the checkpoint's processor.

        Raises InbolError, which names the checkpoint, where that does.
        """
        processor = processor or self.processor
        try:
            return prepare_picture(self.config, processor, picture, alone=alone)
        except InbolError as error:
            raise InbolError(f"{self.path}: {error}") from error

    @functools.cached_property
    def base_fingerprint(self) -> str:
        """Fingerprint of weights, config, tokenizer and chat template, without adapters."""
        return file_fingerprint(*checkpoint_files(self.path))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Differs between any two checkpoints that could answer differently."""
        if self.adapters is None:
            return self.base_fingerprint
        adapters = file_fingerprint(self.adapters / peft.CONFIG, self.adapters / peft.WEIGHTS)
        refusing = [rule for rule in (self.config.sequence_bias, self.config.refuse_below) if rule]
        return fingerprint([self.base_fingerprint, adapters, *refusing])


def without_videos(kind: type) -> type:
    """Returns a class of processors without that of videos, which needs torchvision."""
    if not hasattr(kind, "get_attributes"):  # AutoProcessor
        return kind
    names = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: names)})


def init_params(config: ModelConfig, key: jax.Array) -> Mapping[str, Any]:
    """Returns random parameters, f32, for training from scratch."""
    # Parameters depend on no length: one token, and one tile to make the tower's as well.
    ids = np.zeros((1, 1), np.int32)
    tile = {name: np.zeros(*shape)[None] for name, shape in config.image_shapes(1).items()}
    batch = {"input_ids": ids, "attention_mask": ids, **tile}
    return make_model(config).init(key, batch)["params"]


@functools.lru_cache
def param_shapes(config: ModelConfig) -> Mapping[str, Any]:
    """Returns the tree of `init_params` as shapes, without computing any parameter. Read-only: the
    next call gets the same tree. Raises InbolError if its sizes do not fit together."""
    try:
        return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    except (TypeError, OverflowError) as error:
        raise InbolError(f"config.json: its sizes do not fit together ({error})") from error


def find_checkpoint(path_or_id: str | Path) -> Path:
    """Returns the local folder of a checkpoint. A hub id is downloaded, but no file that is code.

    Raises InbolError if that fails, or the folder is a run's; one that is missing is returned.
    """
    path, name = Path(path_or_id), str(path_or_id)
    if (path / "model").is_dir() and not any(path.glob("*config.json")):
        raise InbolError(f"{name} is the folder of a run; did you mean {path / 'model'}?")
    if path.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return path
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", *OTHER_FILES, "*.safetensors"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the base classes of the hub's errors
        reason = str(error).strip().splitlines()[0]
        raise InbolError(
            f"{name} is no folder here, and as a model id of the Hugging Face hub "
            f"it cannot be loaded ({reason})"
        ) from error


def load_without_weights(path_or_id: str | Path, adapters: str | Path | None = None) -> Checkpoint:
    """Returns what `load_pretrained` would load, without weights and adapters: with it, prompts can
    be made, and a model that cannot be asked is refused before its weights are read.

    Raises:
      InbolError: if it is no checkpoint that the port can run, or if the base of an adapter is
        none.
    """
    name, path = str(path_or_id), find_checkpoint(path_or_id)
    adapters = None if adapters is None else find_checkpoint(adapters)
    if adapters is None and peft.is_adapter(path):  # which names its base
        adapters, name = path, peft.base_of(path)
        named = f"{adapters / peft.CONFIG}: base_model_name_or_path"
        try:
            path = find_checkpoint(name)
        except InbolError as error:
            raise InbolError(f"{named}: {error}") from error
        if not (path / "config.json").is_file():
            raise InbolError(
                f"{named} {name} is no checkpoint folder (config.json is missing); if the base was "
                "moved, write there where it is now; if it is itself an adapter, make it a whole "
                f"model by `inbol convert {path} DST --merge-lora`, and name DST"
            )
    config = load_config(path)
    checkpoint_files(path)  # are there
    return Checkpoint(
        make_model(config),
        {},
        config,
        path,
        adapters,
        hub_id=None if Path(name) == path else name,
        prompt=read_prompt(adapters or path, path),
    )


def load_pretrained(
    path_or_id: str | Path,
    *,
    dtype: Any = "auto",
    mesh: Mesh | None = None,
    adapters: str | Path | None = None,
) -> Checkpoint:
    """Loads a checkpoint of any family.

    Args:
      path_or_id: a folder in Hugging Face layout, or a hub id. An adapter is loaded with its base.
      dtype: dtype of the parameters and of the computation. "auto" is float32 for a float32
        checkpoint and bfloat16 for any other.
      mesh: devices that the parameters are split over; by default the first device alone.
      adapters: folder or hub id of a LoRA in PEFT's format. Its leaves are f32 for any `dtype`.
    Raises:
      InbolError: if it is not a checkpoint that the port can run; names the file and the cause.
    """
    found = load_without_weights(path_or_id, adapters)
    path, folder, config = found.path, found.adapters, found.config
    if isinstance(dtype, str) and dtype == "auto":
        dtype = jnp.float32 if config.stored_dtype == "float32" else jnp.bfloat16
    dtype = jnp.dtype(dtype)
    tied = config.text.tie_word_embeddings
    if tied and has_own_head(path):
        text, tied = dataclasses.replace(config.text, tie_word_embeddings=False), False
        config = dataclasses.replace(config, text=text)
    params = load_params(path, param_shapes(config), dtype=dtype, mesh=mesh, tied=tied)
    lora, variables = None, {"params": params}
    if folder:
        lora, variables = peft.load_adapter(
            folder, params, base_fingerprint=lambda: found.base_fingerprint, mesh=mesh
        )
        if generation := read_generation(folder):  # how the base refuses is not how the adapters do
            refusing = read_refusing(generation, config.text.vocab_size)
            config = dataclasses.replace(config, **refusing)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    model = make_model(config, dtype, lora, attention=attention_for(device, dtype))
    return dataclasses.replace(found, model=model, variables=variables, config=config)


def save_pretrained(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    merge_adapters: bool = False,
    max_shard_size: str = "5GB",
) -> None:
    """Saves a checkpoint, with tokenizer and processor, as a folder that transformers loads.

    If there are adapters, they alone are written, in PEFT's format with the base's path, unless
    `merge_adapters` asks for a whole model. If there are several processes, all must call this.

    Args:
      max_shard_size: largest size of one weight file, such as "5GB".
    Raises:
      InbolError: if the folder cannot be written.
    """
    path, variables = Path(path), checkpoint.variables
    as_adapter = bool(variables.get("lora")) and not merge_adapters
    refuse_folder(checkpoint, path, adapters=as_adapter)
    try:
        if is_main():
            path.mkdir(parents=True, exist_ok=True)
            # A rule of refusing belongs to the adapters that it was calibrated with.
            own = own_files(checkpoint.adapters, [GENERATION, FILE]) if checkpoint.adapters else []
            for file in (*own_files(checkpoint.path), *own):
                if not (file.name == "config.json" and as_adapter):
                    shutil.copyfile(file, path / file.name)
        if as_adapter:
            base = checkpoint.hub_id or str(checkpoint.path.resolve())
            digest = checkpoint.base_fingerprint
            peft.save_adapter(
                path, variables, checkpoint.model.lora, base=base, base_fingerprint=digest
            )
        else:
            _save_model(checkpoint, path, max_shard_size)
    except OSError as error:
        raise InbolError(
            f"cannot write the checkpoint {path}: {error.strerror or error}"
        ) from error
    wait_for_all(f"saved {path}")


def _save_model(checkpoint: Checkpoint, path: Path, max_shard_size: str) -> None:
    params, lora = checkpoint.variables["params"], checkpoint.variables.get("lora")
    if lora:
        params = merge_lora(params, lora, checkpoint.model.lora)
    dtype = jax.tree.leaves(params)[0].dtype
    unread = {key: x.astype(dtype) for key, x in unread_tensors(checkpoint.path).items()}
    save_params(path, params, unread, max_shard_size=max_shard_size)
    if is_main():
        config = read_json(checkpoint.path / "config.json")
        write_json(path / "config.json", _with_dtype(config, str(dtype)))
        # transformers would apply an adapter that was saved here before
        for name in (peft.CONFIG, peft.WEIGHTS):
            (path / name).unlink(missing_ok=True)


def refuse_folder(checkpoint: Checkpoint, path: Path, *, adapters: bool) -> None:
    """Refuses a folder that the checkpoint cannot be saved in; also asked before long work.

    Raises:
      InbolError: if it is where the checkpoint was loaded from, or holds a model beside adapters.
    """
    sources = [folder.resolve() for folder in (checkpoint.path, checkpoint.adapters) if folder]
    if path.resolve() in sources:
        raise InbolError(f"{path} is where the model was loaded from: choose another folder")
    if adapters and (path / "config.json").is_file():
        raise InbolError(f"{path} holds a whole model: choose another folder for the adapters")


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Returns the config with that dtype wherever it names one: transformers loads as it says."""
    result = {}
    for name, value in config.items():
        if isinstance(value, dict) and ("dtype" in value or "torch_dtype" in value):
            result[name] = _with_dtype(value, dtype)
        elif name != "torch_dtype":
            result[name] = value
    return result | {"dtype": dtype}
