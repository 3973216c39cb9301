"""Tables of pages."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table for HTML or Markdown.

    Attributes:
      caption: what the table shows.
      columns: headers; the first column holds the row headers.
      rows: cells as text, each row as long as `columns`; one of a single cell is a heading of the
        rows behind it.
      spans: (header, number of columns) of an upper header row; empty if there is none.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spans: Sequence[tuple[str, int]] = ()

    @classmethod
    def read(cls, file: Path) -> "Table":
        """A table from a JSON file, as the benchmarks write it."""
        return msgspec.json.decode(file.read_bytes(), type=cls)
