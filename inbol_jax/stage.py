"""The shape of a command that leaves a file: a header of what made it, and one end.

    with Stage(out / "extrinsic.jsonl", "extrinsic", {"seed": 3}, inputs={"data": "9f86d081"}) as s:
        if not s.finished:
            n = write_the_file()
            s.finish(rows=n)

The header `FILE.meta.json` has the command, its settings by the names of the options, fingerprints
of what it read, and once the file is whole, its number of rows.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from inbol_jax.artifacts import (
    HINT,
    canonical_json,
    changes,
    is_finished,
    meta_path,
    parse_json,
    read_meta,
    write_json,
)
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.records import VQAExample


class Stage:
    """One run of a command. Its caller keeps other runs out of the folder (`artifacts.one_writer`).

    Args:
      file: what the command makes, as a whole or line by line.
      settings: everything that the file depends on, by the names of the options.
      inputs: {option: fingerprint of what it names}; what a fingerprint is of cannot be shown.
      writes: False in a process that only reads what another one writes.
      grows: whether the file is never finished, as a store of answers whose questions may become
        more.
      others: what the command writes before it, each file with a header of its own.

    Attributes:
      finished: whether an earlier run with the same settings and inputs has finished the file.
      header: of the file, as it stands on the disk.

    Raises:
      InbolError: at the beginning of the block, if the file was made with other settings, of other
        inputs, or by another command.
    """

    def __init__(
        self,
        file: Path,
        command: str,
        settings: Mapping[str, Any],
        *,
        inputs: Mapping[str, str] | None = None,
        writes: bool = True,
        grows: bool = False,
        others: Iterable[Path] = (),
    ):
        self.file, self.finished = file, False
        self.header = {"command": command, "settings": settings, "inputs": inputs or {}}
        self.header = parse_json(canonical_json(self.header))  # as it is read again
        self._writes, self._grows, self._files = writes, grows, (file, *others)

    def __enter__(self) -> Self:
        if self.file.exists() and self.file.stat().st_size:
            header = read_meta(self.file)
            if different := self._different_from(header):
                raise InbolError(f"{self.file} {different}: {HINT}")
            self.finished = not self._grows and all(map(is_finished, self._files))
            if self.finished:
                self.header = header
                say(f"{self.file}: finished before, by the same settings ({header['rows']} rows)")
        if self._writes and not self.finished:
            write_json(meta_path(self.file), self.header)
        return self

    def _different_from(self, header: Mapping[str, Any]) -> str:
        """How the file that is there was made differently; empty if it was made so."""
        if header.get("command") != self.header["command"]:
            return f"was not made by `inbol {self.header['command']}`"
        # An input that the other run had not, as a model, brings settings of its own.
        inputs = changes(header.get("inputs", {}), self.header["inputs"])
        if options := ", ".join(f"--{name.replace('_', '-')}" for name in inputs):
            return f"was made of another {options}, or of what has changed since"
        settings = changes(header.get("settings", {}), self.header["settings"])
        return f"was made with {'; '.join(settings.values())}" if settings else ""

    def __exit__(self, *error: Any) -> None:
        if error[0] and self._writes and not (self.file.exists() and self.file.stat().st_size):
            meta_path(self.file).unlink(missing_ok=True)  # nothing was made with these settings

    def finish(self, rows: int, **about: Any) -> None:
        """Notes that the file is whole: how many rows it has, and what else its readers need."""
        self.header |= {**about, "rows": rows}
        if self._writes:
            write_json(meta_path(self.file), self.header)


class SetAside:
    """What a command could not use, with the reasons: it is said, and stops the command if it is
    too much. Engines call it with an example and the reason.

    Args:
      most: the largest share that may be set aside, in [0, 1].
      option: the option that says so, if there is one.
    """

    def __init__(self, most: float, option: str = "--max-rejected"):
        self._most, self._option = most, option
        self.reasons: dict[str, str] = {}  # by the question's id

    def __call__(self, example: VQAExample, reason: str) -> None:
        self.reasons[example.id] = reason

    def __len__(self) -> int:
        return len(self.reasons)

    def report(self, label: str, total: int, remedy: str) -> None:
        """Says how many of `total` questions were set aside, with the first of them.

        Raises:
          InbolError: if they are more than may be; it says the remedy.
        """
        if not self.reasons:
            return
        id, reason = next(iter(self.reasons.items()))
        line = f"{label}: {len(self)} of {total} questions set aside (first: {id}: {reason})"
        if len(self) > self._most * total:
            limit = f"{self._option} {self._most}".strip()
            raise InbolError(f"{line}, more than {limit} allows; {remedy}")
        say(line)
