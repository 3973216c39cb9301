"""`train.py sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for what is not."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_jsonl, read_meta
from inbol_jax.data.batches import Branch, RowShape, pack_row, stack
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LlavaConfig, load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import TINY, Dtype, Loaded, find_checkpoint, load_pretrained, refuse_folder, save_pretrained
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.models.peft import is_adapter
from inbol_jax.progress import say
from inbol_jax.sampling.generate import load_pixels, make_text_encoder
from inbol_jax.sharding import make_mesh
from inbol_jax.training.loop import Host, fit
from inbol_jax.training.parallel import AXIS, PARALLEL, round_rows
from inbol_jax.training.state import init_state, make_optimizer, merge_variables, split_variables
from inbol_jax.training.step import Objective, make_train_step, sft_objective

MakeRow = Callable[[int], Host]

# The vision tower and the embeddings stay as they are: refusing is a matter of what is said, not of what is seen.
FROZEN = ("^vision_tower/", "embed_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What both training stages take.

    Attributes:
      data: file that `inbol build` writes: instructions.jsonl for sft, preferences.jsonl for dpo.
      out: folder of the run: checkpoints/, metrics.jsonl, and the trained model in Hugging Face layout in OUT/model.
      model: checkpoint folder to start from; by default the tiny LLaVA that ships with the package.
      images: image folder, where it is not the one that the data's header names.
      epochs: passes over the data.
      batch_size: examples an update.
      accumulate: micro-batches an update: batch_size examples in so many parts, one after another.
      optimizer: of optax, by its name there: adamw, adafactor, lion, sgd, ...
      learning_rate: its peak, after a warm-up of a tenth of the updates.
      schedule: how it falls after that: cosine, linear, or not (constant).
      rates: pairs of a regular expression and the peak learning rate of the variables whose path it finds, such as projector 2e-5.
      weight_decay: of matrices.
      max_skipped: updates in a row that may be left out because loss or gradient was not finite; training stops after one more.
      frozen: regular expressions; parameters whose path one of them finds are not trained. Adapters freeze everything anyway.
      lora_rank: train adapters of this rank instead of the model's own weights; 0 for none, or for those that the model comes with.
      lora_alpha: scale of the adapters times their rank; by default twice the rank.
      lora_dropout: share of the adapters' inputs that is set to zero.
      lora_targets: modules that get an adapter, by name or regular expression; by default every dense layer of the decoder.
      lora_rslora: scale by alpha / sqrt(rank) instead of alpha / rank.
      lora_trainable: modules trained whole beside the adapters, such as multi_modal_projector.
      dtype: of the computation and of what is frozen; auto is float32 for a float32 checkpoint and bfloat16 for any other.
      masters: keep what is trained in float32 whatever the dtype.
      remat: activations that the backward pass computes again: none, all but products with weights (dots), all of a layer (full).
      mesh: number of devices along data, fsdp and tensor; -1 takes what the others leave.
      parallel: jit over the mesh, or pmap with a copy of the model on each device.
      keep: share of the base's weights in the saved model, which is (1 - keep) times the trained one plus keep times the base: answers that
        training has drifted away from come back (WiSE-FT, arXiv 2109.01903).
      base: checkpoint folder that `keep` is of; by default the model that training starts from.
      checkpoint_every: steps between checkpoints; a run that was stopped goes on from the last.
      seed: of the order of the data, of new adapters and of dropout.
    """

    data: Path
    out: Path
    model: Path = TINY
    images: Path | None = None
    epochs: int = 1
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    rates: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 0.0
    max_skipped: int = 10
    frozen: tuple[str, ...] = FROZEN
    lora_rank: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = LoraConfig().targets
    lora_rslora: bool = False
    lora_trainable: tuple[str, ...] = ()
    dtype: Dtype = "auto"
    masters: bool = True
    remat: Literal["none", "dots", "full"] = "none"
    mesh: tuple[int, int, int] = (-1, 1, 1)
    parallel: Literal["jit", "pmap"] = "jit"
    keep: float = 0.0
    base: Path | None = None
    checkpoint_every: int = 100
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(StageConfig):
    """IDK-IT: fine-tune on IDK instructions."""


def image_folder(data: Path, images: Path | None) -> Path:
    """The folder that a stage file's images are relative to: the option, else what the file's header names.

    Raises:
      InbolError: when neither names an existing folder.
    """
    folder = images or data.parent / read_meta(data).get("images", ".")
    if not folder.is_dir():
        raise InbolError(f"{folder} is not a folder: name the images of {data} by --images")
    return folder


def batches_of(n: int, make_row: MakeRow, size: int, epochs: int, seed: int, start: int) -> Iterable[Host]:
    """Batches from step `start` on of `epochs` shuffled passes; the last one is filled up with rows that do not count."""
    dataset = grain.MapDataset.range(n).shuffle(seed=seed).repeat(epochs).map(make_row)
    dataset = dataset.batch(size, drop_remainder=False, batch_fn=lambda rows: stack(rows, size))
    return dataset[start:].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def load_model(config: StageConfig) -> Loaded:
    """The model to train, on the stage's mesh: with new adapters, with those that it comes with, or whole.

    Raises:
      InbolError: when the checkpoint or the mesh cannot be used, or adapters are asked for twice.
    """
    mesh = make_mesh(*config.mesh)
    loaded = load_pretrained(config.model, dtype=config.dtype, mesh=mesh)
    lora, variables = loaded.model.lora, loaded.variables
    if config.lora_rank:
        if lora:
            raise InbolError(f"--lora-rank {config.lora_rank}: {config.model} has adapters, which training goes on with; drop the option")
        alpha = 2.0 * config.lora_rank if config.lora_alpha is None else config.lora_alpha
        lora = LoraConfig(config.lora_rank, alpha, config.lora_dropout, config.lora_targets, config.lora_rslora, config.lora_trainable)
        variables = {**variables, "lora": init_lora(variables["params"], lora, jax.random.key(config.seed), mesh)}
    return dataclasses.replace(loaded, model=Llava(loaded.config, loaded.model.dtype, lora, config.remat), variables=variables)


def run_stage(loaded: Loaded, config: StageConfig, objective: Objective, n: int, make_row: MakeRow, label: str) -> Path:
    """Trains on n rows and saves the model: what IDK-IT and CA-DPO have in common. Returns the folder of the model."""
    base = (load_pretrained(config.base, dtype=loaded.model.dtype) if config.base else loaded) if config.keep else None
    kept = jax.tree.map(np.array, dict(base.variables["params"])) if base else None  # a copy: training gives its start away
    refuse_folder(loaded, config.out / "model", adapters=loaded.model.lora is not None)
    mesh = make_mesh(*config.mesh)
    size = round_rows(config.batch_size, mesh, config.accumulate)
    steps = -(-n * config.epochs // size)
    settings = dataclasses.asdict(config) | {"stage": label, "model": loaded.fingerprint, "data": file_fingerprint(config.data)}
    settings["base"] = base.fingerprint if base else None
    settings["batch_size"] = size
    # How a run is spread over devices does not decide what it computes.
    free = ["out", "images", "checkpoint_every", "max_skipped", "remat"]
    if not (loaded.model.lora and loaded.model.lora.dropout):  # each device of a pmap draws dropout of its own
        free += ["mesh", "parallel"]
    identity = fingerprint({k: v for k, v in settings.items() if k not in free})
    trainable, frozen = split_variables(loaded.variables, config.frozen, loaded.model.lora)
    for pattern, _ in config.rates:
        if not any(re.search(pattern, path) for path in trainable):
            raise InbolError(f"--rates {pattern!r} matches nothing that is trained; paths look like {next(iter(trainable))!r}")
    dtypes = {path: x.dtype for path, x in trainable.items()}
    if config.masters:
        trainable = {path: x.astype(jnp.float32) for path, x in trainable.items()}
    optimizer = make_optimizer(
        config.learning_rate,
        steps,
        weight_decay=config.weight_decay,
        name=config.optimizer,
        schedule=config.schedule,
        rates=config.rates,
    )
    axis = AXIS if config.parallel == "pmap" else None
    step = make_train_step(objective, optimizer, accumulate=config.accumulate, axis=axis, seed=config.seed)
    state = fit(
        PARALLEL[config.parallel](step, mesh),
        init_state(trainable, optimizer, mesh),
        frozen,
        lambda start: batches_of(n, make_row, size, config.epochs, config.seed, start),
        steps,
        out=config.out,
        identity=identity,
        label=label,
        checkpoint_every=config.checkpoint_every,
        rows_per_batch=size,
        max_skipped=config.max_skipped,
    )
    folder = config.out / "model"
    variables = merge_variables({path: x.astype(dtypes[path]) for path, x in jax.device_get(state.params).items()}, frozen)
    if kept is not None:
        variables = {"params": jax.tree.map(lambda new, old: _mix(new, old, config.keep), variables["params"], kept)}
    save_pretrained(dataclasses.replace(loaded, variables=variables), folder)
    return folder


def _mix(new: jax.Array, old: np.ndarray, keep: float) -> np.ndarray:
    """(1 - keep) new + keep old, in float32, in the dtype of `new`; where they are equal, exactly that."""
    new = np.asarray(new)
    mixed = (1 - keep) * new.astype(np.float32) + keep * old.astype(np.float32)
    return np.where(new == old, new, mixed.astype(new.dtype))


def _architecture(model: Path) -> LlavaConfig:
    """What two checkpoints must share for their weights to be mixed: not the dtype on the disk, nor which tokens end a response."""
    return dataclasses.replace(load_config(find_checkpoint(model)), stored_dtype="", pad_token_id=0, eos_token_ids=())


def check(config: StageConfig) -> None:
    """Refuses options that cannot be meant, before anything is loaded."""
    for name in ("epochs", "batch_size", "accumulate", "learning_rate", "checkpoint_every"):
        if not 0 < getattr(config, name) < math.inf:
            raise InbolError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be greater than 0")
    if not 0 <= config.keep < 1:
        raise InbolError(f"--keep {config.keep}: a share of at least 0 and less than 1 is needed")
    if config.keep and (config.lora_rank or is_adapter(find_checkpoint(config.model))):
        raise InbolError(f"--keep {config.keep} mixes whole models: merge the adapters first (`inbol convert --merge-lora`)")
    if config.base and not config.keep:
        raise InbolError(f"--base {config.base} does nothing without --keep")
    defaults = {field.name: field.default for field in dataclasses.fields(StageConfig) if field.name.startswith("lora_")}
    if not config.lora_rank and (given := [name for name, value in defaults.items() if getattr(config, name) != value]):
        raise InbolError(f"--{given[0].replace('_', '-')} does nothing without --lora-rank: the adapters of --model keep their options")
    if config.lora_alpha is not None and not 0 < config.lora_alpha < math.inf:
        raise InbolError(f"--lora-alpha {config.lora_alpha}: must be greater than 0")
    if min(config.lora_rank, config.max_skipped) < 0:
        raise InbolError(f"--lora-rank {config.lora_rank} and --max-skipped {config.max_skipped} must be at least 0")
    for pattern, rate in config.rates:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InbolError(f"--rates {pattern!r} is not a regular expression ({error})") from error
        if not 0 < rate < math.inf:
            raise InbolError(f"--rates {pattern} {rate}: a rate must be greater than 0")
    if config.keep and config.base and _architecture(config.base) != _architecture(config.model):
        raise InbolError(f"--base {config.base}: its configuration is not that of {config.model}; their weights cannot be mixed")
    if not 0 <= config.weight_decay < math.inf:
        raise InbolError(f"--weight-decay {config.weight_decay}: must be at least 0")


def check_lines(data: Path, rows: Iterable[Mapping[str, Any]], texts: Sequence[str], numbers: Sequence[str] = ()) -> None:
    """Raises InbolError with the line's number where a text or a number is missing or of another type."""
    for number, row in enumerate(rows, 1):
        for names, kinds in ((texts, str), (numbers, (int, float))):
            for name in names:
                if not isinstance(row.get(name), kinds):
                    raise InbolError(f"{data}:{number}: {name!r} is missing or of the wrong type; run `inbol build`")


def idk_it(config: SftConfig) -> Path:
    """Runs or resumes IDK-IT. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    check(config)
    instructions = list(read_jsonl(config.data))
    if not instructions:
        raise InbolError(f"{config.data} holds no instruction")
    check_lines(config.data, instructions, ("image", "question", "response"))
    images = image_folder(config.data, config.images)
    loaded = load_model(config)
    text = make_text_encoder(loaded)
    packed = [(text.prompt(r["question"]), [Branch(text.response(r["question"], r["response"]))]) for r in instructions]
    shape = RowShape.fitting(packed)

    def make_row(index: int) -> dict[str, np.ndarray]:
        prompt, branches = packed[index]
        return pack_row(prompt, branches, shape) | {"pixel_values": load_pixels(loaded, images / instructions[index]["image"])[None]}

    objective = sft_objective(loaded.model)
    folder = run_stage(loaded, config, objective, len(instructions), make_row, "IDK-IT")
    say(f"IDK-IT on {len(instructions)} instructions, {config.epochs} epochs -> {folder}")
    return folder
