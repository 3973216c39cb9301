"""Do models learn pictures or words from generated Type 3 questions? Defaults against other words.

    python benchmarks/same_words.py --out runs/same_words     # an hour on two CPU cores

The sets are unlike the demo's: the embedded world without its `objects`, easy-VQA (PyPI
`easy-vqa`), and pictures of emoji, flags or foods with one question for all. Of each,
`inbol extrinsic` makes Type 3 questions by its default, and by templates and questions of other
pictures (`--generators unseeable mismatched`). IDK-IT is trained on either and asked about pictures
that it has not seen, and about grey ones: what it still gets right there, it tells by the words.
"""

import dataclasses
import functools
import json
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure
from picture_objects import gather, load, pictures
from PIL import Image
from real_model import install
from real_stages import Stages

from inbol_jax.artifacts import read_jsonl, write_atomically
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY

OTHER_STYLES = ("apple", "twitter", "facebook")
QUESTIONS = {"train": 2000, "test": 500}  # answerable ones
WAYS = {
    "own words": (),
    "other words": ("--generators", "unseeable", "mismatched", "--allow-tell"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train on generated questions, and write a table."""

    out: Path = Path("runs/same_words")
    """Folder of everything that is made."""
    packages: Path = Path("runs/packages/pypi")
    """Folder that packages are fetched into."""
    sets: tuple[str, ...] = ("world", "easy_vqa")
    """Sets to try: world, easy_vqa; emoji, flags, foods with the base of real_pictures.py."""
    model: Path = TINY
    """The base."""
    seed: int = 0
    """Of questions, samples and training."""
    picture: Path | None = None
    """File for a picture with questions of each generator, of the first set."""


def easy_vqa(folder: Path, packages: Path) -> None:
    """Questions about one shape, in the package's own splits."""
    data = install(("easy-vqa",), packages) / "easy_vqa" / "data"
    for split, n in QUESTIONS.items():
        asked = json.loads((data / split / "questions.json").read_text(encoding="utf-8"))
        # Every k-th, because the questions of an image stand together.
        asked = asked[:: len(asked) // n][:n]
        write(folder / split, easy_vqa_rows(asked, data / split / "images"))


def easy_vqa_rows(
    asked: list[list[Any]], images: Path
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    for i, (question, answer, image) in enumerate(asked):
        row = {"id": f"q{i}", "question": question, "answers": [answer], "answerable": True}
        yield row, Image.open(images / f"{image}.png").convert("RGB")


def write(folder: Path, rows: Iterator[tuple[dict[str, Any], Image.Image]]) -> None:
    """A dataset folder of rows and their images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (row, image) in enumerate(rows):
        name = f"images/{i}.png"
        image.save(folder / name)
        lines.append(json.dumps(row | {"images": [name]}) + "\n")
    write_atomically(folder / "data.jsonl", "".join(lines))


def shown_things(folder: Path, packages: Path, kind: str, question: str) -> None:
    """One question about pictures of one kind, half of whose things are trained on."""
    gather(packages)
    found = [p for p in pictures(packages) if p.kind == kind and p.source not in OTHER_STYLES]
    random.Random(0).shuffle(found)
    half = len(found) // 2
    for split, some in (("train", found[:half]), ("test", found[half:])):
        rows = [
            {"id": f"q{i}", "question": question, "answers": [p.name, *p.aliases]}
            for i, p in enumerate(some[: QUESTIONS[split]])
        ]
        images = (load(picture.file) for picture in some)
        write(folder / split, zip(rows, images, strict=False))


def world(stages: Stages, folder: Path, seed: int) -> None:
    """The embedded world, whose records do not say what is in the images."""
    for split, n in QUESTIONS.items():
        stages.command(
            f"export {split}", "world", "export", "--out", folder / f"whole-{split}",
            "--split", split, "--n", n, "--seed", seed,
        )  # fmt: skip
        stages.run(f"strip {split}", functools.partial(strip, folder, split))


def strip(folder: Path, split: str) -> None:
    """The answerable questions of a split of the world, without what their images hold."""
    whole = folder / f"whole-{split}"
    rows = [row for row in read_jsonl(whole / "data.jsonl") if row["answerable"]]
    for row in rows:
        del row["objects"]
    write(folder / split, ((row, Image.open(whole / row["images"][0])) for row in rows))


SETS = {
    "easy_vqa": easy_vqa,
    "emoji": functools.partial(shown_things, kind="thing", question="What is this?"),
    "flags": functools.partial(shown_things, kind="flag", question="Which country has this flag?"),
    "foods": functools.partial(shown_things, kind="food", question="Which food is this?"),
}


def grey(source: Path, folder: Path) -> None:
    """The same questions about grey images of the same size."""
    dataset = load_dataset_folder(source)
    rows = []
    for example in dataset.examples:
        row = example.to_json()
        size = Image.open(dataset.root / example.image).size
        rows.append((row, Image.new("RGB", size, "grey")))
    write(folder, iter(rows))


def run(config: Config, name: str) -> None:
    """Both ways of one set."""
    folder = config.out / name
    data, stages = folder / "data", Stages(folder)
    if name == "world":
        world(stages, data, config.seed)
    else:
        stages.run("questions", lambda: SETS[name](data, config.packages))
    asked = ("--model", config.model, "--seed", config.seed)
    for way, options in WAYS.items():
        out = folder / way.replace(" ", "_")
        stages = Stages(out)
        for split in QUESTIONS:
            stages.command(
                f"extrinsic {split}",
                "extrinsic", "--data", data / split, "--out", out / split, *asked, *options,
            )  # fmt: skip
        for source in (data / "train", out / "train/extrinsic.jsonl"):
            stages.command(
                f"confidence {source.stem}",
                "confidence", "--data", source, "--out", out / "train", *asked,
            )  # fmt: skip
        stages.command("build", "build", "--out", out / "train", "--seed", config.seed)
        stages.command(
            "IDK-IT",
            "sft", "--data", out / "train/instructions.jsonl", "--out", out / "idk_it", *asked,
        )  # fmt: skip
        tested = {"answerable": data / "test", "type3": out / "test/extrinsic.jsonl"}
        for kind, source in [*tested.items()]:
            tested[f"grey_{kind}"] = out / f"grey_{kind}"
            stages.run(f"grey {kind}", functools.partial(grey, source, out / f"grey_{kind}"))
        stages.command(
            "evaluate",
            "evaluate", "--in-domain", *tested.values(), "--out", out / "evaluation",
            "--models", "base", config.model, "idk_it", out / "idk_it/model",
            "--seed", config.seed,
        )  # fmt: skip
        print(name, way, json.dumps(measure(out)))


def draw(folder: Path, file: Path) -> None:
    """Six random questions of each generator, with their images."""
    rows: dict[str, list[tuple[Path, str]]] = {}
    for way in WAYS:
        dataset = load_dataset_folder(folder / way.replace(" ", "_") / "train/extrinsic.jsonl")
        for example in random.Random(0).sample(dataset.examples, len(dataset.examples)):
            drawn = rows.setdefault(example.extra["generator"], [])
            drawn.append((dataset.root / example.image, example.question))
    figure = Figure(figsize=(10, 1.75 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 6)
    for line, (generator, drawn) in zip(axes, sorted(rows.items()), strict=True):
        for axis, (image, question) in zip(line, drawn, strict=False):
            axis.imshow(Image.open(image).convert("RGB"))
            axis.set_title("\n".join(textwrap.wrap(question, 22)), fontsize=7)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(generator, fontsize=8)
    figure.savefig(file, dpi=110)


def measure(folder: Path) -> dict[str, float]:
    """What IDK-IT refuses, in shares, and its balanced accuracy on grey images, which the words
    alone give."""
    refused: dict[str, list[bool]] = {}
    unsure = []
    for row in read_jsonl(folder / "evaluation/predictions.jsonl"):
        if row["model"] == "idk_it":
            refused.setdefault(row["dataset"], []).append(row["outcome"] == "refused")
            if row["dataset"] == "test":
                unsure.append(row["confidence"] < 0.5)
    share = {name: sum(found) / len(found) for name, found in refused.items()}
    return {
        "Type 3 refused": share["extrinsic"],
        "own pictures refused": share["test"],
        "of these the base is unsure": sum(unsure) / len(unsure),
        "told blindly": (share["grey_type3"] + 1 - share["grey_answerable"]) / 2,
    }


if __name__ == "__main__":
    config = tyro.cli(Config)
    for name in config.sets:
        run(config, name)
    if config.picture:
        draw(config.out / config.sets[0], config.picture)
