"""Incorrect responses of another model than the records': the IDK-IT model, where CA-DPO starts."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inbol_jax.artifacts import hash64, parse_json
from inbol_jax.confidence.store import question_of, read_rows
from inbol_jax.construction.record import distinct_responses
from inbol_jax.errors import InbolError
from inbol_jax.records import BoundaryRecord, Response


class Negatives:
    """Looks questions up in confidence stores. `with` closes the files.

    The lines stay on disk; in memory are 18 bytes per question.

    Raises:
      InbolError: if a file cannot be read, or is no confidence store.
    """

    def __init__(self, files: Sequence[Path]):
        hashes, offsets, numbers = array("Q"), array("q"), array("H")
        for number, file in enumerate(files):
            offset = 0
            for end, question in read_rows(file):
                hashes.append(hash64(question.example.id))
                offsets.append(offset)
                numbers.append(number)
                offset = end
        order = np.argsort(np.asarray(hashes), kind="stable")
        self._hashes = np.asarray(hashes)[order]  # u64[questions], ascending
        self._offsets = np.asarray(offsets)[order]  # i64[questions], of the line in its file
        self._numbers = np.asarray(numbers)[order]  # u16[questions], which file
        self._files: list[BinaryIO] = [file.open("rb") for file in files]

    def __enter__(self) -> "Negatives":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def find(self, record: BoundaryRecord) -> Sequence[Response] | None:
        """The incorrect responses to the record's question; None if the stores do not have it.

        Raises:
          InbolError: if the stores have another question with the record's id.
        """
        key = np.uint64(hash64(record.id))
        first, last = (int(np.searchsorted(self._hashes, key, side)) for side in ("left", "right"))
        for i in range(first, last):
            file = self._files[self._numbers[i]]
            file.seek(self._offsets[i])
            question = question_of(parse_json(file.readline()))
            if question.example.id != record.id:
                continue  # another id with the same hash
            if question.example.question != record.question:
                raise InbolError(
                    f"{file.name}: {record.id} is another question than in the records; "
                    "--negatives needs the same dataset"
                )
            return distinct_responses(question)["wrong"]
        return None
