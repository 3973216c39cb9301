"""How many generated Type 3 questions are garbled, on questions that people asked in public sets.

    python benchmarks/generated_questions.py --sources ~/clones
    python benchmarks/generated_questions.py --sources ~/clones --show 500 > to_read.tsv

The questions of five sets go through `inbol extrinsic`'s default generators and filters, a hundred
kept questions are drawn per set, and each is looked up in `generated_labels.tsv`, which holds what
a reader judged: "fine" or "garbled" by the SHA-256 of the text, since some sets' licences do not
allow to give their questions on. --sources names a folder with clones of the two repositories in
`SETS`, under their names. benchmarks/NOTES.md has the rule of judging and the figures.
"""

import dataclasses
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from refusal_detection import Source, records

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.extrinsic import GENERATORS_WITHOUT
from inbol_jax.extrinsic.filters import get_filters
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.extrinsic.generators import Context, get_generators
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import VQAExample

_EVALUATION = r"experiments/llava/eval/"
LABELS = Path(__file__).with_name("generated_labels.tsv")
POOL = 1500  # questions of a set that are drawn on
PER_SET = 100


def _llava_align(files: str, licence: str) -> Source:
    return Source("", "yfzhang114/LLaVA-Align", "dfbecfa", _EVALUATION + files, licence)


# Name -> repository and files; the folder of a clone is the repository's own name.
SETS = {
    "gqa": _llava_align(r"gqa/llava_gqa_testdev_balanced\.jsonl", "CC BY 4.0"),
    "textvqa": _llava_align(r"textvqa/llava_textvqa_val_v051_ocr\.jsonl", "CC BY 4.0"),
    "vizwiz": _llava_align(r"vizwiz/llava_test\.jsonl", "CC BY 4.0"),
    "scienceqa": _llava_align(r"scienceqa/answers/llava-v1\.5-13b\.jsonl", "CC BY-NC-SA 4.0"),
    "haloquest": Source("", "google/haloquest", "2f643eb", r"haloquest-\w+\.csv", "CC BY 4.0"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Print the share of garbled questions per set and per generator."""

    sources: Path
    """Folder with clones of the repositories, each under its own name."""
    show: int = 0
    """How many of the drawn questions to print in place of the figures, to be read."""


def asked(row: dict[str, Any]) -> tuple[tuple[str], str]:
    """Images and question of a row; the question is the first line of a prompt."""
    text = str(row.get("text") if "question_id" in row and "prompt" not in row else "")
    text = text or str(row.get("prompt") or row.get("question") or "")
    image = row.get("image") or row.get("url") or row.get("image_name") or row.get("question_id")
    return (str(image),), re.sub(r"^<image>\s*", "", text).split("\n")[0].strip()


def drawn(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Generator and text of a hundred kept questions."""
    source, rng = SETS[name], np.random.default_rng(0)
    rows = sorted({asked(row) for row in records(folder / source.repository.split("/")[1], source)})
    if not rows:
        raise InbolError(f"{folder}: no questions of {name}")
    examples = [VQAExample(f"{name}{i}", *rows[i]) for i in rng.permutation(len(rows))[:POOL]]
    funnel = Funnel(
        Context(examples),
        get_generators(GENERATORS_WITHOUT),
        get_filters((), lists_objects=False),
        seed=0,
        reject=lambda row: None,
    )
    kept = [*funnel.questions(4 * PER_SET)]
    for i in rng.permutation(len(kept))[:PER_SET]:
        yield kept[i]["generator"], kept[i]["question"]


def digest(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def main(config: Config) -> None:
    """Prints the figures, or the questions."""
    questions = [(name, *pair) for name in SETS for pair in drawn(name, config.sources)]
    if config.show:
        for name, generator, question in questions[: config.show]:
            print(name, generator, digest(question), question, sep="\t")
        return
    lines = LABELS.read_text(encoding="utf-8").splitlines()[1:]
    labels = dict(line.split("\t") for line in lines)
    unread = [q for *_, q in questions if digest(q) not in labels]
    if unread:
        print(f"{len(unread)} questions were not judged; read them with --show", file=sys.stderr)
    garbled, total = Counter[str](), Counter[str]()
    for name, generator, question in questions:
        if (label := labels.get(digest(question))) is None:
            continue
        for key in (name, generator, "all"):
            total[key] += 1
            garbled[key] += label == "garbled"
        if label == "garbled":
            print(f"  {name}, {generator}: {question}")
    for key, n in total.items():
        low, high = wilson_interval(garbled[key], n)
        print(
            f"{key:<16}{garbled[key]:>4} of {n:<4} {garbled[key] / n:.3f} [{low:.3f}, {high:.3f}]"
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except InbolError as error:
        raise SystemExit(str(error)) from error
