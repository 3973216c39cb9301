"""`train.py dpo`: CA-DPO, preference optimisation weighted by the base model's confidence."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.artifacts import (
    atomically,
    file_fingerprint,
    meta_path,
    read_jsonl,
    read_meta,
    write_json,
)
from inbol_jax.errors import InbolError
from inbol_jax.losses import LOSSES, SCHEMES, smooths_labels
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.progress import progress, say
from inbol_jax.records import Preference
from inbol_jax.sharding import make_mesh, shard_batch
from inbol_jax.training.input import Rows, in_order
from inbol_jax.training.stage import (
    StageConfig,
    check,
    check_lines,
    image_paths,
    load_model,
    run_stage,
)
from inbol_jax.training.step import ca_dpo_objective, pair_logprobs, target_logprobs


@dataclasses.dataclass(frozen=True, kw_only=True)
class DpoConfig(StageConfig):
    """CA-DPO: preference optimisation weighted by confidence. The frozen reference is the model that it starts from.

    Attributes:
      loss: of a pair, before its weight: sigmoid (DPO), ipo, hinge (SLiC), robust, or one that is registered, see docs/architecture.md.
      beta: inverse temperature of the implicit reward.
      label_smoothing: share of the pairs that may be the wrong way round, at least 0 and less than 0.5: with sigmoid conservative DPO.
      length_normalized: take log-probabilities a token instead of summed ones.
      reference_free: put 0 in place of the reference's log-probabilities; they are not computed then.
      reference: cached, computed once and kept in OUT/reference.npy; or online, in every step: without new adapters, or with adapters and
        modules beside them as they were at the start, or, where whole models are trained, with a frozen copy of what is.
      scheme: pair weights from confidence: value (what the user gains by the chosen response), linear, margin, or uniform (plain DPO).
      anchor: weight of the negative log-likelihood a token of the chosen response, times the pair's own.
    """

    loss: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalized: bool = False
    reference_free: bool = False
    reference: Literal["cached", "online"] = "cached"
    scheme: str = "value"
    anchor: float = 3.0
    learning_rate: float = 2e-4


def ca_dpo(config: DpoConfig) -> Path:
    """Runs or resumes CA-DPO. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    check(config)
    options = loss_options(config)
    files = [config.data] + ([config.eval_data] if config.eval_data else [])
    pairs = [read_pairs(file) for file in files]
    images = [
        image_paths(file, config.images, (p.image for p in some))
        for file, some in zip(files, pairs, strict=True)
    ]
    loaded = load_model(config)
    rows = [pair_rows(loaded, *some, config.buckets) for some in zip(pairs, images, strict=True)]
    if config.reference == "cached" and not config.reference_free:
        names = ("reference.npy", "eval_reference.npy")
        rows = [
            with_reference(r, cached_reference(loaded, config, f, r, n))
            for r, f, n in zip(rows, files, names, strict=False)
        ]
    objective = ca_dpo_objective(
        loaded.model,
        beta=config.beta,
        scheme=config.scheme,
        anchor=config.anchor,
        loss=config.loss,
        length_normalized=config.length_normalized,
        online_reference=config.reference == "online",
        **options,
    )
    scored = rows[1] if config.eval_data else None
    folder = run_stage(
        loaded,
        config,
        objective,
        rows[0],
        "CA-DPO",
        scored=scored,
        online=config.reference == "online",
    )
    if is_main():
        say(f"CA-DPO on {len(rows[0])} pairs, {config.epochs} epochs -> {folder}")
    return folder


def read_pairs(file: Path) -> list[Preference]:
    """The pairs of a file.

    Raises:
      InbolError: when there are none, or a line is not one.
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
                f"{file}:{number}: confidence {pair.confidence} is not between 0 and 1; run `inbol build`"
            )
    if not pairs:
        raise InbolError(f"{file} holds no pair")
    return pairs


def pair_rows(
    loaded: Checkpoint, pairs: Sequence[Preference], images: Sequence[Path], buckets: int
) -> Rows:
    """Image and prompt once, then chosen and rejected, tokenized. The reference's log-probabilities are 0."""
    text = make_text_encoder(loaded)
    packed = [
        (
            text.prompt(p.question),
            [Branch(text.response(p.question, r)) for r in (p.chosen, p.rejected)],
        )
        for p in pairs
    ]

    def extra(index: int) -> dict[str, np.ndarray]:
        pair, nothing = pairs[index], np.float32(0)
        return {
            "ref_chosen": nothing,
            "ref_rejected": nothing,
            "confidence": np.float32(pair.confidence),
            "kind": np.int32(pair.kind),
        }

    return Rows.of(loaded, packed, images, buckets, extra=extra)


def with_reference(rows: Rows, reference: np.ndarray) -> Rows:
    """Rows with the reference's log-probabilities, f32[n, 2], of chosen and rejected."""
    return dataclasses.replace(
        rows,
        extra=lambda i: (
            rows.extra(i) | {"ref_chosen": reference[i, 0], "ref_rejected": reference[i, 1]}
        ),
    )


def loss_options(config: DpoConfig) -> dict[str, float]:
    """The keywords of the chosen loss, `beta` aside.

    Raises:
      InbolError: for a loss or scheme that is not registered, and for values that the loss cannot take.
    """
    for option, known in (("loss", LOSSES), ("scheme", SCHEMES)):
        if getattr(config, option) not in known:
            raise InbolError(
                f"--{option} {getattr(config, option)!r}: choose one of {', '.join(known)}"
            )
    if not 0 < config.beta < math.inf or not 0 <= config.anchor < math.inf:
        raise InbolError(
            f"--beta {config.beta} must be greater than 0 and --anchor {config.anchor} at least 0"
        )
    if config.reference_free and config.reference != "cached":
        raise InbolError(f"--reference {config.reference} does nothing with --reference-free")
    if not 0 <= config.label_smoothing < 0.5:
        raise InbolError(
            f"--label-smoothing {config.label_smoothing}: at least 0 and less than 0.5 is needed"
        )
    if smooths_labels(config.loss):
        return {"label_smoothing": config.label_smoothing}
    if config.label_smoothing:
        raise InbolError(
            f"--label-smoothing {config.label_smoothing}: the loss {config.loss!r} has none"
        )
    return {}


def cached_reference(
    loaded: Checkpoint, config: DpoConfig, data: Path, rows: Rows, name: str
) -> np.ndarray:
    """`reference_logprobs`, computed once a run: OUT/`name` keeps them, with a header of what they were computed from.

    Raises:
      InbolError: when the file belongs to another model, other pairs or another way of averaging.
    """
    file = config.out / name
    made_from = {
        "command": "reference",
        "model": loaded.fingerprint,
        "data": file_fingerprint(data),
    }
    made_from |= {"average": config.length_normalized, "dtype": loaded.model.dtype.name}
    if file.exists() and (header := read_meta(file)):  # without a header it is not finished
        if header != made_from:
            raise InbolError(
                f"{file} holds the reference of another model or other pairs; choose another --out or delete it"
            )
        try:
            found = np.load(file)  # numpy's default refuses pickles
        except (OSError, ValueError) as error:
            raise InbolError(f"{file}: cannot be read ({error}); delete it") from error
        if found.shape != (len(rows), 2):
            raise InbolError(
                f"{file}: its shape is {found.shape}, {(len(rows), 2)} is needed; delete it"
            )
        return found
    mesh = make_mesh(*config.mesh)
    size = 4 * -(
        -config.batch_size // config.accumulate
    )  # of a micro-batch: without gradients four times as many rows fit
    found = reference_logprobs(
        loaded, rows, batch_size=size, mesh=mesh, average=config.length_normalized
    )
    if is_main():  # all processes have looked for the file by now: none of them has left the computation before all had come to it
        meta_path(file).unlink(missing_ok=True)
        with atomically(file) as temporary, temporary.open("wb") as handle:
            np.save(handle, found)
        write_json(meta_path(file), made_from)
    return found


def reference_logprobs(
    loaded: Checkpoint, rows: Rows, *, batch_size: int, mesh: Mesh, average: bool = False
) -> np.ndarray:
    """f32[n, 2]: log-probabilities of chosen and rejected (summed, or averages) under the frozen reference, once for all epochs."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    run = jax.jit(
        lambda variables, batch: pair_logprobs(
            target_logprobs(loaded.model, variables, batch), batch, average=average
        ),
        out_shardings=everywhere,
    )
    found, count = [], 0
    with progress("reference", len(rows), "pairs", shown=is_main()) as advance:
        for batch in in_order(rows, mesh, batch_size):
            logprobs = np.stack(
                jax.device_get(run(loaded.variables, shard_batch(batch, mesh))), axis=1
            )
            found.append(logprobs[: len(rows) - count])  # the last batch is filled up
            count += len(found[-1])
            advance(len(found[-1]))
    return np.concatenate(found)
