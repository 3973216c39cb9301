"""Memory and rate of a million questions, stage by stage, each in a process of its own.

    python benchmarks/million.py --out DIR               # a million
    python benchmarks/million.py --out DIR --n 100000

The questions are written as an official JSON pair of VQAv2, with ten answers each and five questions an image.

  import   the pair through its adapter into a dataset folder
  check    every record and every picture, decoded and hashed
  confidence
           questions read, prompts made, batches planned and results appended to the store, as `inbol confidence` does it; a stand-in
           answers in the model's place, and no pixels are made for it
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from stages import measure, run_each

from inbol_jax.data.check import CheckConfig, check
from inbol_jax.data.config import DataConfig
from inbol_jax.data.importing import ImportConfig, import_data

ADJECTIVES = ("red", "small", "old", "wet", "left", "tall", "striped", "broken")
NOUNS = ("dog", "cup", "sign", "bus", "hat", "door", "bird", "plate", "boat", "tree")
ANSWERS = (*ADJECTIVES, *NOUNS, "yes", "no", "2", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """What a million questions take.

    Attributes:
      out: folder for everything; about 3 GB for a million questions.
      n: questions.
      stages: in their order; what a stage before them wrote must be there.
      stage: run one of them in this process (the benchmark calls itself with it).
    """

    out: Path
    n: int = 1_000_000
    stages: tuple[str, ...] = ("import", "check", "confidence")
    stage: str = ""


def write_pair(folder: Path, n: int) -> None:
    """Questions, annotations and images; pictures are a few, under many names."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    kinds = [folder / f"picture{i}.png" for i in range(16)]
    for file in kinds:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    (folder / "val2014").mkdir()
    for i in range(-(-n // 5)):
        os.link(kinds[i % len(kinds)], folder / f"val2014/COCO_val2014_{i:012d}.jpg")

    def questions() -> Iterator[dict[str, Any]]:
        for i in range(n):
            words = f"What is the {ADJECTIVES[i % 8]} {NOUNS[i // 8 % 10]} {i} next to?"
            yield {"image_id": i // 5, "question": words, "question_id": i}

    def annotations() -> Iterator[dict[str, Any]]:
        for i in range(n):
            said = rng.choice(ANSWERS, 3)[rng.integers(0, 3, 10)]
            answers = [
                {"answer": str(answer), "answer_confidence": "yes", "answer_id": j + 1}
                for j, answer in enumerate(said)
            ]
            common = {
                "question_type": "what is the",
                "multiple_choice_answer": answers[0]["answer"],
                "answer_type": "other",
            }
            yield {**common, "answers": answers, "image_id": i // 5, "question_id": i}

    for key, rows in (("questions", questions()), ("annotations", annotations())):
        with (folder / f"{key}.json").open("w") as file:
            file.write(f'{{"info": {{"version": "2.0"}}, "data_subtype": "val2014", "{key}": [')
            for i, row in enumerate(rows):
                file.write((", " if i else "") + json.dumps(row))
            file.write("]}")


def import_pair(config: Config) -> None:
    """`inbol data import`."""
    pair = config.out / "pair"
    data = DataConfig(
        format="vqav2",
        questions=pair / "questions.json",
        annotations=pair / "annotations.json",
        images=pair / "val2014",
        split="val2014",
    )
    import_data(ImportConfig(data, config.out / "set"))


def check_all(config: Config) -> None:
    """`inbol data check`."""
    check(CheckConfig(config.out / "set", config.out / "checked"))


def confidence(config: Config) -> None:
    """`inbol confidence` with a stand-in for the model."""
    from inbol_jax.confidence.config import ConfidenceConfig
    from inbol_jax.confidence.estimate import estimate
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
        checkpoint: Any, question: Any, length: int, images: Path
    ) -> dict[str, np.ndarray]:
        return {"question": np.uint32(0), "input_ids": np.zeros(length, np.int32)}

    generate.compiled_sample, generate.model_inputs = stand_in, no_pixels
    generate.TILE = 1024  # batches as large as an accelerator's: each is synced to the disk
    estimate(
        ConfidenceConfig(config.out / "set", config.out / "run", sampling=SamplingOptions(n=2))
    )


STAGES: dict[str, Callable[[Config], None]] = {
    "import": import_pair,
    "check": check_all,
    "confidence": confidence,
}


def main(config: Config) -> None:
    """Prints a line for each stage: seconds, questions a second, and the most memory that its process held."""
    if config.stage:
        measure(config.stage, config.n, lambda: STAGES[config.stage](config))
        return
    if not (config.out / "pair").exists():
        write_pair(config.out / "pair", config.n)
    run_each(__file__, config.out, config.n, config.stages)


if __name__ == "__main__":
    main(tyro.cli(Config))
