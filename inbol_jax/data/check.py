"""`inbol data check`: examines every picture of a set, and looks for it in other sets."""

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from inbol_jax.records import VQAExample
from inbol_jax.responses.gold import fault_of_gold

HEADER = {"command": "data check"}
GOLD_FILE = "gold.jsonl"
CHUNK = 512  # records whose pictures are decoded at once


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
        for _, hashes, _ in _decoded_batches(other):
            for image, pixels in hashes.items():
                known.setdefault(pixels, (other.name, image))
    if file.exists() and not file.samefile(dataset.file):
        file.unlink()  # it never stands beside the header of another set
    counts, rejected, misjudged = _check_records(
        config, dataset, known, [other.name for other in others]
    )
    write_json(config.out / "check.json", counts)
    _report(config, counts, rejected, misjudged)
    if len(rejected) > config.max_rejected * counts["records"]:
        raise InbolError(
            f"{len(rejected):,} of {counts['records']:,} records cannot be used, more than "
            f"--max-rejected {config.max_rejected}; see {config.out / REJECTED_FILE}"
        )
    return counts


def _decoded_batches(
    dataset: VQADataset,
) -> Iterator[tuple[list[VQAExample], dict[str, bytes], dict[str, str]]]:
    """All records in their order, and, by name, the pixel hashes of their pictures and the faults
    of those that cannot be decoded.

    Each picture comes once, with its first record; pictures are decoded on all cores.
    """

    def decode(image: str) -> bytes | str:
        try:
            return pixel_hash(load_image(dataset.root / image))
        except ImageError as error:
            return error.cause

    examples = iter(dataset.examples)
    seen: set[str] = set()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders release the interpreter's lock
        progress(f"checking {dataset.name}", len(dataset.examples), "records") as advance,
    ):
        while chunk := list(itertools.islice(examples, CHUNK)):
            images = dict.fromkeys(image for example in chunk for image in example.images)
            new = [image for image in images if image not in seen]
            seen.update(new)
            decoded = dict(zip(new, pool.map(decode, new), strict=True))
            hashes = {image: one for image, one in decoded.items() if isinstance(one, bytes)}
            faults = {image: one for image, one in decoded.items() if isinstance(one, str)}
            yield chunk, hashes, faults
            advance(len(chunk))


def _check_records(
    config: CheckConfig,
    dataset: VQADataset,
    known: Mapping[bytes, tuple[str, str]],
    others: Sequence[str],
) -> tuple[dict[str, Any], list[Rejection], list[Rejection]]:
    """Writes the sound records, the others, and the shared pictures. Returns counts, others, and
    the sound ones whose gold answers do not score right.
    """
    rejected = list(dataset.rejected)
    misjudged: list[Rejection] = []
    rows = 0
    faults: dict[str, str] = {}  # these three by image
    hashes: dict[str, bytes] = {}
    shared: dict[str, list[str]] = defaultdict(list)  # ids of the sound records about it
    with writing_dataset(config.out) as lines:
        for examples, sound, unsound in _decoded_batches(dataset):
            faults |= unsound
            hashes |= sound
            for example in examples:
                if fault := next((faults[i] for i in example.images if i in faults), None):
                    rejected.append(Rejection(None, example.id, fault))
                    continue
                for image in dict.fromkeys(example.images):
                    if hashes[image] in known:
                        shared[image].append(example.id)
                if fault := fault_of_gold(example):
                    misjudged.append(Rejection(None, example.id, fault))
                lines.write(json_line(example.to_json()))
                rows += 1
        images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
        header = HEADER | {"images": images, "rows": rows}
        if said := header_prompt(dataset.file):
            header |= said.to_json()
        write_json(meta_path(config.out / DATA_FILE), header)
    write_rejections(config.out, rejected, HEADER)
    by_id = ({"id": one.id, "reason": one.reason} for one in misjudged)
    write_jsonl(config.out / GOLD_FILE, by_id, HEADER)
    shared_rows = []
    questions: dict[str, set[str]] = defaultdict(set)  # ids: a question may have several pictures
    for image, ids in shared.items():
        name, other = known[hashes[image]]
        shared_rows.append({"image": image, "ids": ids, "other": other, "dataset": name})
        questions[name].update(ids)
    pictures = Counter(row["dataset"] for row in shared_rows)
    if others:
        write_jsonl(config.out / "shared.jsonl", shared_rows, HEADER)
    counts = {
        "dataset": dataset.name,
        "records": rows + len(rejected),
        "sound": rows,
        "rejected": {reason: count for reason, count, _ in causes_of_rejection(rejected)},
        "gold_not_right": {cause: n for cause, n, _ in causes_of_rejection(misjudged)},
        "images": len(hashes),
        "different_images": len(set(hashes.values())),
        "shared": {n: {"images": pictures[n], "questions": len(questions[n])} for n in others},
    }
    return counts, rejected, misjudged


def _report(
    config: CheckConfig,
    counts: dict[str, Any],
    rejected: Sequence[Rejection],
    misjudged: Sequence[Rejection],
) -> None:
    for reason, count, first in causes_of_rejection(rejected):
        say(f"{count:>9,}  {reason:<32} first: {first}")
    if misjudged:
        say(
            f"{len(misjudged):,} questions do not score right when their own gold answers are the "
            f"response -> {config.out / GOLD_FILE}"
        )
        for reason, count, first in causes_of_rejection(misjudged):
            say(f"{count:>9,}  {reason:<32} first: {first}")
    for name, overlap in counts["shared"].items():
        say(
            f"{overlap['images']:,} images, of {overlap['questions']:,} questions, are in {name} "
            f"too -> {config.out / 'shared.jsonl'}"
        )
    say(
        f"{counts['sound']:,} of {counts['records']:,} records of {counts['dataset']} are sound, "
        f"{len(rejected):,} set aside; {counts['images']:,} image files with "
        f"{counts['different_images']:,} different pictures -> {config.out}"
    )
