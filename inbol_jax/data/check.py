"""`inbol data check`: examines every picture of a set, and looks for it in other sets."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import atomic_lines, json_line, one_writer, write_json, write_jsonl
from inbol_jax.data.config import CheckConfig
from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import (
    DATA_FILE,
    REJECTED_FILE,
    VQADataset,
    causes_of_rejection,
    load_dataset_folder,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.prompts import header_prompt
from inbol_jax.records import VQAExample
from inbol_jax.responses.gold import fault_of_gold
from inbol_jax.stage import Stage

HEADER = {"command": "data check"}
GOLD_FILE, SHARED_FILE = "gold.jsonl", "shared.jsonl"
Pictures = dict[str, bytes | str]  # name -> the hash of its pixels, or its fault


@one_writer
def check_dataset(config: CheckConfig) -> dict[str, Any]:
    """Checks a set and writes what is sound and what is not, also over what it wrote of it before.

    Every sound question is also asked with its own gold answers: those that do not score right are
    named in gold.jsonl, and stay.

    Returns:
      the counts that check.json holds. Under "shared" are, by the name of the other set, the
      pictures whose pixels are equal in both sets, and the questions about them.
    Raises:
      InbolError: if the set cannot be read at all, too many of its records cannot be used, or the
        folder holds another set.
    """
    others = [load_dataset_folder(path) for path in config.against]
    refuse_same_names(others)
    dataset = load_dataset_folder(config.data, max_rejected=1.0)
    settings = {"data": _place(dataset.file, config), "data.images": _place(dataset.root, config)}
    settings["against"] = [_place(other.file, config) for other in others]
    with Stage(config.out / DATA_FILE, "data check", settings, grows=True) as stage:
        return _check(config, dataset, others, stage)


def refuse_same_names(datasets: Iterable[VQADataset]) -> None:
    """Raises InbolError if two datasets have one name."""
    files: dict[str, Path] = {}
    for dataset in datasets:
        if other := files.get(dataset.name):
            raise InbolError(
                f"two datasets are called {dataset.name} ({other}, {dataset.file}); rename one"
            )
        files[dataset.name] = dataset.file


def _place(path: Path, config: CheckConfig) -> str:
    return os.path.relpath(path.resolve(), config.out.resolve())


def _check(
    config: CheckConfig, dataset: VQADataset, others: Sequence[VQADataset], stage: Stage
) -> dict[str, Any]:
    pictures = _decoded(dataset)
    sound, rejected = [], list(dataset.rejected)
    for example in dataset.examples:
        found = (pictures[image] for image in example.images)
        if fault := next((one for one in found if isinstance(one, str)), None):
            rejected.append(Rejection(None, example.id, fault))
        else:
            sound.append(example)
    said = header_prompt(dataset.file)
    about = {"images": _place(dataset.root, config)} | (said.to_json() if said else {})
    with atomic_lines(stage.file) as lines:
        lines.writelines(json_line(example.to_json()) for example in sound)
        stage.finish(len(sound), **about)
    write_jsonl(config.out / REJECTED_FILE, (one.to_json() for one in rejected), HEADER)
    faults = ((example.id, fault_of_gold(example)) for example in sound)
    misjudged = [Rejection(None, id, fault) for id, fault in faults if fault]
    rows = ({"id": one.id, "reason": one.reason} for one in misjudged)
    write_jsonl(config.out / GOLD_FILE, rows, HEADER)
    hashes = [pixels for pixels in pictures.values() if isinstance(pixels, bytes)]
    counts = {
        "dataset": dataset.name,
        "records": len(sound) + len(rejected),
        "sound": len(sound),
        "rejected": {reason: count for reason, count, _ in causes_of_rejection(rejected)},
        "gold_not_right": {cause: n for cause, n, _ in causes_of_rejection(misjudged)},
        "images": len(hashes),
        "different_images": len(set(hashes)),
        "shared": _shared(sound, pictures, others, config.out),
    }
    write_json(config.out / "check.json", counts)
    _report(config.out, counts, rejected, misjudged)
    if len(rejected) > config.max_rejected * counts["records"]:
        raise InbolError(
            f"{len(rejected):,} of {counts['records']:,} records cannot be used, more than "
            f"--max-rejected {config.max_rejected}; see {config.out / REJECTED_FILE}"
        )
    return counts


def _decoded(dataset: VQADataset) -> Pictures:
    """The pictures of a set, decoded on all cores."""

    def decode(image: str) -> bytes | str:
        try:
            return pixel_hash(load_image(dataset.root / image))
        except ImageError as error:
            return error.cause

    names = list(dict.fromkeys(name for example in dataset.examples for name in example.images))
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders release the interpreter's lock
        progress(f"checking {dataset.name}", len(names), "pictures") as advance,
    ):
        decoded = {}
        for name, result in zip(names, pool.map(decode, names), strict=True):
            decoded[name] = result
            advance()
    return decoded


def _shared(
    sound: Sequence[VQAExample], pictures: Pictures, others: Sequence[VQADataset], out: Path
) -> dict[str, dict[str, int]]:
    """Writes which pictures other sets have as well. Returns {set: how many, of how many
    questions}."""
    known: dict[bytes, tuple[str, str]] = {}  # (other set, its image) by the hash of the pixels
    for other in others:
        for image, pixels in _decoded(other).items():
            if isinstance(pixels, bytes):
                known.setdefault(pixels, (other.name, image))
    asked = defaultdict[str, list[str]](list)  # ids of the questions about a picture
    for example in sound:
        for image in dict.fromkeys(example.images):
            if pictures[image] in known:
                asked[image].append(example.id)
    rows, images, questions = [], defaultdict[str, int](int), defaultdict[str, set[str]](set)
    for image, ids in asked.items():
        name, same = known[pictures[image]]
        rows.append({"image": image, "ids": ids, "other": same, "dataset": name})
        images[name] += 1
        questions[name].update(ids)  # a question may have several pictures
    if others:
        write_jsonl(out / SHARED_FILE, rows, HEADER)
    names = [other.name for other in others]
    return {name: {"images": images[name], "questions": len(questions[name])} for name in names}


def _report(
    out: Path, counts: dict[str, Any], rejected: Sequence[Rejection], misjudged: Sequence[Rejection]
) -> None:
    def say_causes(rejections: Sequence[Rejection]) -> None:
        for reason, count, first in causes_of_rejection(rejections):
            say(f"{count:>9,}  {reason:<32} first: {first}")

    say_causes(rejected)
    if misjudged:
        say(
            f"{len(misjudged):,} questions do not score right when their own gold answers are the "
            f"response -> {out / GOLD_FILE}"
        )
        say_causes(misjudged)
    for name, overlap in counts["shared"].items():
        say(
            f"{overlap['images']:,} images, of {overlap['questions']:,} questions, are in {name} "
            f"too -> {out / SHARED_FILE}"
        )
    say(
        f"{counts['sound']:,} of {counts['records']:,} records of {counts['dataset']} are sound, "
        f"{len(rejected):,} set aside; {counts['images']:,} image files with "
        f"{counts['different_images']:,} different pictures -> {out}"
    )
