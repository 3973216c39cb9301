"""Files that stages leave for each other: JSON lines, and beside each file a `.meta.json` that says what made it.

The header is a file of its own, so that `datasets`, pandas and `jq` read the lines as they are. It holds the command, its
options, the seed, the fingerprints of model and inputs, and a hash over all of these: a stage whose output carries the
hash that it is about to produce has nothing left to do.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from inbol_jax.errors import InbolError

Row = TypeVar("Row")


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces; paths, enums and dataclasses as plain JSON."""

    def plain(o: Any) -> Any:
        if dataclasses.is_dataclass(o) and not isinstance(o, type):
            return dataclasses.asdict(o)
        return os.fspath(o)

    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), default=plain, ensure_ascii=False
    )


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def hash64(text: str) -> int:
    """The first 64 bits of the SHA-256 of a text: as good as random, and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def file_fingerprint(*paths: Path) -> str:
    """Sixteen hex digits of the SHA-256 over the files' names and contents, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def atomically(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A whole file or nothing: yields a temporary path in the same folder, which is synced and renamed over `path` when the block ends.

    Args:
      sync: False for files of many whose list is written, synced, after them.
    Raises:
      InbolError: when the folder cannot be made or written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        yield Path(temporary)
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise InbolError(
                f"cannot write {path}: {error.strerror or error}; choose another --out"
            ) from error
        raise


def write_atomically(path: Path, data: str | bytes, *, sync: bool = True) -> None:
    """Writes a whole file or nothing (`atomically`)."""
    with atomically(path, sync=sync) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def meta_path(path: Path) -> Path:
    """Where the header of a stage's file lies."""
    return path.with_name(path.name + ".meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """The header of a stage's file; empty where there is none (a file that a user wrote)."""
    try:
        header = json.loads(meta_path(path).read_text(encoding="utf-8"))
        if not isinstance(header, dict):
            raise ValueError("not a JSON object")
        return header
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InbolError(
            f"{meta_path(path)}: cannot be read ({error}); delete it and run the stage again"
        ) from error


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of a JSON lines file, its end included."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], meta: Mapping[str, Any]) -> int:
    """Writes rows as they come, and header, each atomically, the header last: a file without its header is not finished.

    Returns: the number of rows.
    """
    meta_path(path).unlink(missing_ok=True)
    number = 0
    with atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json_line(row))
            number += 1
    write_json(meta_path(path), dict(meta) | {"rows": number})
    return number


def read_jsonl(
    path: Path, parse: Callable[[dict[str, Any]], Row] = lambda row: row
) -> Iterator[Row]:
    """Rows of a JSON lines file, each as `parse` makes it: `read_jsonl(file, Instruction.from_json)`.

    Raises:
      InbolError: if the file is missing, or naming file and line, if a line is not a JSON object or
        `parse` raises an InbolError.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InbolError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise InbolError(f"{path}:{number}: expected a JSON object")
            try:
                parsed = parse(row)
            except InbolError as error:
                raise InbolError(f"{path}:{number}: {error}") from error
            yield parsed
