"""Files that commands leave for each other: JSON lines, each file with a header `.meta.json`."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypedDict, TypeVar

import msgspec
from filelock import lock_descriptor

from inbol_jax.errors import InbolError, printable

Row = TypeVar("Row")
Result = TypeVar("Result")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_JSON = 1 << 24  # bytes of one value
HINT = "choose another --out, or delete it"
_IN_HEADERS = {"rows": int, "images": str, "settings": dict, "inputs": dict, "seconds": dict}
_Header = TypedDict("_Header", _IN_HEADERS, total=False)


def parse_json(data: str | bytes) -> Any:
    """The JSON value that a file or a line of it holds.

    Raises:
      UnicodeError: if there are bytes that are not UTF-8.
      ValueError: this includes UnicodeError; also if it is not JSON, longer than `MAX_JSON`, nested
        too deeply, has half a surrogate pair, one key twice, or a number that is not finite.
    """
    if len(data) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON >> 20} MiB")
    text = data.removeprefix(BYTE_ORDER_MARK).decode() if isinstance(data, bytes) else data
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Of two equal keys the last one is kept: then the text has colons that the value lacks.
    colons = text.count(":")
    if isinstance(value, dict) and len(value) < colons > msgspec.json.encode(value).count(b":"):
        raise ValueError("a key is there twice")
    return value


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises InbolError if the file holds none."""
    try:
        value = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InbolError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InbolError(f"{file}: a JSON object is needed")
    return value


def canonical_json(value: Any) -> str:
    """The one spelling of equal values: sorted keys, no spaces, dataclasses as objects."""
    return msgspec.json.encode(value, order="sorted", enc_hook=os.fspath).decode()


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def changes(made: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs between the settings of an earlier run and ours, by the name of the option.

    >>> changes({"n": 10, "seed": 0}, {"n": 20, "seed": 0})
    {'n': '--n 10, and now --n 20'}
    >>> changes({"against": []}, {"against": ["vqa", "gqa"]})
    {'against': 'no --against, and now --against vqa gqa'}
    """
    made, now = (parse_json(canonical_json(settings)) for settings in (made, now))
    return {
        name: f"{_option(name, made.get(name))}, and now {_option(name, now.get(name))}"
        for name in sorted(made | now)
        if made.get(name) != now.get(name)
    }


def _option(name: str, value: Any) -> str:
    """An option with its value, as it is typed."""
    option = f"--{name.replace('_', '-')}"
    if value is False or value in (None, "", []):
        return f"no {option}"
    if value is True:
        return option
    values = value if isinstance(value, list) else [value]
    return " ".join([option, *(v if isinstance(v, str) else json.dumps(v) for v in values)])


def hash64(text: str) -> int:
    """The first 64 bits of a text's SHA-256: as good as random, and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def file_fingerprint(*paths: Path) -> str:
    """Sixteen hex digits of the SHA-256 over the files' names and contents, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def check_name(name: str, what: str) -> None:
    """Refuses a name that cannot become that of a file; `what` says whose name it is."""
    size = len(name.encode(errors="replace"))
    separators = {"/", "\\"} & {*name}
    if not 0 < size <= 100 or name in (".", "..") or separators or printable(name) != name:
        raise InbolError(
            f"{what} {name[:100]!r}: files are called by it, so it needs 1 to 100 bytes without "
            "'/', '\\' and control characters; choose another name"
        )


@contextlib.contextmanager
def writing(path: Path, remedy: str = "choose another --out") -> Iterator[None]:
    """Raises InbolError, which names the path and the remedy, if the system fails in the block."""
    try:
        yield
    except OSError as error:
        raise InbolError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


@contextlib.contextmanager
def atomically(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path, which is renamed over `path` when the block ends without an error.

    Args:
      sync: whether to wait until the data is on the disk. False is for many small files that count
        only once a synced list of them has been written.
    Raises:
      InbolError: if the folder cannot be made or written.
    """
    # A run that is killed leaves the file, and the next one that writes `path` takes its name.
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.touch()
        try:
            yield temporary
            if sync:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_lines(path: Path) -> Iterator[TextIO]:
    """Yields a text file for lines, which becomes `path` as `atomically` says."""
    with atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def lock(descriptor: int, path: Path) -> None:
    """Locks what is open there until it is closed; raises InbolError if another process has."""
    if not lock_descriptor(descriptor, blocking=False):
        raise InbolError(
            f"{path} is being written by another run; wait for its end, or choose another --out"
        )


_held: set[tuple[int, int]] = set()  # device and inode of the folders that this process holds


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing into a folder until the block ends.

    The lock is on the folder itself and ends with the process, however that ends. A process may
    enter again what it holds.

    Raises:
      InbolError: if another process holds the folder, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, handle)
        place = os.fstat(handle).st_dev, os.fstat(handle).st_ino
        if place not in _held:
            lock(handle, folder)
            _held.add(place)
            stack.callback(_held.remove, place)
        yield


def one_writer(
    stage: Callable[..., Result],
    lock: Callable[[Path], contextlib.AbstractContextManager[None]] = sole_writer,
) -> Callable[..., Result]:
    """Keeps other processes from writing into `config.out` while a stage of that config runs."""

    @functools.wraps(stage)
    def alone(config: Any, *args: Any, **kwargs: Any) -> Result:
        with lock(config.out):
            return stage(config, *args, **kwargs)

    return alone


def write_atomically(path: Path, data: str | bytes, *, sync: bool = True) -> None:
    """Writes a whole file or nothing (`atomically`)."""
    with atomically(path, sync=sync) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def meta_path(path: Path) -> Path:
    """The path of a file's header."""
    return path.with_name(path.name + ".meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """A file's header; empty if it has none, as a file that a user wrote."""
    try:
        header = parse_json(meta_path(path).read_bytes())
        msgspec.convert(header, _Header)  # somebody may have edited it
        return header
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InbolError(
            f"{meta_path(path)}: cannot be read ({error}); delete it and {path.name}, and give the "
            "command again"
        ) from error


def is_finished(file: Path) -> bool:
    """Whether a file is there with as many lines as its header counts.

    Raises:
      InbolError: if it has more or fewer: it was cut, or edited.
    """
    rows = read_meta(file).get("rows")
    if rows is None or not file.exists():
        return False
    with file.open("rb") as lines:
        found = sum(1 for line in lines if line.strip())
    if found != rows:
        raise InbolError(
            f"{file} holds {found} lines, and by its header {rows}; delete it and give its command "
            f'again, or set "rows" in {meta_path(file)} if it is meant as it is'
        )
    return True


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of a JSON lines file, with its end."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def check_ours(path: Path, main: Path | None = None) -> None:
    """Raises InbolError if a file is there without its header, or that of the main one of several
    that are written together: somebody else's."""
    if path.exists() and not meta_path(main or path).exists():
        raise InbolError(f"{path} was not made by `inbol`: {HINT}")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], meta: Mapping[str, Any]) -> int:
    """Writes rows as they come, then the header, each atomically. Returns the number of rows.

    Raises:
      InbolError: if a file of that name has no header: somebody else's.
    """
    check_ours(path)
    write_json(meta_path(path), {})  # a file whose header is empty is not finished
    number = 0
    with atomic_lines(path) as file:
        for row in rows:
            file.write(json_line(row))
            number += 1
    write_json(meta_path(path), dict(meta) | {"rows": number})
    return number


def read_jsonl(
    path: Path, parse: Callable[[dict[str, Any]], Row] = lambda row: row, digest: Any = None
) -> Iterator[Row]:
    """Rows of a JSON lines file, parsed: `read_jsonl(file, Instruction.from_json)`.

    Args:
      digest: a hash of `hashlib` that gets the bytes that are read.
    Raises:
      InbolError: if the file is missing; naming file and line, if a line is not a JSON object or
        `parse` refuses it.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InbolError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if digest is not None:
                digest.update(line)
            try:
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise InbolError("expected a JSON object")
                parsed = parse(row)
            except (InbolError, ValueError) as error:
                cause = error if isinstance(error, InbolError) else f"not JSON ({error})"
                raise InbolError(f"{path}:{number}: {cause}") from error
            yield parsed
