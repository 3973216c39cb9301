"""`inbol data check`: every record and every picture of a set, what is wrong with each, and what a second set has of its pictures."""

import dataclasses
import functools
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.artifacts import read_meta, write_json, write_jsonl
from inbol_jax.data.config import Data
from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.data.importing import REJECTED_FILE, open_dataset
from inbol_jax.data.likeness import Gallery, Looks, Match, looks
from inbol_jax.data.vqa import DATA_FILE, Rejection, VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample

COMMAND = "data check"
_CHUNK = 512  # records whose pictures are decoded at a time


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """Read a set, decode every picture, and write what is sound as a dataset folder, what is not with its cause.

    Ends with exit code 2 where more than --max-rejected of the records cannot be used, also then with everything written.

    Attributes:
      data: questions, their images and answers.
      out: gets data.jsonl (the sound records), rejected.jsonl, shared.jsonl (with --against) and check.json.
      against: dataset folders whose pictures must not be among these: evaluation sets, where --data is for training.
      max_rejected: share of unusable records that is accepted.
    """

    data: Data
    out: Path
    against: tuple[Path, ...] = ()
    max_rejected: float = 0.1


def check(config: CheckConfig) -> dict[str, Any]:
    """Checks a set. Returns the counts, which are in check.json as well.

    Raises:
      InbolError: where the set cannot be read at all, or too many of its records cannot be used.
    """
    if not 0 <= config.max_rejected <= 1:
        raise InbolError(f"--max-rejected {config.max_rejected}: a share between 0 and 1 is needed")
    others = [load_dataset_folder(path) for path in config.against]
    if len({other.name for other in others}) < len(others):
        raise InbolError("--against: two sets have one name; rename a folder")
    dataset = open_dataset(config.data, out=config.out, max_rejected=1.0)
    if (config.out / DATA_FILE).exists() and read_meta(config.out / DATA_FILE).get(
        "command"
    ) != COMMAND:
        raise InbolError(
            f"--out {config.out}: holds a dataset that this command did not write; choose another folder"
        )
    gallery = Gallery()
    for other in others:
        for _ in _Look(other, functools.partial(gallery.add, other.name)).sound():
            pass
    matches: dict[str, Match] = {}

    def compare(images: Sequence[str], seen: Sequence[Looks]) -> None:
        matches.update(
            (image, match) for image, match in zip(images, gallery.find(seen), strict=True) if match
        )

    looking = _Look(dataset, compare if others else None)
    shared: dict[str, list[str]] = defaultdict(list)

    def rows() -> Iterator[Mapping[str, Any]]:
        for example in looking.sound():
            if example.image in matches:
                shared[example.image].append(example.id)
            yield example.to_json()

    images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
    sound = write_jsonl(config.out / DATA_FILE, rows(), {"command": COMMAND, "images": images})
    rejected = [*dataset.rejected, *looking.rejected]
    write_jsonl(config.out / REJECTED_FILE, map(dataclasses.asdict, rejected), {"command": COMMAND})
    if others:
        lines = (
            {
                "image": image,
                "ids": ids,
                "other": matches[image].image,
                "dataset": matches[image].dataset,
                "likeness": matches[image].likeness,
            }
            for image, ids in shared.items()
        )
        write_jsonl(config.out / "shared.jsonl", lines, {"command": COMMAND})
    counts = {
        "dataset": dataset.name,
        "records": sound + len(rejected),
        "sound": sound,
        "rejected": dict(Counter(r.reason for r in rejected).most_common()),
        "images": len(looking.hashes),
        "different_images": len(set(looking.hashes.values())),
        "shared": {other.name: _shared_with(other.name, shared, matches) for other in others},
    }
    write_json(config.out / "check.json", counts)
    _report(config, counts, rejected)
    if len(rejected) > config.max_rejected * counts["records"]:
        raise InbolError(
            f"{len(rejected):,} of {counts['records']:,} records cannot be used, more than --max-rejected {config.max_rejected}; "
            f"see {config.out / REJECTED_FILE}"
        )
    return counts


def _shared_with(
    name: str, shared: Mapping[str, list[str]], matches: Mapping[str, Match]
) -> dict[str, int]:
    """How many images, and questions about them, are in a set by their pixels, and how many by their looks."""
    counts = dict.fromkeys(("images", "questions", "images_alike", "questions_alike"), 0)
    for image, ids in shared.items():
        if matches[image].dataset == name:
            alike = "" if matches[image].likeness == 1 else "_alike"
            counts[f"images{alike}"] += 1
            counts[f"questions{alike}"] += len(ids)
    return counts


def _report(config: CheckConfig, counts: Mapping[str, Any], rejected: list[Rejection]) -> None:
    first: dict[str, Rejection] = {}
    for rejection in rejected:
        first.setdefault(rejection.reason, rejection)
    for reason, count in counts["rejected"].items():
        id = first[reason].id
        where = f"line {first[reason].line}" if id is None else id if id.isprintable() else repr(id)
        say(f"{count:>9,}  {reason:<32} first: {where}")
    for name, both in counts["shared"].items():
        same = f"{both['images']:,} images, of {both['questions']:,} questions, are in {name} too"
        alike = f"{both['images_alike']:,}, of {both['questions_alike']:,} questions, look like one there"
        say(f"{same}, and {alike} -> {config.out / 'shared.jsonl'}")
    images = (
        f"{counts['images']:,} image files with {counts['different_images']:,} different pictures"
    )
    sound = f"{counts['sound']:,} of {counts['records']:,} records of {counts['dataset']} are sound, {len(rejected):,} set aside"
    say(f"{sound}; {images} -> {config.out}")


class _Look:
    """One pass over a dataset's records, in which each of its pictures is decoded once, on all cores.

    Args:
      dataset: whose records.
      each: called with the names of sound pictures, as they are first met, and what they are known by. Without it no thumbnails are made.

    Attributes:
      hashes: of the pixels of every sound picture, by the image's name.
      rejected: records whose picture is not sound.
    """

    def __init__(
        self, dataset: VQADataset, each: Callable[[Sequence[str], Sequence[Looks]], None] | None
    ):
        self.dataset, self._each = dataset, each
        self.hashes: dict[str, bytes] = {}
        self.rejected: list[Rejection] = []
        self._faults: dict[str, str] = {}

    def sound(self) -> Iterator[VQAExample]:
        """Records with a picture that can be decoded, in the dataset's order; the others go to `rejected`."""
        examples = iter(self.dataset.examples)
        with (
            ThreadPoolExecutor(
                os.cpu_count()
            ) as pool,  # decoders work outside the interpreter's lock
            progress(
                f"checking {self.dataset.name}", len(self.dataset.examples), "records"
            ) as advance,
        ):
            while chunk := list(itertools.islice(examples, _CHUNK)):
                new = [
                    image
                    for image in dict.fromkeys(e.image for e in chunk)
                    if image not in self.hashes and image not in self._faults
                ]
                seen = dict(zip(new, pool.map(self._look, new), strict=True))
                self._faults.update(
                    (image, fault) for image, fault in seen.items() if isinstance(fault, str)
                )
                sound = {image: found for image, found in seen.items() if isinstance(found, Looks)}
                self.hashes.update((image, found.pixels) for image, found in sound.items())
                if self._each:
                    self._each(list(sound), list(sound.values()))
                for example in chunk:
                    if example.image in self.hashes:
                        yield example
                    else:
                        self.rejected.append(
                            Rejection(None, example.id, self._faults[example.image])
                        )
                advance(len(chunk))

    def _look(self, image: str) -> Looks | str:
        try:
            picture = load_image(self.dataset.root / image)
            return (
                looks(picture)
                if self._each
                else Looks(pixel_hash(picture), np.zeros(0, np.float16))
            )
        except ImageError as error:
            return error.cause
