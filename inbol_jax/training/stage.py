"""What IDK-IT and CA-DPO have in common: options, the model, the run."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_meta
from inbol_jax.defaults import TINY, Dtype
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LlavaConfig, load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import (
    Checkpoint,
    find_checkpoint,
    load_pretrained,
    refuse_folder,
    save_pretrained,
)
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.models.peft import is_adapter
from inbol_jax.processes import is_main, to_host
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.input import Rows, in_order, stream, training_order
from inbol_jax.training.loop import Evaluation, fit
from inbol_jax.training.parallel import AXIS, PARALLEL, round_rows
from inbol_jax.training.state import (
    check_pattern,
    init_state,
    make_optimizer,
    merge_variables,
    split_variables,
)
from inbol_jax.training.step import REFERENCE, Objective, make_eval_step, make_train_step
from inbol_jax.training.throughput import Meter, peak_flops, training_work
from inbol_jax.training.trackers import TRACKERS, track

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
      eval_data: file of the same kind that is scored while training, without an update: its loss and all other metrics.
      eval_every: updates between two such evaluations; there is one at the end as well.
      epochs: passes over the data.
      batch_size: examples an update.
      accumulate: micro-batches an update: batch_size examples in so many parts, one after another.
      optimizer: of optax, by its name there: adamw, adafactor, lion, sgd, ...
      learning_rate: its peak, after a warm-up of a tenth of the updates.
      schedule: how it falls after that: cosine, linear, or not (constant).
      rates: pairs of a regular expression and the peak learning rate of the variables whose path it finds, such as projector 2e-5.
      weight_decay: of matrices.
      max_skipped: updates in a row that may be left out because loss or gradient was not finite; training stops after one more.
      frozen: regular expressions; parameters whose path one of them finds are not trained. Not with adapters, which freeze everything else.
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
      distributed: this is one of several processes, each with devices of its own. jax finds the others on Cloud TPU, Slurm, Kubernetes and
        Open MPI; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. All must see the same files.
      buckets: lengths that rows are padded to, each a program of its own. With more than one, rows of like length come into a batch, so
        that short ones do not pay for long ones.
      keep: share of the base's weights in the saved model, which is (1 - keep) times the trained one plus keep times the base: answers that
        training has drifted away from come back (WiSE-FT, arXiv 2109.01903).
      base: checkpoint folder that `keep` is of; by default the model that training starts from.
      checkpoint_every: steps between checkpoints; a run that was stopped goes on from the last.
      track: where the metrics go besides OUT/metrics.jsonl: tensorboard, wandb or trackio, where installed.
      seed: of the order of the data, of new adapters and of dropout.
    """

    data: Path
    out: Path
    model: Path = TINY
    images: Path | None = None
    eval_data: Path | None = None
    eval_every: int = 100
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
    distributed: bool = False
    buckets: int = 1
    keep: float = 0.0
    base: Path | None = None
    checkpoint_every: int = 100
    track: tuple[str, ...] = ()
    seed: int = 0


def image_paths(data: Path, images: Path | None, names: Iterable[str]) -> list[Path]:
    """The image of each line of a stage's file; names are paths below the option's folder, else below that which the file's header names.

    Raises:
      InbolError: when neither names an existing folder, or images are missing there, with how many: before training, not in its midst.
    """
    folder = images or data.parent / read_meta(data).get("images", ".")
    if not folder.is_dir():
        raise InbolError(f"{folder} is not a folder: name the images of {data} by --images")
    paths = [folder / name for name in names]
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        raise InbolError(
            f"{data}: {len(missing)} of its images are missing, the first is {missing[0]}; name their folder by --images"
        )
    return paths


def load_model(config: StageConfig) -> Checkpoint:
    """The model to train, on the stage's mesh: with new adapters, with those that it comes with, or whole.

    Raises:
      InbolError: when the checkpoint or the mesh cannot be used, adapters are asked for twice or with options that do not go with them, or
        OUT/model cannot take the result.
    """
    mesh = make_mesh(*config.mesh)
    loaded = load_pretrained(config.model, dtype=config.dtype, mesh=mesh)
    lora, variables = loaded.model.lora, loaded.variables
    if config.lora_rank:
        if lora:
            raise InbolError(
                f"--lora-rank {config.lora_rank}: {config.model} has adapters, which training goes on with; drop the option"
            )
        alpha = 2.0 * config.lora_rank if config.lora_alpha is None else config.lora_alpha
        lora = LoraConfig(
            config.lora_rank,
            alpha,
            config.lora_dropout,
            config.lora_targets,
            config.lora_rslora,
            config.lora_trainable,
        )
        variables = {
            **variables,
            "lora": init_lora(variables["params"], lora, jax.random.key(config.seed), mesh),
        }
    if lora and config.frozen != FROZEN:
        raise InbolError(
            f"--frozen {' '.join(config.frozen)}: with adapters all else is frozen but --lora-trainable; drop the option"
        )
    refuse_folder(loaded, config.out / "model", adapters=lora is not None)
    return dataclasses.replace(
        loaded,
        model=Llava(loaded.config, loaded.model.dtype, lora, config.remat),
        variables=variables,
    )


def run_stage(
    loaded: Checkpoint,
    config: StageConfig,
    objective: Objective,
    rows: Rows,
    label: str,
    *,
    scored: Rows | None = None,
    online: bool = False,
) -> Path:
    """Trains on rows and saves the model. Returns its folder.

    Args:
      scored: rows of `config.eval_data`.
      online: hand the objective the trained variables as they were at the start as well, see `step.split_reference`.
    """
    mesh = make_mesh(*config.mesh)
    kept = base = None
    if config.keep:
        start = (
            load_pretrained(config.base, dtype=loaded.model.dtype, mesh=mesh)
            if config.base
            else loaded
        )
        # On the host, and a copy: training needs the devices' memory, and gives its start away.
        kept = jax.tree.map(lambda x: np.array(to_host(x)), dict(start.variables["params"]))
        base = start.fingerprint
        del start
    size = round_rows(config.batch_size, mesh, config.accumulate)
    steps = -(-len(rows) * config.epochs // size)
    identity = _identity(loaded, config, label, size, base)
    trainable, frozen = split_variables(loaded.variables, config.frozen, loaded.model.lora)
    for pattern, _ in config.rates:
        if not any(re.search(pattern, path) for path in trainable):
            raise InbolError(
                f"--rates {pattern!r} matches nothing that is trained; paths look like {next(iter(trainable))!r}"
            )
    dtypes = {path: x.dtype for path, x in trainable.items()}
    new_adapters = bool(config.lora_rank)
    reference = (
        {
            path: jnp.copy(x)
            for path, x in trainable.items()
            if not (new_adapters and path.startswith("lora/"))
        }
        if online
        else {}
    )
    if config.masters:
        trainable = {path: _master(x) for path, x in trainable.items()}
    optimizer = make_optimizer(
        config.learning_rate,
        steps,
        weight_decay=config.weight_decay,
        name=config.optimizer,
        schedule=config.schedule,
        rates=config.rates,
    )
    targets = float(np.mean([s.targets for s in rows.sizes]))
    meter = Meter(
        training_work(loaded.config, trainable, frozen, targets=targets, forwards=int(online)),
        peak_flops(mesh.size),
    )
    axis = AXIS if config.parallel == "pmap" else None
    step = make_train_step(
        objective, optimizer, accumulate=config.accumulate, axis=axis, seed=config.seed
    )
    order = training_order(
        [s.tokens for s in rows.sizes], size, config.epochs, config.seed, grouped=config.buckets > 1
    )
    mine = local_rows(mesh, size)
    with track(
        config.track if is_main() else (),
        config.out,
        dataclasses.asdict(config) | {"identity": identity},
    ) as log:
        state = fit(
            PARALLEL[config.parallel](step, mesh, make_eval_step(objective, axis=axis)),
            init_state(trainable, optimizer, mesh),
            {**frozen, **{f"{REFERENCE}{path}": x for path, x in reference.items()}},
            lambda start: stream(rows, order, mine, start, steps),
            steps,
            out=config.out,
            identity=identity,
            label=label,
            checkpoint_every=config.checkpoint_every,
            rows_per_batch=size,
            max_skipped=config.max_skipped,
            evaluation=None
            if scored is None
            else Evaluation(
                lambda: in_order(scored, mesh, size // config.accumulate), config.eval_every
            ),
            meter=meter,
            track=log,
        )
    folder = config.out / "model"
    trained = {path: x.astype(dtypes[path]) for path, x in state.params.items()}
    variables = merge_variables(trained, frozen)
    if kept is not None:
        variables = {
            "params": jax.tree.map(
                lambda new, old: _mix(to_host(new), old, config.keep), variables["params"], kept
            )
        }
    save_pretrained(dataclasses.replace(loaded, variables=variables), folder)
    return folder


def _identity(
    loaded: Checkpoint, config: StageConfig, label: str, size: int, base: str | None
) -> str:
    """Fingerprint of everything that decides the result. How a run is spread over devices, and what is looked at meanwhile, does not.

    Args:
      size: rows of a batch. base: fingerprint of the model that `keep` is of.
    """
    settings = dataclasses.asdict(config) | {
        "stage": label,
        "model": loaded.fingerprint,
        "data": file_fingerprint(config.data),
    }
    settings |= {"base": base, "batch_size": size}
    free = [
        "out",
        "images",
        "eval_data",
        "eval_every",
        "checkpoint_every",
        "track",
        "max_skipped",
        "remat",
        "distributed",
    ]
    if (
        loaded.model.lora and loaded.model.lora.dropout
    ):  # each device of a pmap draws dropout of its own
        settings["devices"] = jax.device_count()
    else:
        free += ["mesh", "parallel"]
    return fingerprint({k: v for k, v in settings.items() if k not in free})


def _master(x: jax.Array) -> jax.Array:
    """A float32 copy in place of a variable, whose own memory is given back."""
    if x.dtype == jnp.float32:
        return x
    master = x.astype(jnp.float32)
    x.delete()
    return master


def _mix(new: np.ndarray, old: np.ndarray, keep: float) -> np.ndarray:
    """(1 - keep) new + keep old, in float32, in the dtype of `new`; where they are equal, exactly that."""
    mixed = (1 - keep) * new.astype(np.float32) + keep * old.astype(np.float32)
    return np.where(new == old, new, mixed.astype(new.dtype))


def _architecture(model: Path) -> LlavaConfig:
    """What two checkpoints must share for their weights to be mixed: not the dtype on the disk, nor which tokens end a response."""
    return dataclasses.replace(
        load_config(find_checkpoint(model)), stored_dtype="", pad_token_id=0, eos_token_ids=()
    )


def check(config: StageConfig) -> None:
    """Refuses options that cannot be meant, before anything is loaded."""
    for name in (
        "epochs",
        "batch_size",
        "accumulate",
        "learning_rate",
        "checkpoint_every",
        "eval_every",
        "buckets",
    ):
        if not 0 < getattr(config, name) < math.inf:
            raise InbolError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: must be greater than 0"
            )
    if not 0 <= config.keep < 1:
        raise InbolError(f"--keep {config.keep}: a share of at least 0 and less than 1 is needed")
    if config.keep and (config.lora_rank or is_adapter(find_checkpoint(config.model))):
        raise InbolError(
            f"--keep {config.keep} mixes whole models: merge the adapters first (`inbol convert --merge-lora`)"
        )
    if config.eval_data is None and config.eval_every != StageConfig.eval_every:
        raise InbolError(f"--eval-every {config.eval_every} does nothing without --eval-data")
    for name in config.track:
        if name not in TRACKERS:
            raise InbolError(f"--track {name!r}: choose among {', '.join(TRACKERS)}")
    if config.base and not config.keep:
        raise InbolError(f"--base {config.base} does nothing without --keep")
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(StageConfig)
        if field.name.startswith("lora_")
    }
    if not config.lora_rank and (
        given := [name for name, value in defaults.items() if getattr(config, name) != value]
    ):
        raise InbolError(
            f"--{given[0].replace('_', '-')} does nothing without --lora-rank: the adapters of --model keep their options"
        )
    if config.lora_alpha is not None and not 0 < config.lora_alpha < math.inf:
        raise InbolError(f"--lora-alpha {config.lora_alpha}: must be greater than 0")
    if min(config.lora_rank, config.max_skipped) < 0:
        raise InbolError(
            f"--lora-rank {config.lora_rank} and --max-skipped {config.max_skipped} must be at least 0"
        )
    for pattern, rate in config.rates:
        check_pattern("--rates", pattern)
        if not 0 < rate < math.inf:
            raise InbolError(f"--rates {pattern} {rate}: a rate must be greater than 0")
    if config.keep and config.base and _architecture(config.base) != _architecture(config.model):
        raise InbolError(
            f"--base {config.base}: its configuration is not that of {config.model}; their weights cannot be mixed"
        )
    if not 0 <= config.weight_decay < math.inf:
        raise InbolError(f"--weight-decay {config.weight_decay}: must be at least 0")


def check_lines(
    data: Path, rows: Iterable[Mapping[str, Any]], texts: Sequence[str], numbers: Sequence[str] = ()
) -> None:
    """Raises InbolError with the line's number where a text or a number is missing or of another type."""
    for number, row in enumerate(rows, 1):
        for names, kinds in ((texts, str), (numbers, (int, float))):
            for name in names:
                if not isinstance(row.get(name), kinds):
                    raise InbolError(
                        f"{data}:{number}: {name!r} is missing or of the wrong type; run `inbol build`"
                    )
