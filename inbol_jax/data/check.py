"""`inbol data check`: examines each record and picture of a set, and compares it with other sets."""

import dataclasses
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from inbol_jax.artifacts import json_line, meta_path, read_meta, write_json, write_jsonl
from inbol_jax.data.config import CheckConfig
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.likeness import Appearance, Gallery, Match, appearance
from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import (
    DATA_FILE,
    REJECTED_FILE,
    VQADataset,
    causes_of_rejection,
    load_dataset_folder,
    write_rejections,
    writing_dataset,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample

COMMAND = "data check"
CHUNK = 512  # records whose pictures are decoded at once


@dataclasses.dataclass
class Overlap:
    """How many pictures of a set, and questions about them, another set has as well.

    The first two counts are of equal pixels, the last two of pictures that look alike.
    """

    images: int = 0
    questions: int = 0
    images_alike: int = 0
    questions_alike: int = 0


@dataclasses.dataclass(frozen=True)
class CheckCounts:
    """The counts of a check, as check.json holds them."""

    dataset: str
    records: int
    sound: int
    rejected: dict[str, int]  # by cause
    images: int  # sound image files
    different_images: int  # of them, with pixels of their own
    shared: dict[str, Overlap]  # by the name of the other set


def check_dataset(config: CheckConfig) -> CheckCounts:
    """Checks a set and writes what is sound and what is not.

    Raises:
      InbolError: if the set cannot be read at all, or too many of its records cannot be used.
    """
    others = [load_dataset_folder(path) for path in config.against]
    if len({other.name for other in others}) < len(others):
        raise InbolError("--against: two sets have one name; rename a folder")
    dataset = open_dataset(config.data, out=config.out, max_rejected=1.0)
    file = config.out / DATA_FILE
    if file.exists() and read_meta(file).get("command") != COMMAND:
        raise InbolError(
            f"--out {config.out}: holds a dataset that this command did not write; "
            "choose another folder"
        )
    gallery = Gallery()
    for other in others:
        for batch in _decoded_batches(other, thumbnails=True):
            gallery.add(other.name, batch.sound)
    findings = _check_pictures(config, dataset, gallery if others else None)
    counts = _write_findings(config, dataset, findings, [other.name for other in others])
    _report(config, counts, findings)
    if len(findings.rejected) > config.max_rejected * counts.records:
        raise InbolError(
            f"{len(findings.rejected):,} of {counts.records:,} records cannot be used, more than "
            f"--max-rejected {config.max_rejected}; see {config.out / REJECTED_FILE}"
        )
    return counts


class _Batch(NamedTuple):
    """Some records, and their pictures that no earlier batch had."""

    examples: list[VQAExample]
    sound: dict[str, Appearance]  # by the image's name
    faults: dict[str, str]


def _decoded_batches(dataset: VQADataset, *, thumbnails: bool) -> Iterator[_Batch]:
    """All records in their order; each picture is decoded once, on all cores."""

    def decode(image: str) -> Appearance | str:
        try:
            return appearance(load_image(dataset.root / image), thumbnail=thumbnails)
        except ImageError as error:
            return error.cause

    examples = iter(dataset.examples)
    seen: set[str] = set()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders release the interpreter's lock
        progress(f"checking {dataset.name}", len(dataset.examples), "records") as advance,
    ):
        while chunk := list(itertools.islice(examples, CHUNK)):
            new = list({e.image: None for e in chunk if e.image not in seen})
            seen.update(new)
            batch = _Batch(chunk, {}, {})
            for image, result in zip(new, pool.map(decode, new), strict=True):
                if isinstance(result, str):
                    batch.faults[image] = result
                else:
                    batch.sound[image] = result
            yield batch
            advance(len(chunk))


@dataclasses.dataclass
class _Findings:
    """What a check has found so far."""

    rejected: list[Rejection]
    sound: int = 0
    pixel_hashes: dict[str, bytes] = dataclasses.field(default_factory=dict)  # by image
    faults: dict[str, str] = dataclasses.field(default_factory=dict)  # by image
    matches: dict[str, Match] = dataclasses.field(default_factory=dict)  # by image
    shared: dict[str, list[str]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    """Ids of the sound records about each image that another set has."""


def _check_pictures(config: CheckConfig, dataset: VQADataset, gallery: Gallery | None) -> _Findings:
    """Decodes all pictures, and writes the sound records with their header."""
    findings = _Findings(list(dataset.rejected))
    with writing_dataset(config.out) as lines:
        for batch in _decoded_batches(dataset, thumbnails=gallery is not None):
            findings.faults |= batch.faults
            for image, look in batch.sound.items():
                findings.pixel_hashes[image] = look.pixel_hash
            if gallery is not None:
                findings.matches |= gallery.find(batch.sound)
            for example in batch.examples:
                if fault := findings.faults.get(example.image):
                    findings.rejected.append(Rejection(None, example.id, fault))
                    continue
                if example.image in findings.matches:
                    findings.shared[example.image].append(example.id)
                lines.write(json_line(example.to_json()))
                findings.sound += 1
    images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
    header = {"command": COMMAND, "images": images, "rows": findings.sound}
    write_json(meta_path(config.out / DATA_FILE), header)
    return findings


def _write_findings(
    config: CheckConfig, dataset: VQADataset, findings: _Findings, others: list[str]
) -> CheckCounts:
    """Writes `rejected.jsonl`, `shared.jsonl` and `check.json`."""
    write_rejections(config.out, findings.rejected, {"command": COMMAND})
    overlaps = {name: Overlap() for name in others}
    rows = []
    for image, ids in findings.shared.items():
        match = findings.matches[image]
        rows.append(
            {
                "image": image,
                "ids": ids,
                "other": match.image,
                "dataset": match.dataset,
                "likeness": match.likeness,
            }
        )
        overlap = overlaps[match.dataset]
        if match.likeness == 1:
            overlap.images += 1
            overlap.questions += len(ids)
        else:
            overlap.images_alike += 1
            overlap.questions_alike += len(ids)
    if others:
        write_jsonl(config.out / "shared.jsonl", rows, {"command": COMMAND})
    counts = CheckCounts(
        dataset=dataset.name,
        records=findings.sound + len(findings.rejected),
        sound=findings.sound,
        rejected={reason: count for reason, count, _ in causes_of_rejection(findings.rejected)},
        images=len(findings.pixel_hashes),
        different_images=len(set(findings.pixel_hashes.values())),
        shared=overlaps,
    )
    write_json(config.out / "check.json", dataclasses.asdict(counts))
    return counts


def _report(config: CheckConfig, counts: CheckCounts, findings: _Findings) -> None:
    for reason, count, first in causes_of_rejection(findings.rejected):
        say(f"{count:>9,}  {reason:<32} first: {first}")
    for name, overlap in counts.shared.items():
        say(
            f"{overlap.images:,} images, of {overlap.questions:,} questions, are in {name} too, and "
            f"{overlap.images_alike:,}, of {overlap.questions_alike:,} questions, look like one "
            f"there -> {config.out / 'shared.jsonl'}"
        )
    say(
        f"{counts.sound:,} of {counts.records:,} records of {counts.dataset} are sound, "
        f"{len(findings.rejected):,} set aside; {counts.images:,} image files with "
        f"{counts.different_images:,} different pictures -> {config.out}"
    )
