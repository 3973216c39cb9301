"""`inbol sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for
what is not.
"""

from pathlib import Path

import jax

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.losses import sft_loss
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.training.config import SftConfig
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


def sft(config: SftConfig) -> Path:
    """Runs or resumes IDK-IT. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    files = [config.data, *filter(None, [config.evaluation.eval_data])]
    lines = [read_instructions(file) for file in files]
    images = [
        image_paths(file, config.images, (row["image"] for row in rows))
        for file, rows in zip(files, lines, strict=True)
    ]
    checkpoint = load_model(config)
    dataset, *eval_dataset = (
        instruction_dataset(checkpoint, rows, paths, config.buckets)
        for rows, paths in zip(lines, images, strict=True)
    )
    folder = finetune(
        checkpoint,
        config,
        sft_objective(checkpoint.model),
        dataset,
        "IDK-IT",
        eval_dataset=eval_dataset[0] if eval_dataset else None,
    )
    if is_main():
        say(f"IDK-IT on {len(dataset)} instructions, {config.epochs} epochs -> {folder}")
    return folder


def read_instructions(file: Path) -> list[dict[str, str]]:
    """The lines of an instruction file.

    Raises:
      InbolError: if there are none, or one lacks what is needed.
    """
    rows = list(read_jsonl(file))
    if not rows:
        raise InbolError(f"{file} holds no instruction")
    check_lines(file, rows, ("image", "question", "response"))
    return rows


def instruction_dataset(
    checkpoint: Checkpoint, lines: list[dict[str, str]], images: list[Path], buckets: int
) -> PackedDataset:
    """Prompt and response of each line, tokenized. The response's tokens are the targets."""
    text = make_text_encoder(checkpoint)
    rows = []
    for line in lines:
        response = text.response(line["question"], line["response"])
        rows.append((text.prompt(line["question"]), [Branch(response)]))
    return PackedDataset(checkpoint, rows, images, bucket_shapes(rows, buckets))


def sft_objective(model: Llava) -> Objective:
    """Mean negative log-likelihood per response token. Pre-training uses it too."""

    def objective(
        variables: Variables,
        reference: Variables | None,
        batch: Batch,
        key: jax.Array | None = None,
    ) -> Metrics:
        logprobs = target_logprobs(model, variables, batch, key)
        loss = sft_loss(logprobs, batch["target_segment"] > 0)
        return {"loss": loss, **token_counts(batch)}

    return objective
