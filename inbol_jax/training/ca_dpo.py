"""`train.py dpo`: CA-DPO, preference optimisation weighted by the base model's confidence."""

import dataclasses
import math
from pathlib import Path

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import atomically, file_fingerprint, meta_path, read_jsonl, read_meta, write_json
from inbol_jax.data.batches import Branch, RowShape, pack_row, stack
from inbol_jax.errors import InbolError
from inbol_jax.losses import LOSSES, SCHEMES, smooths_labels
from inbol_jax.models.loading import Loaded
from inbol_jax.progress import progress, say
from inbol_jax.records import Preference
from inbol_jax.sampling.generate import load_pixels, make_text_encoder
from inbol_jax.sharding import make_mesh, round_batch, shard_batch
from inbol_jax.training.idk_it import MakeRow, StageConfig, check, check_lines, image_folder, load_model, run_stage
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
      scheme: pair weights from confidence: value (what the user gains by the chosen response), linear, margin, or uniform (plain DPO).
      anchor: weight of the negative log-likelihood a token of the chosen response, times the pair's own.
    """

    loss: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalized: bool = False
    reference_free: bool = False
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
    rows = list(read_jsonl(config.data))
    check_lines(config.data, rows, ("image", "question", "chosen", "rejected", "kind"), ("confidence",))
    try:
        pairs = [Preference.from_json(row) for row in rows]
    except (KeyError, TypeError) as error:
        raise InbolError(f"{config.data}: not a file of preference pairs ({error}); run `inbol build`") from error
    for number, pair in enumerate(pairs, 1):
        if not 0 <= pair.confidence <= 1:
            raise InbolError(f"{config.data}:{number}: confidence {pair.confidence} is not between 0 and 1; run `inbol build`")
    if not pairs:
        raise InbolError(f"{config.data} holds no pair")
    images = image_folder(config.data, config.images)
    loaded = load_model(config)
    text = make_text_encoder(loaded)
    packed = [(text.prompt(p.question), [Branch(text.response(p.question, r)) for r in (p.chosen, p.rejected)]) for p in pairs]
    shape = RowShape.fitting(packed)

    def row(index: int) -> dict[str, np.ndarray]:
        prompt, branches = packed[index]
        return pack_row(prompt, branches, shape) | {"pixel_values": load_pixels(loaded, images / pairs[index].image)[None]}

    reference = np.zeros((len(pairs), 2), np.float32) if config.reference_free else cached_reference(loaded, config, len(pairs), row)

    def row_with_reference(index: int) -> dict[str, np.ndarray]:
        pair = pairs[index]
        return row(index) | {
            "ref_chosen": reference[index, 0],
            "ref_rejected": reference[index, 1],
            "confidence": np.float32(pair.confidence),
            "kind": np.int32(pair.kind),
        }

    objective = ca_dpo_objective(
        loaded.model,
        beta=config.beta,
        scheme=config.scheme,
        anchor=config.anchor,
        loss=config.loss,
        length_normalized=config.length_normalized,
        **options,
    )
    folder = run_stage(loaded, config, objective, len(pairs), row_with_reference, "CA-DPO")
    say(f"CA-DPO on {len(pairs)} pairs, {config.epochs} epochs -> {folder}")
    return folder


def loss_options(config: DpoConfig) -> dict[str, float]:
    """The keywords of the chosen loss, `beta` aside.

    Raises:
      InbolError: for a loss or scheme that is not registered, and for values that the loss cannot take.
    """
    for option, known in (("loss", LOSSES), ("scheme", SCHEMES)):
        if getattr(config, option) not in known:
            raise InbolError(f"--{option} {getattr(config, option)!r}: choose one of {', '.join(known)}")
    if not 0 < config.beta < math.inf or not 0 <= config.anchor < math.inf:
        raise InbolError(f"--beta {config.beta} must be greater than 0 and --anchor {config.anchor} at least 0")
    if not 0 <= config.label_smoothing < 0.5:
        raise InbolError(f"--label-smoothing {config.label_smoothing}: at least 0 and less than 0.5 is needed")
    if smooths_labels(config.loss):
        return {"label_smoothing": config.label_smoothing}
    if config.label_smoothing:
        raise InbolError(f"--label-smoothing {config.label_smoothing}: the loss {config.loss!r} has none")
    return {}


def cached_reference(loaded: Loaded, config: DpoConfig, n: int, row: MakeRow) -> np.ndarray:
    """`reference_logprobs`, computed once a run: OUT/reference.npy keeps them, with a header of what they were computed from.

    Raises:
      InbolError: when the file belongs to another model, other pairs or another way of averaging.
    """
    file = config.out / "reference.npy"
    made_from = {"command": "reference", "model": loaded.fingerprint, "data": file_fingerprint(config.data)}
    made_from |= {"average": config.length_normalized, "dtype": loaded.model.dtype.name}
    if file.exists() and (header := read_meta(file)):  # without a header it is not finished
        if header != made_from:
            raise InbolError(f"{file} holds the reference of another model or other pairs; choose another --out or delete it")
        try:
            found = np.load(file)  # numpy's default refuses pickles
        except (OSError, ValueError) as error:
            raise InbolError(f"{file}: cannot be read ({error}); delete it") from error
        if found.shape != (n, 2):
            raise InbolError(f"{file}: its shape is {found.shape}, {(n, 2)} is needed; delete it")
        return found
    meta_path(file).unlink(missing_ok=True)
    mesh = make_mesh(*config.mesh)
    found = reference_logprobs(loaded, n, row, batch_size=4 * config.batch_size, mesh=mesh, average=config.length_normalized)
    with atomically(file) as temporary, temporary.open("wb") as handle:
        np.save(handle, found)
    write_json(meta_path(file), made_from)
    return found


def reference_logprobs(loaded: Loaded, n: int, row: MakeRow, *, batch_size: int, mesh: Mesh, average: bool = False) -> np.ndarray:
    """f32[n, 2]: log-probabilities of chosen and rejected (summed, or averages) under the frozen reference, once for all epochs."""
    size = round_batch(min(batch_size, n), mesh)
    dataset = grain.MapDataset.range(n).map(row).batch(size, drop_remainder=False, batch_fn=lambda rows: stack(rows, size))
    run = jax.jit(lambda variables, batch: pair_logprobs(target_logprobs(loaded.model, variables, batch), batch, average=average))
    found = []
    with progress("reference", n, "pairs") as advance:
        for batch in dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)):
            logprobs = np.stack(jax.device_get(run(loaded.variables, shard_batch(batch, mesh))), axis=1)
            found.append(logprobs[batch["valid"]])
            advance(len(found[-1]))
    return np.concatenate(found)
