"""`inbol data check`: every record and every picture of a set, what is wrong with each, and what a second set has of its pictures."""

import dataclasses
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import write_json, write_jsonl
from inbol_jax.data.config import Data
from inbol_jax.data.images import ImageError, load_image, pixel_hash
from inbol_jax.data.importing import REJECTED_FILE, open_dataset
from inbol_jax.data.vqa import DATA_FILE, Rejection, VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import VQAExample

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


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A picture of another set."""

    dataset: str
    image: str


def check(config: CheckConfig) -> dict[str, Any]:
    """Checks a set. Returns the counts, which are in check.json as well.

    Raises:
      InbolError: where the set cannot be read at all, or too many of its records cannot be used.
    """
    if not 0 <= config.max_rejected <= 1:
        raise InbolError(f"--max-rejected {config.max_rejected}: a share between 0 and 1 is needed")
    others = [load_dataset_folder(path) for path in config.against]
    dataset = open_dataset(config.data, out=config.out, max_rejected=1.0)
    if (config.out / DATA_FILE).exists() and (config.out / DATA_FILE).samefile(dataset.file):
        raise InbolError(f"--out {config.out}: is the dataset itself; choose another folder")
    elsewhere: dict[bytes, Picture] = {}
    for other in others:
        looking = _Look(other)
        for example in looking.sound():
            elsewhere.setdefault(looking.hash_of(example), Picture(other.name, example.image))

    looking = _Look(dataset)
    shared: dict[str, list[str]] = defaultdict(list)

    def rows() -> Iterator[Mapping[str, Any]]:
        for example in looking.sound():
            if looking.hash_of(example) in elsewhere:
                shared[example.image].append(example.id)
            yield example.to_json()

    images = os.path.relpath(dataset.root.resolve(), config.out.resolve())
    sound = write_jsonl(config.out / DATA_FILE, rows(), {"command": "data check", "images": images})
    rejected = [*dataset.rejected, *looking.rejected]
    write_jsonl(config.out / REJECTED_FILE, map(dataclasses.asdict, rejected), {"command": "data check"})
    found = {image: elsewhere[looking.hashes[image]] for image in shared}
    if others:
        lines = ({"image": i, "ids": shared[i], "other": o.image, "dataset": o.dataset} for i, o in found.items())
        write_jsonl(config.out / "shared.jsonl", lines, {"command": "data check"})
    counts = {
        "dataset": dataset.name,
        "records": sound + len(rejected),
        "sound": sound,
        "rejected": dict(Counter(r.reason for r in rejected).most_common()),
        "images": len(looking.hashes),
        "different_images": len(set(looking.hashes.values())),
        "shared": {
            other.name: {
                "images": sum(o.dataset == other.name for o in found.values()),
                "questions": sum(len(shared[i]) for i, o in found.items() if o.dataset == other.name),
            }
            for other in others
        },
    }
    write_json(config.out / "check.json", counts)
    _report(config, counts, rejected)
    if len(rejected) > config.max_rejected * counts["records"]:
        raise InbolError(
            f"{len(rejected):,} of {counts['records']:,} records cannot be used, more than --max-rejected {config.max_rejected}; "
            f"see {config.out / REJECTED_FILE}"
        )
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
        say(f"{both['images']:,} images, of {both['questions']:,} questions, are in {name} too -> {config.out / 'shared.jsonl'}")
    images = f"{counts['images']:,} image files with {counts['different_images']:,} different pictures"
    sound = f"{counts['sound']:,} of {counts['records']:,} records of {counts['dataset']} are sound, {len(rejected):,} set aside"
    say(f"{sound}; {images} -> {config.out}")


class _Look:
    """One pass over a dataset's records, in which each of its pictures is decoded once, on all cores.

    Attributes:
      hashes: of the pixels of every sound picture, by the image's name.
      rejected: records whose picture is not sound.
    """

    def __init__(self, dataset: VQADataset):
        self.dataset = dataset
        self.hashes: dict[str, bytes] = {}
        self.rejected: list[Rejection] = []
        self._faults: dict[str, str] = {}

    def hash_of(self, example: VQAExample) -> bytes:
        return self.hashes[example.image]

    def sound(self) -> Iterator[VQAExample]:
        """Records with a picture that can be decoded, in the dataset's order; the others go to `rejected`."""
        examples = iter(self.dataset.examples)
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders work outside the interpreter's lock
            progress(f"checking {self.dataset.name}", len(self.dataset.examples), "records") as advance,
        ):
            while chunk := list(itertools.islice(examples, _CHUNK)):
                new = [image for image in dict.fromkeys(e.image for e in chunk) if image not in self.hashes and image not in self._faults]
                for image, (found, fault) in zip(new, pool.map(self._look, new), strict=True):
                    if fault is None:
                        self.hashes[image] = found
                    else:
                        self._faults[image] = fault
                for example in chunk:
                    if example.image in self.hashes:
                        yield example
                    else:
                        self.rejected.append(Rejection(None, example.id, self._faults[example.image]))
                advance(len(chunk))

    def _look(self, image: str) -> tuple[bytes, str | None]:
        try:
            return pixel_hash(load_image(self.dataset.root / image)), None
        except ImageError as error:
            return b"", error.cause
