"""Preference pairs in TRL's layout as pairs for `inbol dpo`.

    python examples/from_trl.py --pairs pairs.parquet --out run
    inbol dpo --data run/preferences.jsonl --out run/ca_dpo --model llava-hf/llava-1.5-7b-hf

A pair has `prompt`, `chosen` and `rejected`, each a text or messages of one turn, and `images` or
`image`: pictures, or paths beside the file. RLAIF-V's `question` stands for `prompt`. Which of both
responses refuses says what a pair teaches. `confidence` is how often the model answers correctly;
without it the pair counts as one of 0.5. `--pair-weighting uniform` is DPO as TRL has it.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import tyro
from PIL import Image

from inbol_jax.artifacts import write_jsonl
from inbol_jax.data.folder import Unusable, image_check
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.records import PairKind
from inbol_jax.responses.refusal import is_refusal


@dataclasses.dataclass(frozen=True)
class Config:
    pairs: Path
    """A .parquet, .jsonl or .json file."""
    out: Path
    """Gets preferences.jsonl and images/."""


def text_of(value: Any) -> str:
    """What a text or the messages of one turn say; ValueError if there are several turns."""
    if isinstance(value, str):
        return value.strip()
    if len(value) != 1:
        raise ValueError(f"{len(value)} turns")
    content = value[0]["content"]
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content if part.get("text"))
    return content.strip()


def kind_of(chosen: str, rejected: str) -> PairKind:
    """What a pair teaches."""
    if is_refusal(chosen):
        return PairKind.REFUSAL_OVER_INCORRECT
    return (
        PairKind.CORRECT_OVER_REFUSAL if is_refusal(rejected) else PairKind.CORRECT_OVER_INCORRECT
    )


def rows(config: Config) -> Iterator[dict[str, Any]]:
    """The rows of preferences.jsonl; pictures are written on the way."""
    kind = "parquet" if config.pairs.suffix == ".parquet" else "json"
    pairs = datasets.load_dataset(kind, data_files=str(config.pairs), split="train")
    (config.out / "images").mkdir(parents=True, exist_ok=True)
    inside, set_aside = image_check(config.pairs.parent), []
    for number, pair in enumerate(pairs):
        try:
            question = text_of(pair.get("prompt") or pair["question"])
            chosen, rejected = text_of(pair["chosen"]), text_of(pair["rejected"])
            images = pair.get("images") or [pair["image"]]
            names = [f"images/{number:06}-{i}.png" for i in range(len(images))]
            for image, name in zip(images, names, strict=True):
                if not isinstance(image, Image.Image):
                    inside(image)  # no path leaves the file's folder
                    image = load_image(config.pairs.parent / image)
                image.save(config.out / name)
        except (ValueError, KeyError, TypeError, Unusable, ImageError) as cause:
            set_aside.append(f"pair {number} ({cause!r})")
            continue
        confidence = pair.get("confidence")
        about = {"id": str(pair.get("id") or number), "images": names, "type": None}
        about |= {"kind": kind_of(chosen, rejected), "question": question}
        about["confidence"] = 0.5 if confidence is None else confidence
        yield about | {"chosen": chosen, "rejected": rejected}
    if set_aside:
        print(f"{len(set_aside)} pairs set aside, the first is {set_aside[0]}")


def main(config: Config) -> None:
    file = config.out / "preferences.jsonl"
    print(f"{write_jsonl(file, rows(config), {'images': '.'})} pairs -> {file}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
