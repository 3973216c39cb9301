"""The confidence store: sampled answers, appended as they come, one line a question. What is there is not sampled again."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import fingerprint, meta_path, read_jsonl, read_meta, write_json
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample


class ConfidenceStore:
    """`<out>/confidence/<dataset>.jsonl` with its header.

    Args:
      settings: everything that the samples depend on; a file that was made with others is refused, never mixed.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]):
        self.file = file
        identity = fingerprint(settings)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InbolError(f"cannot write {file.parent}: {error.strerror}; choose another --out") from error
        header = read_meta(file)
        if file.exists() and header.get("config") != identity:
            changed = sorted(k for k in settings if header.get(k) != settings[k])
            raise InbolError(
                f"{file} was sampled with other settings ({', '.join(changed) or 'no header'}); choose another --out or delete it"
            )
        if not header:
            write_json(meta_path(file), dict(settings) | {"config": identity})
        self._repair()
        self.done = {row["id"]: (row["question"], row["image"]) for row in read_jsonl(file)} if file.exists() else {}

    def pending(self, examples: Iterable[VQAExample]) -> list[VQAExample]:
        """The examples that are not in the store yet.

        Raises:
          InbolError: when the store holds an id with another question or image: the dataset was changed under it.
        """
        waiting = []
        for example in examples:
            if example.id not in self.done:
                waiting.append(example)
            elif self.done[example.id] != (example.question, example.image):
                raise InbolError(f"{self.file}: {example.id} was another question when it was sampled; choose another --out or delete it")
        return waiting

    def _repair(self) -> None:
        """Cuts a last line that a killed run left half written."""
        if not self.file.exists():
            return
        with self.file.open("r+b") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows and waits until they are on the disk."""
        with self.file.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                self.done[row["id"]] = (row["question"], row["image"])
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Notes in the header how many questions a finished store holds: one that holds another number is still being filled."""
        write_json(meta_path(self.file), read_meta(self.file) | {"rows": len(self.done)})

    def rows(self) -> Iterator[dict[str, Any]]:
        return read_jsonl(self.file)
