"""`train.py sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for what is not."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_jsonl, read_meta
from inbol_jax.data.batches import Branch, RowShape, pack_row, stack
from inbol_jax.errors import InbolError
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import TINY, Loaded, find_checkpoint, load_pretrained, save_pretrained
from inbol_jax.progress import say
from inbol_jax.sampling.generate import load_pixels, make_text_encoder
from inbol_jax.sharding import make_mesh, round_batch
from inbol_jax.training.loop import Host, fit
from inbol_jax.training.state import init_state, make_optimizer, merge_params, split_params
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
      learning_rate: peak of AdamW, after a warm-up of a tenth and before a cosine decay to 0.
      weight_decay: of matrices.
      frozen: regular expressions; parameters whose path one of them finds are not trained.
      keep: share of the base's weights in the saved model, which is (1 - keep) times the trained one plus keep times the base: answers that
        training has drifted away from come back (WiSE-FT, arXiv 2109.01903).
      base: checkpoint folder that `keep` is of; by default the model that training starts from.
      checkpoint_every: steps between checkpoints; a run that was stopped goes on from the last.
      seed: of the order of the data.
    """

    data: Path
    out: Path
    model: Path = TINY
    images: Path | None = None
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    frozen: tuple[str, ...] = FROZEN
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


def run_stage(loaded: Loaded, config: StageConfig, objective: Objective, n: int, make_row: MakeRow, label: str) -> Path:
    """Trains on n rows and saves the model: what IDK-IT and CA-DPO have in common. Returns the folder of the model."""
    base = (load_pretrained(config.base, dtype=loaded.model.dtype) if config.base else loaded) if config.keep else None
    kept = jax.tree.map(np.array, dict(base.variables["params"])) if base else None  # a copy: training gives its start away
    mesh = make_mesh()
    size = round_batch(config.batch_size, mesh)
    steps = -(-n * config.epochs // size)
    settings = dataclasses.asdict(config) | {"stage": label, "model": loaded.fingerprint, "data": file_fingerprint(config.data)}
    settings["base"] = base.fingerprint if base else None
    identity = fingerprint({k: v for k, v in settings.items() if k not in ("out", "images", "checkpoint_every")})
    trainable, frozen = split_params(loaded.variables["params"], config.frozen)
    optimizer = make_optimizer(config.learning_rate, steps, weight_decay=config.weight_decay)
    state = fit(
        make_train_step(objective, optimizer),
        init_state(trainable, optimizer),
        frozen,
        lambda start: batches_of(n, make_row, size, config.epochs, config.seed, start),
        steps,
        out=config.out,
        identity=identity,
        mesh=mesh,
        label=label,
        checkpoint_every=config.checkpoint_every,
        rows_per_batch=size,
    )
    folder = config.out / "model"
    params = merge_params(jax.device_get(state.params), frozen)
    if kept is not None:
        params = jax.tree.map(lambda new, old: (1 - config.keep) * new + config.keep * old, params, kept)
    save_pretrained(dataclasses.replace(loaded, variables={"params": params}), folder)
    return folder


def check(config: StageConfig) -> None:
    """Refuses options that cannot be meant, before anything is loaded."""
    for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every"):
        if not 0 < getattr(config, name) < math.inf:
            raise InbolError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be greater than 0")
    if not 0 <= config.keep < 1:
        raise InbolError(f"--keep {config.keep}: a share of at least 0 and less than 1 is needed")
    if config.keep and config.base and load_config(find_checkpoint(config.base)) != load_config(find_checkpoint(config.model)):
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
    loaded = load_pretrained(config.model, dtype="auto")
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
