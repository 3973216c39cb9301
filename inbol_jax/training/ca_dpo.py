"""`inbol dpo`: CA-DPO, preference optimisation weighted by the base model's confidence."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.artifacts import atomically, file_fingerprint, meta_path, read_meta, write_json
from inbol_jax.errors import InbolError
from inbol_jax.losses import (
    PAIR_LOSSES,
    PAIR_WEIGHTINGS,
    PairLogprobs,
    ca_dpo_loss,
    has_label_smoothing,
    preference_margin,
    sequence_logprob,
)
from inbol_jax.losses.registry import PairLoss, PairWeighting
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import is_main, one_writer
from inbol_jax.progress import progress
from inbol_jax.records import PairKind, Preference
from inbol_jax.sharding import COMPILER_OPTIONS, make_mesh, shard_batch
from inbol_jax.training.config import CaDpoLossConfig, DpoConfig
from inbol_jax.training.dataset import (
    DataFile,
    PackedDataset,
    in_order,
    read_data,
    tokenize,
    training_batches,
)
from inbol_jax.training.model import load_model, prompt_of_lines, save_trained, take_apart
from inbol_jax.training.settings import make_schedule, run_settings
from inbol_jax.training.step import (
    Batch,
    Metrics,
    Objective,
    make_program,
    target_logprobs,
    token_counts,
)
from inbol_jax.training.trainer import Trainer

CHOSEN, REJECTED = 1, 2  # branches of a pair's row, which share image and prompt


@one_writer
def ca_dpo(config: DpoConfig) -> Path:
    """Runs or resumes CA-DPO. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    # ---- The pairs, and the model on the mesh
    pair_functions(config.pair_loss)  # an unknown name is refused before all else
    files = read_data(config, Preference.from_json, "pair")
    mesh = make_mesh(*config.runtime.mesh)
    schedule = make_schedule(config, len(files[0].lines), mesh)
    checkpoint = load_model(config, mesh, prompt_of_lines(config))
    config = config.with_rate(adapters=checkpoint.model.lora is not None)

    # ---- Packed rows, with what the reference says of them
    datasets = [pair_dataset(checkpoint, file, config.buckets) for file in files]
    if config.reference == "cached":
        # Without gradients four times as many rows fit as in a micro-batch.
        reference = functools.partial(cached_reference, config, mesh, 4 * schedule.micro_batch)
        names = "reference.npy", "eval_reference.npy"
        datasets = [reference(*one) for one in zip(datasets, names, strict=False)]
    dataset, *others = datasets

    # ---- The loss, and the run
    objective = ca_dpo_objective(checkpoint.model, config.pair_loss)
    program = make_program(objective, config, schedule.steps)
    variables = take_apart(checkpoint, config)
    about = {"data": dataset.file.fingerprint, "pictures": dataset.file.pictures}
    settings = run_settings("CA-DPO", config, checkpoint, schedule, **about)
    trainer = Trainer(config, program, *variables, mesh, settings, schedule.steps)
    state = trainer.fit(
        training_batches(dataset, schedule, config.seed, mesh),
        *(functools.partial(in_order, other, mesh, schedule.micro_batch) for other in others),
    )
    return save_trained(checkpoint, config, state, "CA-DPO")


def pair_dataset(checkpoint: Checkpoint, file: DataFile[Preference], buckets: int) -> PackedDataset:
    """Image and prompt once per pair, then chosen and rejected as two branches.

    The reference's log-probabilities are 0.
    """
    pairs = file.lines
    columns = {
        "ref_chosen": np.zeros(len(pairs), np.float32),
        "ref_rejected": np.zeros(len(pairs), np.float32),
        "confidence": np.array([pair.confidence for pair in pairs], np.float32),
        "kind": np.array([pair.kind.number for pair in pairs], np.int32),
    }
    texts = [(pair.question, [pair.chosen, pair.rejected]) for pair in pairs]
    return tokenize(checkpoint, file, texts, columns, buckets=buckets)


def cached_reference(
    config: DpoConfig, mesh: Mesh, batch_size: int, dataset: PackedDataset, name: str
) -> PackedDataset:
    """The pairs with the frozen reference's log-probabilities.

    They are kept in a file of that name, whose header says what they were computed from; those of
    another model, of other pairs or pictures are computed anew.
    """
    checkpoint, average = dataset.checkpoint, config.pair_loss.length_normalized
    header = {
        "command": "reference",
        "model": checkpoint.fingerprint,
        "data": dataset.file.fingerprint,
        "system": checkpoint.prompt.system if checkpoint.prompt else "",
        "pictures": dataset.file.pictures,
        "average": average,
        "dtype": checkpoint.model.dtype.name,
    }
    file = config.out / name
    if file.exists() and read_meta(file) == header | {"content": file_fingerprint(file)}:
        logprobs = np.load(file)  # numpy's default refuses pickles
    else:
        logprobs = reference_logprobs(dataset, batch_size=batch_size, mesh=mesh, average=average)
        # All processes have looked for the file by now: each of them took part in the computation.
        if is_main():
            meta_path(file).unlink(missing_ok=True)
            with atomically(file) as temporary, temporary.open("wb") as handle:
                np.save(handle, logprobs)
            write_json(meta_path(file), header | {"content": file_fingerprint(file)})
    columns = {"ref_chosen": logprobs[:, 0], "ref_rejected": logprobs[:, 1]}
    return dataclasses.replace(dataset, columns={**dataset.columns, **columns})


def reference_logprobs(
    dataset: PackedDataset, *, batch_size: int, mesh: Mesh, average: bool = False
) -> np.ndarray:
    """Log-probabilities of chosen and rejected under the frozen reference, f32[n, 2]."""
    checkpoint = dataset.checkpoint

    def score(variables, batch: Batch) -> PairLogprobs:
        logprobs = target_logprobs(checkpoint.model, variables, batch)
        return pair_logprobs(logprobs, batch, average=average)

    everywhere = NamedSharding(mesh, PartitionSpec())
    run = jax.jit(score, out_shardings=everywhere, compiler_options=COMPILER_OPTIONS)
    parts, count = [], 0
    with progress("reference", len(dataset), "pairs", shown=is_main()) as advance:
        for batch in in_order(dataset, mesh, batch_size):
            pair = jax.device_get(run(checkpoint.variables, shard_batch(batch, mesh)))
            part = np.stack(pair, axis=1)[: len(dataset) - count]  # the last batch is filled up
            parts.append(part)
            count += len(part)
            advance(len(part))
    return np.concatenate(parts)


def pair_logprobs(logprobs: jax.Array, batch: Batch, *, average: bool) -> PairLogprobs:
    """Summed or averaged log-probabilities of both responses, from those of targets f32[b, a]."""
    chosen, rejected = (
        sequence_logprob(logprobs, batch["target_segment"] == branch, average=average)
        for branch in (CHOSEN, REJECTED)
    )
    return PairLogprobs(chosen, rejected)


def pair_functions(options: CaDpoLossConfig) -> tuple[PairLoss, PairWeighting]:
    """The loss of a pair and its weight, by the names of the options.

    Raises:
      InbolError: if a loss or weighting is not registered, or the loss has no label smoothing.
    """
    loss, weighting = options.loss, options.pair_weighting
    for option, name, known in (
        ("--loss", loss, PAIR_LOSSES),
        ("--pair-weighting", weighting, PAIR_WEIGHTINGS),
    ):
        if name not in known:
            raise InbolError(f"{option} {name!r}: choose one of {', '.join(known)}")
    pair_loss = PAIR_LOSSES[loss]
    if has_label_smoothing(loss):
        pair_loss = functools.partial(pair_loss, label_smoothing=options.label_smoothing)
    elif options.label_smoothing:
        raise InbolError(f"--label-smoothing {options.label_smoothing}: the loss {loss!r} has none")
    return pair_loss, PAIR_WEIGHTINGS[weighting]


def ca_dpo_objective(model: VisionLanguageModel, options: CaDpoLossConfig) -> Objective:
    """The mean CA-DPO loss (`losses.ca_dpo_loss`) over the pairs that are not padding.

    The batch holds, beside the packed rows: ref_chosen, ref_rejected, confidence f32[b], kind
    i32[b], valid bool[b]. With `length_normalized`, the reference's log-probabilities are averages
    too.
    """
    pair_loss, weighting = pair_functions(options)
    average = options.length_normalized

    def objective(variables, batch) -> Metrics:
        # Log-probabilities of the a targets of each row, those of chosen before those of rejected.
        logprobs = target_logprobs(model, variables, batch)  # [b, a]
        policy = pair_logprobs(logprobs, batch, average=average)
        reference = PairLogprobs(batch["ref_chosen"], batch["ref_rejected"])
        is_chosen = batch["target_segment"] == CHOSEN
        chosen_nll = -sequence_logprob(logprobs, is_chosen, average=True)

        def loss(nll_coef: float) -> jax.Array:  # [b]
            return ca_dpo_loss(
                policy,
                reference,
                batch["confidence"],
                batch["kind"],
                chosen_nll,
                beta=options.beta,
                nll_coef=nll_coef,
                weighting=weighting,
                pair_loss=pair_loss,
            )

        # Each metric is (sum, weight); rows that fill up the batch have weight 0.
        valid = batch["valid"].astype(jnp.float32)
        values = {
            "loss": loss(options.nll_coef),
            "dpo": loss(0.0),  # the weighted loss of pairs alone
            "nll": chosen_nll,
            "logprob_chosen": policy.chosen,
            "logprob_rejected": policy.rejected,
        }
        metrics = {name: (jnp.sum(valid * x), valid.sum()) for name, x in values.items()}
        reward = options.beta * preference_margin(policy, reference)
        metrics |= _reward_metrics(reward, batch["kind"], valid)
        return metrics | token_counts(batch)

    return objective


def _reward_metrics(reward: jax.Array, kind: jax.Array, valid: jax.Array) -> Metrics:
    """Mean reward margin and the share of positive ones, of all pairs and per kind."""
    metrics = {}
    groups = {"": valid} | {f"/{k}": valid * (kind == k.number) for k in PairKind}
    for suffix, weight in groups.items():
        metrics[f"reward_margin{suffix}"] = (jnp.sum(weight * reward), weight.sum())
        metrics[f"reward_accuracy{suffix}"] = (jnp.sum(weight * (reward > 0)), weight.sum())
    return metrics
