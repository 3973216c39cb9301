"""`inbol sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for
what is not."""

import functools
from pathlib import Path

from inbol_jax.losses import sft_loss
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import one_writer
from inbol_jax.records import Instruction
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import SftConfig
from inbol_jax.training.dataset import in_order, read_data, tokenize, training_batches
from inbol_jax.training.model import load_model, prompt_of_lines, save_trained, take_apart
from inbol_jax.training.settings import make_schedule, run_settings
from inbol_jax.training.step import Metrics, Objective, make_program, target_logprobs, token_counts
from inbol_jax.training.trainer import Trainer


@one_writer
def sft(config: SftConfig) -> Path:
    """Runs or resumes IDK-IT. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    # ---- The instructions, and the model on the mesh
    files = read_data(config, Instruction.from_json, "instruction")
    mesh = make_mesh(*config.runtime.mesh)
    schedule = make_schedule(config, len(files[0].lines), mesh)
    checkpoint = load_model(config, mesh, prompt_of_lines(config))
    config = config.with_rate(adapters=checkpoint.model.lora is not None)

    # ---- Packed rows
    datasets = []
    for file in files:
        texts = [(line.question, [line.response]) for line in file.lines]
        datasets.append(tokenize(checkpoint, file, texts, buckets=config.buckets))
    dataset, *others = datasets

    # ---- The loss, and the run
    objective = sft_objective(checkpoint.model)
    program = make_program(objective, config, schedule.steps)
    variables = take_apart(checkpoint, config)
    about = {"data": dataset.file.fingerprint, "pictures": dataset.file.pictures}
    settings = run_settings("IDK-IT", config, checkpoint, schedule, **about)
    trainer = Trainer(config, program, *variables, mesh, settings, schedule.steps)
    state = trainer.fit(
        training_batches(dataset, schedule, config.seed, mesh),
        *(functools.partial(in_order, other, mesh, schedule.micro_batch) for other in others),
    )
    return save_trained(checkpoint, config, state, "IDK-IT")


def sft_objective(model: VisionLanguageModel) -> Objective:
    """Mean negative log-likelihood per response token. Pre-training uses it too."""

    def objective(variables, batch) -> Metrics:
        logprobs = target_logprobs(model, variables, batch)
        loss = sft_loss(logprobs, batch["target_segment"] > 0)
        return {"loss": loss, **token_counts(batch)}

    return objective
