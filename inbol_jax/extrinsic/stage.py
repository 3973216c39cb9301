"""`inbol extrinsic`: Type 3 questions about the images of a dataset, as a dataset of their own."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_meta, write_jsonl
from inbol_jax.data.vqa import data_file, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import propose
from inbol_jax.progress import say


@dataclasses.dataclass(frozen=True)
class ExtrinsicConfig:
    """Generate and filter questions that the images of a dataset cannot answer (Type 3).

    Attributes:
      data: dataset folder or .jsonl file whose images and questions are drawn on.
      out: the questions go to OUT/extrinsic.jsonl, a dataset that `inbol confidence --data` reads.
      images: image folder, where it is not the dataset's own.
      share: how many to make, as a share of the dataset's questions.
      seed: of the choice.
    """

    data: Path
    out: Path
    images: Path | None = None
    share: float = 0.25
    seed: int = 0


def extrinsic(config: ExtrinsicConfig) -> Path:
    """Writes the questions. Returns their file.

    Raises:
      InbolError: when the dataset gives no such question.
    """
    if not 0 < config.share <= 1:
        raise InbolError(f"--share {config.share}: a share between 0 and 1 is needed")
    dataset = load_dataset_folder(config.data, images=config.images)
    source = data_file(config.data)
    file = config.out / "extrinsic.jsonl"
    settings = {"command": "extrinsic", "dataset": file_fingerprint(source), "share": config.share, "seed": config.seed}
    identity = fingerprint(settings)
    if read_meta(file).get("config") != identity:
        examples = [e for e in dataset.examples if e.answerable is not False]
        if not examples:
            raise InbolError(f"{source}: holds no question that the images answer; Type 3 questions are made beside those")
        counts: Counter = Counter()
        rows = list(propose(examples, max(1, round(config.share * len(examples))), config.seed, counts))
        if not rows:
            raise InbolError(
                f"{source}: no question names a subject ('the ...') that could be asked about; give the images an `objects` column"
            )
        trail = {f"{generator}: {verdict}": n for (generator, verdict), n in sorted(counts.items())}
        images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
        write_jsonl(file, rows, settings | {"config": identity, "images": images, "counts": trail})
    meta = read_meta(file)
    say(f"{meta['rows']} Type 3 questions ({', '.join(f'{k} {v}' for k, v in meta['counts'].items())}) -> {file}")
    return file
