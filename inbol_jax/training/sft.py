"""`inbol sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for
what is not."""

from pathlib import Path

from inbol_jax.losses import sft_loss
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import one_writer
from inbol_jax.records import Instruction
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import SftConfig
from inbol_jax.training.dataset import read_data, tokenize
from inbol_jax.training.finetune import finetune
from inbol_jax.training.model import load_model, prompt_of_lines
from inbol_jax.training.settings import make_schedule
from inbol_jax.training.step import Metrics, Objective, target_logprobs, token_counts


@one_writer
def sft(config: SftConfig) -> Path:
    """Runs or resumes IDK-IT. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    files = read_data(config, Instruction.from_json, "instruction")
    mesh = make_mesh(*config.runtime.mesh)
    schedule = make_schedule(config, len(files[0].lines), mesh)
    checkpoint = load_model(config, mesh, prompt_of_lines(config))
    datasets = []
    for file in files:
        texts = [(line.question, [line.response]) for line in file.lines]
        datasets.append(tokenize(checkpoint, texts, file, config.buckets))
    objective = sft_objective(checkpoint.model)
    return finetune(
        checkpoint, config, objective, datasets, mesh=mesh, schedule=schedule, label="IDK-IT"
    )


def sft_objective(model: VisionLanguageModel) -> Objective:
    """Mean negative log-likelihood per response token. Pre-training uses it too."""

    def objective(variables, reference, batch, key=None) -> Metrics:
        logprobs = target_logprobs(model, variables, batch, key)
        loss = sft_loss(logprobs, batch["target_segment"] > 0)
        return {"loss": loss, **token_counts(batch)}

    return objective
