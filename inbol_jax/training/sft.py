"""`train.py sft`: IDK-IT, instruction tuning on correct responses for what is known and refusals for what is not."""

import dataclasses
from pathlib import Path

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.training.input import Rows
from inbol_jax.training.stage import (
    StageConfig,
    check,
    check_lines,
    image_paths,
    load_model,
    run_stage,
)
from inbol_jax.training.step import sft_objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(StageConfig):
    """IDK-IT: fine-tune on IDK instructions."""


def idk_it(config: SftConfig) -> Path:
    """Runs or resumes IDK-IT. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    check(config)
    files = [config.data] + ([config.eval_data] if config.eval_data else [])
    lines = [read_instructions(file) for file in files]
    images = [
        image_paths(file, config.images, (r["image"] for r in rows))
        for file, rows in zip(files, lines, strict=True)
    ]
    loaded = load_model(config)
    rows, *scored = [
        instruction_rows(loaded, r, i, config.buckets) for r, i in zip(lines, images, strict=True)
    ]
    folder = run_stage(
        loaded,
        config,
        sft_objective(loaded.model),
        rows,
        "IDK-IT",
        scored=scored[0] if scored else None,
    )
    if is_main():
        say(f"IDK-IT on {len(rows)} instructions, {config.epochs} epochs -> {folder}")
    return folder


def read_instructions(file: Path) -> list[dict[str, str]]:
    """Lines of an instruction file.

    Raises:
      InbolError: when there are none, or one lacks what is needed.
    """
    rows = list(read_jsonl(file))
    if not rows:
        raise InbolError(f"{file} holds no instruction")
    check_lines(file, rows, ("image", "question", "response"))
    return rows


def instruction_rows(
    loaded: Checkpoint, lines: list[dict[str, str]], images: list[Path], buckets: int
) -> Rows:
    """Prompt and response of each line, tokenized."""
    text = make_text_encoder(loaded)
    packed = [
        (text.prompt(r["question"]), [Branch(text.response(r["question"], r["response"]))])
        for r in lines
    ]
    return Rows.of(loaded, packed, images, buckets)
