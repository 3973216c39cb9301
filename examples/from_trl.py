"""Preference pairs in TRL's layout as pairs for `inbol dpo`.

    python examples/from_trl.py --pairs pairs.parquet --out run
    inbol dpo --data run/preferences.jsonl --out run/ca_dpo --model llava-hf/llava-1.5-7b-hf

A pair has `prompt`, `chosen` and `rejected`, each a text or messages of one turn, and `images` or
`image`: pictures, or paths beside the file. RLAIF-V's `question` stands for `prompt`. Which of both
responses refuses says what a pair teaches. `confidence` is how often the model answers correctly;
without it the pair counts as one of 0.5. `--pair-weighting uniform` is DPO as TRL has it.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import tyro

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
    """What a pair teaches; ValueError if both responses refuse."""
    if is_refusal(chosen) and is_refusal(rejected):
        raise ValueError("both responses refuse")
    if is_refusal(chosen):
        return PairKind.REFUSAL_OVER_INCORRECT
    return (
        PairKind.CORRECT_OVER_REFUSAL if is_refusal(rejected) else PairKind.CORRECT_OVER_INCORRECT
    )


def read_pairs(file: Path) -> datasets.Dataset:
    """The pairs of a file. Pictures in it stay the bytes that they are."""
    kind = "parquet" if file.suffix == ".parquet" else "json"
    pairs = datasets.load_dataset(kind, data_files=str(file), split="train")
    encoded = datasets.Image(decode=False)
    if "image" in pairs.features and isinstance(pairs.features["image"], datasets.Image):
        pairs = pairs.cast_column("image", encoded)
    if "images" in pairs.features and "Image(" in repr(pairs.features["images"]):
        pairs = pairs.cast_column("images", datasets.List(encoded))
    return pairs


def rows(pairs: datasets.Dataset, folder: Path, out: Path) -> Iterator[dict[str, Any]]:
    """The rows of preferences.jsonl; pictures are written on the way.

    Args:
      folder: that of the pairs, from which paths of pictures start.
    """
    (out / "images").mkdir(parents=True)
    inside, set_aside = image_check(folder), []
    for number, pair in enumerate(pairs):
        try:
            question = text_of(pair.get("prompt") or pair["question"])
            question = question.removeprefix("<image>").strip()
            chosen, rejected = text_of(pair["chosen"]), text_of(pair["rejected"])
            id, confidence = pair.get("id"), pair.get("confidence")
            row = {
                "id": str(number if id is None else id),
                "images": [],
                "question": question,
                "type": None,
                "kind": kind_of(chosen, rejected),
                "confidence": 0.5 if confidence is None else confidence,
                "chosen": chosen,
                "rejected": rejected,
            }
            if not 0 <= row["confidence"] <= 1:
                raise ValueError(f"confidence {confidence}")
            for i, image in enumerate(pair.get("images") or [pair["image"]]):
                image = image if isinstance(image, dict) else {"bytes": None, "path": image}
                held, path = image["bytes"], image["path"]
                if held is None:
                    inside(path)  # no path leaves the folder
                source = folder / path if held is None else io.BytesIO(held)
                row["images"].append(f"images/{number:06}-{i}.png")
                load_image(source).save(out / row["images"][-1])
        except (ValueError, KeyError, TypeError, Unusable, ImageError) as cause:
            set_aside.append(f"pair {number} ({cause!r})")
            continue
        yield row
    if set_aside:
        print(f"{len(set_aside)} pairs set aside, the first is {set_aside[0]}")


def main(config: Config) -> None:
    file, images = config.out / "preferences.jsonl", config.out / "images"
    for made in (file, images):
        if made.exists():
            raise SystemExit(f"{made} is there already: choose another --out, or delete it")
    if not config.pairs.is_file():
        raise SystemExit(f"--pairs {config.pairs}: no such file")
    pairs = read_pairs(config.pairs)
    number = write_jsonl(file, rows(pairs, config.pairs.parent, config.out), {"images": "."})
    print(f"{number} pairs -> {file}")
    if not number:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
