"""How long a million questions take, and how much memory, stage by stage.

    python benchmarks/million.py --out DIR               # a million
    python benchmarks/million.py --out DIR --n 100000

The questions are written as an official JSON pair of VQAv2, with ten answers each and five
questions per image. Each stage runs in a process of its own.

  import      `inbol data import`: the pair becomes a dataset folder
  check       `inbol data check`: every picture is decoded and hashed
  confidence  `inbol confidence`: questions are read, prompts made, batches planned and results
              stored; a stand-in answers in place of the model, and no pixels are made for it
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from stages import measure, run_each

from inbol_jax.data.check import check_dataset
from inbol_jax.data.config import CheckConfig, ImportConfig
from inbol_jax.data.importing import import_data

ADJECTIVES = ("red", "small", "old", "wet", "left", "tall", "striped", "broken")
NOUNS = ("dog", "cup", "sign", "bus", "hat", "door", "bird", "plate", "boat", "tree")
ANSWERS = (*ADJECTIVES, *NOUNS, "yes", "no", "2", "3")
QUESTIONS_PER_IMAGE = 5
PICTURES = 16


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures each stage on many questions."""

    out: Path
    """Folder for all files; a million questions take about 3 GB."""
    n: int = 1_000_000
    """Number of questions."""
    stages: tuple[str, ...] = ("import", "check", "confidence")
    """Stages to run, in their order; a stage needs the files of the stages before it."""
    stage: str = ""
    """Run only this stage, in this process. The benchmark calls itself with this option."""


def write_pair(folder: Path, n: int) -> None:
    """Writes questions, annotations and images; a few pictures have many names."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = [folder / f"picture{i}.png" for i in range(PICTURES)]
    for picture in pictures:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(picture)
    images = folder / "val2014"
    images.mkdir()
    for i in range(-(-n // QUESTIONS_PER_IMAGE)):  # rounded up
        os.link(pictures[i % PICTURES], images / f"COCO_val2014_{i:012d}.jpg")
    _write_list(folder / "questions.json", "questions", map(_question, range(n)))
    _write_list(folder / "annotations.json", "annotations", _annotations(n, rng))


def _question(i: int) -> dict[str, Any]:
    text = f"What is the {ADJECTIVES[i % 8]} {NOUNS[i // 8 % 10]} {i} next to?"
    return {"image_id": i // QUESTIONS_PER_IMAGE, "question": text, "question_id": i}


def _annotations(n: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for i in range(n):
        texts = rng.choice(ANSWERS, 3)[rng.integers(0, 3, 10)]
        answers = []
        for number, text in enumerate(texts, 1):
            answer = {"answer": str(text), "answer_confidence": "yes", "answer_id": number}
            answers.append(answer)
        yield {
            "question_type": "what is the",
            "multiple_choice_answer": answers[0]["answer"],
            "answer_type": "other",
            "answers": answers,
            "image_id": i // QUESTIONS_PER_IMAGE,
            "question_id": i,
        }


def _write_list(path: Path, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w") as file:
        file.write(f'{{"info": {{"version": "2.0"}}, "data_subtype": "val2014", "{key}": [')
        for i, row in enumerate(rows):
            file.write((", " if i else "") + json.dumps(row))
        file.write("]}")


def import_pair(config: Config) -> None:
    """`inbol data import`."""
    pair = config.out / "pair"
    data = ImportConfig(
        config.out / "set",
        format="vqav2",
        id=str(pair / "questions.json"),
        annotations=pair / "annotations.json",
        images=pair / "val2014",
        split="val2014",
    )
    import_data(data)


def check_set(config: Config) -> None:
    """`inbol data check`."""
    check_dataset(CheckConfig(config.out / "set", config.out / "checked"))


def confidence(config: Config) -> None:
    """`inbol confidence` with a stand-in for the model."""
    from inbol_jax.commands import run
    from inbol_jax.confidence.config import ConfidenceConfig
    from inbol_jax.sampling import generate
    from inbol_jax.sampling.config import SamplingOptions
    from inbol_jax.sampling.sampler import Samples

    def stand_in(model: Any, variables: Any, batch: Any, *, key: Any, options: Any) -> Samples:
        shape = (batch["question"].shape[0], options.n, 4)
        return Samples(
            np.full(shape, 300, np.int32),
            np.full(shape, -0.5, np.float32),
            np.full(shape[:2], 4, np.int32),
        )

    def no_pixels(
        checkpoint: Any, question: Any, shape: generate.BatchShape, images: Path
    ) -> dict[str, np.ndarray]:
        return {"question": np.uint32(0), "input_ids": np.zeros(shape.length, np.int32)}

    generate.compiled_sample, generate.model_inputs = stand_in, no_pixels
    generate.TILE = 1024  # as large as an accelerator's batches; each is synced to the disk
    sampling = SamplingOptions(n=2)
    run("confidence", ConfidenceConfig(config.out / "set", config.out / "run", sampling=sampling))


STAGES: dict[str, Callable[[Config], None]] = {
    "import": import_pair,
    "check": check_set,
    "confidence": confidence,
}


def main(config: Config) -> None:
    """Prints one line per stage: seconds, questions per second, and peak memory."""
    if config.stage:
        measure(config.stage, config.n, lambda: STAGES[config.stage](config))
        return
    if not (config.out / "pair").exists():
        write_pair(config.out / "pair", config.n)
    run_each(__file__, config.out, config.n, config.stages)


if __name__ == "__main__":
    main(tyro.cli(Config))
