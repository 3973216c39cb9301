"""Incorrect responses of another model than the one that the records are of: of the IDK-IT model, which CA-DPO starts from."""

import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.store import question_of, read_rows
from inbol_jax.construction.record import make_record
from inbol_jax.errors import InbolError
from inbol_jax.records import BoundaryRecord, Response


class Negatives:
    """Looks questions up in confidence stores. In memory are 18 bytes a question; the lines stay on disk. `with` closes the files.

    Args:
      files: of the stores, finished or not.
      hash_id: 64 bits of an id.

    Attributes:
      missing: questions that were looked up and are not in the stores.

    Raises:
      InbolError: when a file cannot be read, or is no confidence store.
    """

    def __init__(self, files: Sequence[Path], hash_id: Callable[[str], int]):
        self._files, self._hash = list(files), hash_id
        self._open: list[Any] = []
        self.missing = 0
        keys, starts, numbers = array("Q"), array("q"), array("H")
        for number, file in enumerate(self._files):
            start = 0
            for end, question in read_rows(file):
                keys.append(hash_id(question.example.id))
                starts.append(start)
                numbers.append(number)
                start = end
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys, self._starts, self._numbers = (
            np.asarray(column)[order] for column in (keys, starts, numbers)
        )

    def __enter__(self) -> "Negatives":
        self._open = [file.open("rb") for file in self._files]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open:
            file.close()

    def __call__(self, record: BoundaryRecord) -> Sequence[Response]:
        """The incorrect responses to the record's question; none where the stores do not have it.

        Raises:
          InbolError: when the stores have another question under the record's id.
        """
        key = np.uint64(self._hash(record.id))
        for i in range(
            *(int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        ):
            number = self._numbers[i]
            self._open[number].seek(self._starts[i])
            row = json.loads(self._open[number].readline())
            if row["id"] != record.id:
                continue
            if row["question"] != record.question:
                raise InbolError(
                    f"{self._files[number]}: {record.id} is another question than in the records; --negatives needs the same dataset"
                )
            try:
                return make_record(question_of(row), Thresholds()).incorrect
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise InbolError(
                    f"{self._files[number]}: {record.id}: not a line of a confidence store ({error!r})"
                ) from error
        self.missing += 1
        return ()
