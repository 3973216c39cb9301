"""The frozen reference of CA-DPO: log-probabilities of all pairs, computed once and kept in the
run's folder.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.artifacts import atomically, file_fingerprint, meta_path, read_meta, write_json
from inbol_jax.errors import InbolError
from inbol_jax.losses import PairLogprobs, sequence_logprob
from inbol_jax.processes import is_main
from inbol_jax.progress import progress
from inbol_jax.sharding import make_mesh, shard_batch
from inbol_jax.training.config import DpoConfig
from inbol_jax.training.dataset import PackedDataset, in_order
from inbol_jax.training.objective import Batch, target_logprobs

CHOSEN, REJECTED = 1, 2  # branches of a pair's row, which share image and prompt


def pair_logprobs(logprobs: jax.Array, batch: Batch, *, average: bool) -> PairLogprobs:
    """Summed or averaged log-probabilities of chosen and rejected, from those of the targets f32[b,
    a].
    """
    chosen, rejected = (
        sequence_logprob(logprobs, batch["target_segment"] == branch, average=average)
        for branch in (CHOSEN, REJECTED)
    )
    return PairLogprobs(chosen, rejected)


def cached_reference(
    dataset: PackedDataset, config: DpoConfig, data: Path, name: str
) -> PackedDataset:
    """The pairs with the reference's log-probabilities, which OUT/`name` keeps.

    Args:
      data: file of the pairs.
    Raises:
      InbolError: if the file holds the reference of another model, of other pairs, or with another
        way of averaging.
    """
    file, checkpoint = config.out / name, dataset.checkpoint
    average = config.pair_loss.length_normalized
    header = {
        "command": "reference",
        "model": checkpoint.fingerprint,
        "data": file_fingerprint(data),
        "average": average,
        "dtype": checkpoint.model.dtype.name,
    }
    logprobs = _read_reference(file, header, len(dataset))
    if logprobs is None:
        # Without gradients four times as many rows fit as in a micro-batch.
        size = 4 * -(-config.batch_size // config.gradient_accumulation_steps)
        mesh = make_mesh(*config.runtime.mesh)
        logprobs = reference_logprobs(dataset, batch_size=size, mesh=mesh, average=average)
        # All processes have looked for the file by now: each of them took part in the computation.
        if is_main():
            meta_path(file).unlink(missing_ok=True)
            with atomically(file) as temporary, temporary.open("wb") as handle:
                np.save(handle, logprobs)
            write_json(meta_path(file), header)
    columns = {"ref_chosen": logprobs[:, 0], "ref_rejected": logprobs[:, 1]}
    return dataclasses.replace(dataset, columns={**dataset.columns, **columns})


def _read_reference(file: Path, header: dict[str, object], pairs: int) -> np.ndarray | None:
    """The file's log-probabilities f32[n, 2]; None if it is not there, or not finished."""
    if not file.exists() or not (found_header := read_meta(file)):
        return None
    if found_header != header:
        raise InbolError(
            f"{file} holds the reference of another model or other pairs; choose another --out or "
            "delete it"
        )
    try:
        logprobs = np.load(file)  # numpy's default refuses pickles
    except (OSError, ValueError) as error:
        raise InbolError(f"{file}: cannot be read ({error}); delete it") from error
    if logprobs.shape != (pairs, 2):
        raise InbolError(
            f"{file}: its shape is {logprobs.shape}, {(pairs, 2)} is needed; delete it"
        )
    return logprobs


def reference_logprobs(
    dataset: PackedDataset, *, batch_size: int, mesh: Mesh, average: bool = False
) -> np.ndarray:
    """Log-probabilities of chosen and rejected under the frozen reference, f32[n, 2]."""
    checkpoint = dataset.checkpoint

    def score(variables, batch: Batch) -> PairLogprobs:
        logprobs = target_logprobs(checkpoint.model, variables, batch)
        return pair_logprobs(logprobs, batch, average=average)

    run = jax.jit(score, out_shardings=NamedSharding(mesh, PartitionSpec()))
    parts, count = [], 0
    with progress("reference", len(dataset), "pairs", shown=is_main()) as advance:
        for batch in in_order(dataset, mesh, batch_size):
            pair = jax.device_get(run(checkpoint.variables, shard_batch(batch, mesh)))
            part = np.stack(pair, axis=1)[: len(dataset) - count]  # the last batch is filled up
            parts.append(part)
            count += len(part)
            advance(len(part))
    return np.concatenate(parts)
