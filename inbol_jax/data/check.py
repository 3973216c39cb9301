"""`inbol data check`: examines every picture of a set, and looks for it in other sets."""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inbol_jax.artifacts import json_line, meta_path, one_writer, read_meta, write_json, write_jsonl
from inbol_jax.data.config import CheckConfig
from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import (
    DATA_FILE,
    REJECTED_FILE,
    VQADataset,
    causes_of_rejection,
    load_dataset_folder,
    refuse_same_names,
    write_rejections,
    writing_dataset,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.prompts import header_prompt
from inbol_jax.responses.gold import fault_of_gold

HEADER = {"command": "data check"}
GOLD_FILE, SHARED_FILE = "gold.jsonl", "shared.jsonl"


@one_writer
def check_dataset(config: CheckConfig) -> dict[str, Any]:
    """Checks a set and writes what is sound and what is not.

    Every sound question is also asked with its own gold answers: those that do not score right are
    named in gold.jsonl, and stay.

    Returns:
      the counts that check.json holds. Under "shared" are, by the name of the other set, the
      pictures whose pixels are equal in both sets, and the questions about them.
    Raises:
      InbolError: if the set cannot be read at all, or too many of its records cannot be used.
    """
    others = [load_dataset_folder(path) for path in config.against]
    refuse_same_names(others)
    dataset = open_dataset(config.data, out=config.out, max_rejected=1.0)
    file = config.out / DATA_FILE
    if file.exists() and read_meta(file).get("command") != HEADER["command"]:
        raise InbolError(
            f"--out {config.out}: holds a dataset that this command did not write; "
            "choose another folder"
        )
    known: dict[bytes, tuple[str, str]] = {}  # (other set, its image) by the hash of the pixels
    for other in others:
        for image, pixels in _decoded(other).items():
            if isinstance(pixels, bytes):
                known.setdefault(pixels, (other.name, image))
    if file.exists() and not file.samefile(dataset.file):
        file.unlink()  # it never stands beside the header of another set
    decoded = _decoded(dataset)
    rejected, misjudged = list(dataset.rejected), []
    shared: dict[str, list[str]] = defaultdict(list)  # ids of the sound records by image
    rows = 0
    with writing_dataset(config.out) as lines:
        for example in dataset.examples:
            found = {image: decoded[image] for image in example.images}
            if fault := next((x for x in found.values() if isinstance(x, str)), None):
                rejected.append(Rejection(None, example.id, fault))
                continue
            for image, pixels in found.items():
                if pixels in known:
                    shared[image].append(example.id)
            if fault := fault_of_gold(example):
                misjudged.append(Rejection(None, example.id, fault))
            lines.write(json_line(example.to_json()))
            rows += 1
        images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
        header = HEADER | {"images": images, "rows": rows}
        if said := header_prompt(dataset.file):
            header |= said.to_json()
        write_json(meta_path(file), header)
    write_rejections(config.out, rejected, HEADER)
    by_id = ({"id": one.id, "reason": one.reason} for one in misjudged)
    write_jsonl(config.out / GOLD_FILE, by_id, HEADER)
    overlaps = {other.name: {"images": 0, "questions": 0} for other in others}
    questions: dict[str, set[str]] = defaultdict(set)  # ids: a question may have several pictures
    shared_rows = []
    for image, ids in shared.items():
        name, same = known[decoded[image]]
        shared_rows.append({"image": image, "ids": ids, "other": same, "dataset": name})
        questions[name].update(ids)
        overlaps[name] = {"images": overlaps[name]["images"] + 1, "questions": len(questions[name])}
    if others:
        write_jsonl(config.out / SHARED_FILE, shared_rows, HEADER)
    pictures = [pixels for pixels in decoded.values() if isinstance(pixels, bytes)]
    counts = {
        "dataset": dataset.name,
        "records": rows + len(rejected),
        "sound": rows,
        "rejected": {reason: count for reason, count, _ in causes_of_rejection(rejected)},
        "gold_not_right": {cause: n for cause, n, _ in causes_of_rejection(misjudged)},
        "images": len(pictures),
        "different_images": len(set(pictures)),
        "shared": overlaps,
    }
    write_json(config.out / "check.json", counts)
    _report(config, counts, rejected, misjudged)
    if len(rejected) > config.max_rejected * counts["records"]:
        raise InbolError(
            f"{len(rejected):,} of {counts['records']:,} records cannot be used, more than "
            f"--max-rejected {config.max_rejected}; see {config.out / REJECTED_FILE}"
        )
    return counts


def _decoded(dataset: VQADataset) -> dict[str, bytes | str]:
    """The pixel hash of each picture, or the fault of one that cannot be decoded, by its name.

    Pictures are decoded on all cores.
    """

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


def _report(
    config: CheckConfig,
    counts: dict[str, Any],
    rejected: list[Rejection],
    misjudged: list[Rejection],
) -> None:
    def say_causes(rejections: list[Rejection]) -> None:
        for reason, count, first in causes_of_rejection(rejections):
            say(f"{count:>9,}  {reason:<32} first: {first}")

    say_causes(rejected)
    if misjudged:
        say(
            f"{len(misjudged):,} questions do not score right when their own gold answers are the "
            f"response -> {config.out / GOLD_FILE}"
        )
        say_causes(misjudged)
    for name, overlap in counts["shared"].items():
        say(
            f"{overlap['images']:,} images, of {overlap['questions']:,} questions, are in {name} "
            f"too -> {config.out / SHARED_FILE}"
        )
    say(
        f"{counts['sound']:,} of {counts['records']:,} records of {counts['dataset']} are sound, "
        f"{len(rejected):,} set aside; {counts['images']:,} image files with "
        f"{counts['different_images']:,} different pictures -> {config.out}"
    )
