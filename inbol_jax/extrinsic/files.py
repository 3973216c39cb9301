"""What `inbol extrinsic` writes: the questions in extrinsic.jsonl with their header, and the
rejected ones in the trail."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import fingerprint, read_meta
from inbol_jax.errors import InbolError

KEPT = "kept"


def questions_file(out: Path) -> Path:
    """The file of the questions in a folder."""
    return out / "extrinsic.jsonl"


def trail_file(file: Path) -> Path:
    """The file of the questions that were rejected beside those of `extrinsic.jsonl`."""
    return file.with_suffix(".trail.jsonl")


@dataclasses.dataclass(frozen=True, slots=True)
class RejectedQuestion:
    """A question that a filter rejected: a line of the trail.

    Attributes:
      id, image, question, generator: as in the record that it would have become.
      passed: the filters that it passed.
      filter: the filter that rejected it.
      reason: the filter's reason in words.
    """

    id: str
    image: str
    question: str
    generator: str
    passed: list[str]
    filter: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclasses.dataclass(frozen=True, slots=True)
class FunnelCounts:
    """What became of the examples.

    Attributes:
      verdicts: number of questions by generator and by `KEPT` or the filter that rejected them.
      set_aside: number of examples by generator and cause of which no question was made.
    """

    verdicts: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    set_aside: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)

    @property
    def kept(self) -> int:
        return sum(n for (_, verdict), n in self.verdicts.items() if verdict == KEPT)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Both counters by "generator: verdict" and "generator: cause"."""
        named = {"counts": self.verdicts, "set_aside": self.set_aside}
        return {
            name: {": ".join(key): n for key, n in sorted(counter.items())}
            for name, counter in named.items()
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "FunnelCounts":
        counters = []
        for name in ("counts", "set_aside"):
            pairs = ((key.partition(": "), n) for key, n in row.get(name, {}).items())
            counters.append(Counter({(maker, what): n for (maker, _, what), n in pairs}))
        return cls(*counters)


@dataclasses.dataclass(frozen=True, slots=True)
class ExtrinsicHeader:
    """The header of extrinsic.jsonl.

    Attributes:
      settings: what the questions depend on: command, options, fingerprints of data and model.
      images, data: image folder and records that they were made from, relative to the header.
      generators, filters: names of what was used, in order.
      counts: what became of the examples.
    """

    settings: Mapping[str, Any]
    images: str
    data: str
    generators: list[str]
    filters: list[str]
    counts: FunnelCounts

    def to_json(self) -> dict[str, Any]:
        return {
            **self.settings,
            "config": fingerprint(self.settings),
            "images": self.images,
            "data": self.data,
            "generators": self.generators,
            "filters": self.filters,
            **self.counts.to_json(),
            "rows": self.counts.kept,
        }

    @classmethod
    def read(cls, file: Path) -> "ExtrinsicHeader":
        """The header of the questions in a file.

        Raises:
          InbolError: if there are none, or they are not finished.
        """
        row = read_meta(file)
        if not {"counts", "images", "data", "generators", "filters"} <= set(row):
            raise InbolError(
                f"{file.parent} holds no finished {file.name} of this version; "
                f"run `inbol extrinsic --out {file.parent}` first"
            )
        counts = FunnelCounts.from_json(row)
        own = {"counts", "set_aside", "rows", "config"}
        fields = {name: row.pop(name) for name in ("images", "data", "generators", "filters")}
        settings = {name: value for name, value in row.items() if name not in own}
        return cls(settings, counts=counts, **fields)
