"""What IDK-IT and CA-DPO share: how a model is trained on a dataset of given responses, and saved
(`save_trained`, on-policy refusal's too)."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from inbol_jax.models.loading import Checkpoint, save_pretrained
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.prompts import write_prompt
from inbol_jax.sharding import local_rows
from inbol_jax.training.config import RunConfig, TrainConfig
from inbol_jax.training.dataset import PackedDataset, in_order, stream_batches, training_order
from inbol_jax.training.parallel import PARALLEL
from inbol_jax.training.run import Evaluation, Run
from inbol_jax.training.settings import Schedule, run_settings
from inbol_jax.training.step import Metrics, Objective, TrainState, init_state, make_program
from inbol_jax.training.throughput import Meter, peak_flops, training_flops
from inbol_jax.training.variables import Parts, check_weights, merge_variables, take_apart


def finetune(
    checkpoint: Checkpoint,
    config: TrainConfig,
    objective: Objective,
    datasets: Sequence[PackedDataset],
    *,
    mesh: Mesh,
    schedule: Schedule,
    label: str,
    online_reference: bool = False,
) -> Path:
    """Trains on a dataset and saves the model. Returns its folder.

    Args:
      datasets: rows of --data, and of --eval-data if it is given.
      label: name of the stage, for messages and for the run's settings.
      online_reference: hand the objective the variables as they were at the start.
    Raises:
      InbolError: if an option does not fit the model, or training cannot go on.
    """
    dataset, *eval_datasets = datasets
    size, steps = schedule.batch_size, schedule.steps

    # What is trained, and the step, on the devices
    parts = take_apart(checkpoint, config, reference=online_reference)
    program = make_program(objective, config, steps)
    parallel = PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step)
    frozen, reference = parallel.place(parts.frozen), parallel.place(parts.reference)

    # Batch i of the run, for any i
    lengths = [row.tokens for row in dataset.sizes]
    grouped = len(dataset.shapes) > 1
    order = training_order(lengths, size, schedule.epochs, config.seed, grouped=grouped)
    batches = functools.partial(stream_batches, dataset, order, local_rows(mesh, size), stop=steps)

    def score(state: TrainState) -> Iterator[Metrics]:
        for batch in in_order(eval_datasets[0], mesh, size // config.gradient_accumulation_steps):
            yield parallel.score(state, frozen, reference, parallel.shard(batch))

    flops = training_flops(
        checkpoint.config,
        parts.trainable,
        parts.frozen,
        targets=float(np.mean([row.targets for row in dataset.sizes])),
        tiles=float(np.mean(dataset.tiles)),
        forwards=1 if online_reference else 0,
    )
    data, pictures = dataset.data, dataset.pictures
    settings = run_settings(checkpoint, config, schedule, label, data=data, pictures=pictures)
    run = Run(
        config,
        settings,
        label=label,
        parallel=parallel,
        total_steps=steps,
        evaluation=Evaluation(config.evaluation.eval_steps, score) if eval_datasets else None,
        meter=Meter(flops, peak_flops(mesh.size)),
    )
    with run:
        state = run.resume(init_state(parts.trainable, program.optimizer, mesh))
        for batch in batches(run.step):
            state, metrics = parallel.run(state, frozen, reference, parallel.shard(batch))
            run.end_step(state, metrics)
        state = run.finish(state)
    return save_trained(checkpoint, config, parts, state, label)


def save_trained(
    checkpoint: Checkpoint, config: RunConfig, parts: Parts, state: TrainState, label: str
) -> Path:
    """Saves the trained model. Returns its folder. Raises InbolError if its weights are broken."""
    trained = {path: x.astype(parts.dtypes[path]) for path, x in state.params.items()}
    check_weights(trained, f"{label}: no model is saved, lower --learning-rate")
    variables = merge_variables(trained, parts.frozen)
    folder = config.out / "model"
    save_pretrained(dataclasses.replace(checkpoint, variables=variables), folder)
    if is_main():
        if checkpoint.prompt:
            write_prompt(folder, checkpoint.prompt)
        say(f"{label}: {int(state.step)} steps -> {folder}")
    return folder
