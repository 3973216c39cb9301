"""`inbol dpo`: CA-DPO, preference optimisation weighted by the base model's confidence."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from inbol_jax.artifacts import read_jsonl
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
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.records import PairKind, Preference
from inbol_jax.training.config import DpoConfig, PairLossConfig
from inbol_jax.training.dataset import PackedDataset, bucket_shapes, check_lines, image_paths
from inbol_jax.training.finetune import finetune, load_model
from inbol_jax.training.objective import (
    Batch,
    Metrics,
    Objective,
    Variables,
    target_logprobs,
    token_counts,
)
from inbol_jax.training.reference import CHOSEN, cached_reference, pair_logprobs


def ca_dpo(config: DpoConfig) -> Path:
    """Runs or resumes CA-DPO. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    pair_loss_function(config.pair_loss)
    files = [config.data, *filter(None, [config.evaluation.eval_data])]
    pairs = [read_pairs(file) for file in files]
    images = [
        image_paths(file, config.images, (pair.image for pair in some))
        for file, some in zip(files, pairs, strict=True)
    ]
    checkpoint = load_model(config)
    dataset, *eval_dataset = (
        pair_dataset(checkpoint, some, paths, config.buckets)
        for some, paths in zip(pairs, images, strict=True)
    )
    online = config.reference == "online"
    if not online and not config.reference_free:
        dataset = cached_reference(dataset, config, config.data, "reference.npy")
        eval_dataset = [
            cached_reference(some, config, files[1], "eval_reference.npy") for some in eval_dataset
        ]
    folder = finetune(
        checkpoint,
        config,
        ca_dpo_objective(checkpoint.model, config.pair_loss),
        dataset,
        "CA-DPO",
        eval_dataset=eval_dataset[0] if eval_dataset else None,
        online_reference=online,
    )
    if is_main():
        say(f"CA-DPO on {len(dataset)} pairs, {config.epochs} epochs -> {folder}")
    return folder


def read_pairs(file: Path) -> list[Preference]:
    """The pairs of a file.

    Raises:
      InbolError: if there are none, or a line is not one.
    """
    rows = list(read_jsonl(file))
    check_lines(file, rows, ("image", "question", "chosen", "rejected", "kind"), ("confidence",))
    try:
        pairs = [Preference.from_json(row) for row in rows]
    except (KeyError, TypeError) as error:
        raise InbolError(
            f"{file}: not a file of preference pairs ({error}); run `inbol build`"
        ) from error
    for number, pair in enumerate(pairs, 1):
        if not 0 <= pair.confidence <= 1:
            raise InbolError(
                f"{file}:{number}: confidence {pair.confidence} is not between 0 and 1; run "
                "`inbol build`"
            )
    if not pairs:
        raise InbolError(f"{file} holds no pair")
    return pairs


def pair_dataset(
    checkpoint: Checkpoint, pairs: Sequence[Preference], images: Sequence[Path], buckets: int
) -> PackedDataset:
    """Image and prompt once per pair, then chosen and rejected as two branches.

    The reference's log-probabilities are 0.
    """
    text = make_text_encoder(checkpoint)
    rows = []
    for pair in pairs:
        responses = (pair.chosen, pair.rejected)
        branches = [Branch(text.response(pair.question, response)) for response in responses]
        rows.append((text.prompt(pair.question), branches))
    columns = {
        "ref_chosen": np.zeros(len(pairs), np.float32),
        "ref_rejected": np.zeros(len(pairs), np.float32),
        "confidence": np.array([pair.confidence for pair in pairs], np.float32),
        "kind": np.array([pair.kind for pair in pairs], np.int32),
    }
    return PackedDataset(checkpoint, rows, images, bucket_shapes(rows, buckets), columns)


def pair_loss_function(options: PairLossConfig) -> Callable[..., jax.Array]:
    """`ca_dpo_loss` with the options filled in, all but `nll_coef`.

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
    return functools.partial(
        ca_dpo_loss,
        beta=options.beta,
        weighting=PAIR_WEIGHTINGS[weighting],
        pair_loss=pair_loss,
    )


def ca_dpo_objective(model: Llava, options: PairLossConfig) -> Objective:
    """The mean CA-DPO loss (`losses.ca_dpo_loss`) over the pairs that are not padding.

    The batch holds, beside the packed rows: ref_chosen, ref_rejected, confidence f32[b], kind
    i32[b], valid bool[b]. If the objective gets variables of a reference, it computes the
    reference's log-probabilities itself and does not use the batch's. With `length_normalized`,
    those of the batch must be averages too.
    """
    loss = pair_loss_function(options)
    average = options.length_normalized

    def objective(
        variables: Variables,
        reference: Variables | None,
        batch: Batch,
        key: jax.Array | None = None,
    ) -> Metrics:
        if reference is None:
            reference_pair = PairLogprobs(batch["ref_chosen"], batch["ref_rejected"])
        else:
            logprobs = target_logprobs(model, reference, batch)
            reference_pair = pair_logprobs(logprobs, batch, average=average)
        logprobs = target_logprobs(model, variables, batch, key)  # [b, a]
        policy_pair = pair_logprobs(logprobs, batch, average=average)
        is_chosen = batch["target_segment"] == CHOSEN
        chosen_nll = -sequence_logprob(logprobs, is_chosen, average=True)
        arguments = (policy_pair, reference_pair, batch["confidence"], batch["kind"], chosen_nll)
        valid = batch["valid"].astype(jnp.float32)
        values = {
            "loss": loss(*arguments, nll_coef=options.nll_coef),
            "dpo": loss(*arguments, nll_coef=0.0),  # the weighted loss of pairs alone
            "nll": chosen_nll,
            "logprob_chosen": policy_pair.chosen,
            "logprob_rejected": policy_pair.rejected,
        }
        metrics = {name: (jnp.sum(valid * x), valid.sum()) for name, x in values.items()}
        reward = options.beta * preference_margin(policy_pair, reference_pair)
        metrics |= _reward_metrics(reward, batch["kind"], valid)
        return metrics | token_counts(batch)

    return objective


def _reward_metrics(reward: jax.Array, kind: jax.Array, valid: jax.Array) -> Metrics:
    """Mean reward margin and the share of positive ones, of all pairs and per kind."""
    metrics = {}
    groups = {"": valid} | {f"/{k.name.lower()}": valid * (kind == k) for k in PairKind}
    for suffix, weight in groups.items():
        metrics[f"reward_margin{suffix}"] = (jnp.sum(weight * reward), weight.sum())
        metrics[f"reward_accuracy{suffix}"] = (jnp.sum(weight * (reward > 0)), weight.sum())
    return metrics
