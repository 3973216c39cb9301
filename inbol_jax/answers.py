"""What models said, kept by what they were asked: a line is never wrong, at most unused.

The key of a line is a hash of everything that an answer depends on: the asker (the model and how it
answers), the whole text, the question's id, from which random numbers come, and the bytes of the
images. Gold answers are no part of it: what was said is judged when it is read. So a corrected
answer costs nothing, and an edited question or an exchanged picture is asked again.

    {"key": "5d41402abc4b2a76", "set_aside": null, "responses": ["red", "blue"], "counts": [7, 3]}
"""

import contextlib
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec

from inbol_jax.artifacts import canonical_json, fingerprint, json_line, lock, parse_json, writing
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress
from inbol_jax.prompts import Prompt
from inbol_jax.records import VQAExample

Row = dict[str, Any]
HASHED = 4096  # files that are waiting to be hashed at a time


class Generation(NamedTuple):
    """One response; it was cut if it had not ended by itself at `max_new_tokens`.

    Log-probability, in nats, and number of tokens are None if an endpoint does not say them.
    """

    text: str
    logprob: float | None
    tokens: int | None
    cut: bool = False


def to_row(generations: Iterable[Generation]) -> Row:
    """The columns of a line: the distinct responses, in the order in which they came, with their
    counts. Log-probabilities are rounded to five digits.

    >>> to_row([Generation("red", -0.25, 2), Generation("red", -0.25, 2)])["counts"]
    [2]
    """
    counts = Counter(g._replace(logprob=g.logprob and round(g.logprob, 5)) for g in generations)
    return {
        "responses": [g.text for g in counts],
        "counts": list(counts.values()),
        "logprobs": [g.logprob for g in counts],
        "tokens": [g.tokens for g in counts],
        "cut": [g.cut for g in counts],
    }


def from_row(row: Row, n: int) -> list[tuple[Generation, int]]:
    """What `to_row` was given: each distinct response and how often it came, n in all.

    Raises:
      ValueError: if the columns do not agree, or they hold another number of responses.
    """
    columns = [row[name] for name in ("responses", "logprobs", "tokens", "cut", "counts")]
    pairs = [(Generation(*said), n) for *said, n in zip(*columns, strict=True)]
    if (found := sum(row["counts"])) != n:
        raise ValueError(f"{found} responses, where {n} were asked for")
    for (text, logprob, tokens, cut), n in pairs:
        least = n if tokens is None else min(n, tokens)
        typed = isinstance(text, str) and isinstance(cut, bool)
        if not typed or least < 1 or (logprob or 0) > 0:
            raise ValueError("texts, counts and tokens above 0, log-probabilities of at most 0")
    return pairs


class ImageHashes:
    """Hashes of the files of a folder: sixteen hex digits of the SHA-256 of their bytes.

    Each file is read once, a block at a time, in threads.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[str, str] = {}
        self._pool = ThreadPoolExecutor()

    def of(self, names: Iterable[str]) -> Mapping[str, str]:
        """{name: hash} of at least these files; the hash is empty if a file cannot be read."""
        new = list(dict.fromkeys(name for name in names if name not in self._known))
        if not new:
            return self._known
        long = len(new) > HASHED  # no boundary if few, as while a batch's lines are appended
        with progress("comparing images", len(new), "images", shown=long, boundary=long) as advance:
            for start in range(0, len(new), HASHED):
                some = new[start : start + HASHED]
                self._known.update(zip(some, self._pool.map(self._hash, some), strict=True))
                advance(len(some))
        return self._known

    def fingerprint(self, names: Iterable[str]) -> str:
        """Of the bytes of these files, in the order in which they first occur."""
        different = list(dict.fromkeys(names))
        return fingerprint([*map(self.of(different).get, different)])

    def _hash(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError:
            return ""


class Asker:
    """Who is asked, and what identifies a question to it.

    Args:
      settings: everything that answers depend on beside the question: model, sampling, seed, ...
      prompt: how questions are put; its text and its system text are part of the key.
      images: hashes of the files of the folder that images are relative to.
    """

    def __init__(self, settings: Mapping[str, Any], prompt: Prompt, images: ImageHashes):
        self._settings = canonical_json([settings, prompt.system])
        self.prompt, self.images = prompt, images

    def key(self, example: VQAExample, text: str | None = None) -> str:
        """Sixteen hex digits. `text` is what is asked about the example, by default its prompt."""
        text = self.prompt.text(example) if text is None else text
        hashes = self.images.of(example.images)
        images = [hashes[name] for name in example.images]
        return fingerprint([self._settings, example.id, text, images])

    def keys(self, examples: Sequence[VQAExample]) -> dict[str, str]:
        """{id: key} of a whole dataset; its images are read at once."""
        self.images.of({name for example in examples for name in example.images})
        return {example.id: self.key(example) for example in examples}


class _Line(msgspec.Struct):
    """What a store must know of every line."""

    key: str
    set_aside: str | None = None


_LINES = msgspec.json.Decoder(_Line)


class AnswerStore:
    """The lines of a file by their keys, in memory as they stand in the file.

    What other processes wrote beside the file, into NAME.process-1.jsonl and so on, belongs to the
    store. A last line without its end, which a killed run has left, is not read.

    Attributes:
      set_aside: the keys of what the last run that asked could not ask.

    Args:
      process: which process this is among those that ask at the same time; each appends to a file
        of its own, locked until `with` closes the store. None only reads, also while others write.
    Raises:
      InbolError: if the file cannot be used, another run is writing it, or a whole line is not a
        line of answers.
    """

    def __init__(self, file: Path, process: int | None = None):
        self.base = file
        self.file = file.with_name(f"{file.stem}.process-{process}.jsonl") if process else file
        self._lines: dict[str, bytes] = {}
        self.set_aside: set[str] = set()
        self._end = 0  # of the last whole line in our own file
        self._own: BinaryIO | None = None
        with contextlib.ExitStack() as stack:
            if process is not None:
                with writing(self.file):
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                    self._own = stack.enter_context(self.file.open("ab"))
                lock(self._own.fileno(), self.file)
                # Another run that has added nothing may have removed the file before the lock.
                opened = os.fstat(self._own.fileno())
                if not (self.file.exists() and os.path.samestat(opened, self.file.stat())):
                    raise InbolError(f"{self.file} was just removed by another run; try again")
            others = file.parent.glob(f"{glob.escape(file.stem)}.process-*.jsonl")
            for path in sorted({file, *others, self.file}):
                end = self._read(path) if path.exists() else 0
                self._end = end if path == self.file else self._end
            self._open = stack.pop_all()

    def _read(self, path: Path) -> int:
        """Reads the lines of a file. Returns where the last whole one ends."""
        end = 0
        with path.open("rb") as lines:
            for number, data in enumerate(lines, 1):
                if not data.endswith(b"\n"):
                    break
                try:
                    line = _LINES.decode(data)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise InbolError(
                        f"{path}:{number}: not a line of answers ({error}); delete that line"
                    ) from error
                self._keep(line.key, data, set_aside=line.set_aside is not None)
                end += len(data)
        return end

    def _keep(self, key: str, line: bytes, *, set_aside: bool) -> None:
        if not set_aside:
            self._lines[key] = line
            self.set_aside.discard(key)
        elif key not in self._lines:
            self.set_aside.add(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._own is not None and not self._end:
            self.file.unlink(missing_ok=True)  # nothing was asked
        with contextlib.suppress(OSError):  # of what `add` could not write, and has said so
            self._open.close()

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order of the lines."""
        return iter(self._lines)

    def __getitem__(self, key: str) -> Row:
        return parse_json(self._lines[key])

    def read(self, key: str, parse: Callable[[Row], Any]) -> Any:
        """What `parse` makes of a line. Raises InbolError, which names the line, if that fails."""
        try:
            return parse(self[key])
        except (KeyError, TypeError, ValueError) as error:
            about = f"{self.base}: the line with key {key} cannot be read ({error!r})"
            raise InbolError(f"{about}; delete that line") from error

    def add(self, rows: Mapping[str, Row]) -> None:
        """Appends lines, and waits until they are on the disk.

        Args:
          rows: by key, all with the same columns, such as those of `to_row`. A row whose column
            `set_aside` has a reason could not be asked: the next run asks it again.
        Raises:
          InbolError: if they cannot be written; the rows that were there stay.
        """
        rows = {key: {"key": key, "set_aside": None, **row} for key, row in rows.items()}
        lines = {key: json_line(row).encode() for key, row in rows.items()}
        with writing(self.file, "free space and run the same command again"):
            self._own.truncate(self._end)
            self._own.write(b"".join(lines.values()))
            self._own.flush()
            os.fsync(self._own.fileno())
        for key, line in lines.items():
            self._keep(key, line, set_aside=rows[key]["set_aside"] is not None)
            self._end += len(line)
