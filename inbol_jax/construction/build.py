"""`inbol build`: confidences in; records, IDK instructions and preference pairs out.

Questions stream through; memory holds a few numbers of each, by which shares are chosen and the table is counted. What a question gives
depends on the seed and on the question alone: the order of the stores decides the order of the lines and nothing else.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.artifacts import (
    atomically,
    file_fingerprint,
    fingerprint,
    json_line,
    meta_path,
    read_meta,
    write_json,
)
from inbol_jax.confidence.boundary import Thresholds, within_noise
from inbol_jax.confidence.estimators import Estimator, get_estimator, sampled_accuracy
from inbol_jax.confidence.store import (
    check_p_true,
    missing_shards,
    p_true_file,
    read_rows,
    read_store,
)
from inbol_jax.construction.balance import check_shares, kept, quotas
from inbol_jax.construction.instructions import make_instructions
from inbol_jax.construction.negatives import Negatives
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.templates import RefusalMix
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import Boundary, BoundaryRecord, PairKind

FILES = ("records.jsonl", "instructions.jsonl", "preferences.jsonl")
_KINDS = {kind.name.lower(): kind for kind in PairKind}
_ROWS = {
    1: "Type 1, known",
    0: "mixed",
    2: "Type 2, unknown",
    3: "Type 3",
}  # of the table; Mixed has no type, in the arrays 0


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Turn sampled confidences into boundary records, IDK instructions and preference pairs.

    Attributes:
      out: reads OUT/confidence/*.jsonl; writes records.jsonl, instructions.jsonl and preferences.jsonl there.
      thresholds: where Known, Mixed and Unknown part.
      templates: refusals to teach: "one" (I don't know.), the four "short" ones, the "long" ones, those that give the "reason" which fits
        the type of the question, or "all".
      refusal_mix: several of these with their shares, instead of --templates: one 0.5 reason 0.5.
      estimator: of the confidence: "accuracy" against the gold answers, "consistency" or "likelihood" of the samples, or "p-true".
      negatives: confidence store of the same questions, a .jsonl file or a folder of them, whose incorrect responses the pairs reject
        instead of the records' own: one sampled from the IDK-IT model, which CA-DPO starts from.
      pairs: of each kind a question, with other incorrect responses or refusals as far as there are.
      types: shares of the question types in instructions and pairs (3 0.2: a fifth is Type 3); what is too many is left out. Mixed has no
        type and stays.
      kinds: shares of the kinds of pairs (correct_over_refusal, correct_over_incorrect, refusal_over_incorrect, refusal_over_answer).
      partial: take stores that are still being filled for what they hold.
      seed: of the choice of refusals, of incorrect responses, and of what is left out for the shares.
    """

    out: Path
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    templates: str = "one"
    refusal_mix: tuple[tuple[str, float], ...] = ()
    estimator: str = "accuracy"
    negatives: Path | None = None
    pairs: int = 1
    types: tuple[tuple[int, float], ...] = ()
    kinds: tuple[tuple[str, float], ...] = ()
    partial: bool = False
    seed: int = 0


def unfinished(file: Path) -> str | None:
    """Why a store is not finished, or None: it lacks shards, is being written, or does not hold as many questions as its header says."""
    if missing := missing_shards(file):
        return (
            f"{missing} of its shards are missing; give `inbol confidence` again in every process"
        )
    with file.open("rb") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "`inbol confidence` is writing it; wait for its end"
    found = count_lines(file)
    if found != read_meta(file).get("rows"):
        return (
            f"{found} questions so far; give `inbol confidence` again, it goes on where it stopped"
        )
    return None


def count_lines(file: Path) -> int:
    """Whole lines of a file; what follows the last line's end is none."""
    with file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))


def read_records(
    files: Sequence[Path], thresholds: Thresholds, estimator: Estimator = sampled_accuracy
) -> Iterator[BoundaryRecord]:
    """The record of every line of the stores, in their order, but for answerable questions that the estimator has no value for.

    Raises:
      InbolError: when a line lacks what a store's line has.
    """
    for file in files:
        for question in read_store(file):
            if question.example.answerable is not False and estimator(question) is None:
                continue
            yield make_record(question, thresholds, estimator)


@dataclasses.dataclass
class _Made:
    """What was written, as far as choosing and counting need it: a number an item, in the order of the lines."""

    keys: array = dataclasses.field(default_factory=lambda: array("Q"))  # of each question
    types: array = dataclasses.field(default_factory=lambda: array("b"))
    taught: array = dataclasses.field(
        default_factory=lambda: array("I")
    )  # question of each instruction
    paired: array = dataclasses.field(default_factory=lambda: array("I"))  # question of each pair
    kinds: array = dataclasses.field(default_factory=lambda: array("b"))
    pair_keys: array = dataclasses.field(default_factory=lambda: array("Q"))
    noisy: int = 0
    without_answer: int = 0


def build(config: BuildConfig) -> None:
    """Writes the three files, each with its header, and prints what is in them.

    Raises:
      InbolError: when an option cannot be, there is no confidence to read, a store is not finished, the stores belong to different images,
        two questions have one id, or a class or a group that is to have a share would be empty. What was there before then stays.
    """
    mix = _refusals(config)
    type_shares = check_shares("--types", config.types, (1, 2, 3))
    kind_shares = check_shares("--kinds", config.kinds, tuple(_KINDS))
    if config.pairs < 1:
        raise InbolError(f"--pairs {config.pairs}: at least 1 is needed")
    estimator = get_estimator(config.estimator)
    files = sorted((config.out / "confidence").glob("*.jsonl"))
    if not files:
        raise InbolError(
            f"{config.out / 'confidence'} holds no .jsonl file; run `inbol confidence --out {config.out}` first"
        )
    others = [] if config.negatives is None else _stores(config.negatives)
    for file in (*files, *others):
        if why := unfinished(file):
            if not config.partial:
                raise InbolError(
                    f"{file} is not finished: {why}, or take what is there with --partial"
                )
            say(f"{file} is not finished: {why.partition(';')[0]}, taken as it is")
    inputs = list(files)
    if config.estimator == "p-true":
        for file in files:
            check_p_true(file, finished=not config.partial)
        inputs += map(p_true_file, files)
    headers = [read_meta(file) for file in files]
    if len({h.get("images") for h in headers}) > 1 or len({h.get("model") for h in headers}) > 1:
        raise InbolError(
            f"the stores in {files[0].parent} are of different models or image folders; give each an --out of its own"
        )
    images = os.path.relpath(
        (files[0].parent / headers[0].get("images", ".")).resolve(), config.out.resolve()
    )
    settings = {
        "command": "build",
        "inputs": file_fingerprint(*inputs),
        **dataclasses.asdict(config),
        "out": "",
    }
    settings["negatives"] = file_fingerprint(*others) if others else None
    meta: dict[str, Any] = settings | {"config": fingerprint(settings), "images": images}

    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(atomically(config.out / name)) for name in FILES]
        negatives = (
            stack.enter_context(Negatives(others, lambda id: _key(config.seed, id)))
            if others
            else None
        )
        made = _construct(config, files, estimator, mix, negatives, paths)
        _check_ids(made, files, config.seed)
        if negatives and negatives.missing:
            for kind in sorted(
                set(made.types) - {made.types[question] for question in made.paired}
            ):
                raise InbolError(
                    f"--negatives {config.negatives}: no pair is left of {_ROWS[kind]}; sample those questions as well"
                )
            say(
                f"{negatives.missing} of {len(made.keys)} questions are not in {config.negatives}: no pair rejects what was said to them"
            )
        chosen = _chosen(
            made, type_shares, {_KINDS[kind]: share for kind, share in kind_shares.items()}
        )
        _check_classes(made, chosen, config)
        for path, mask in zip(paths[1:], chosen, strict=True):
            if not mask.all():
                _keep_lines(path, mask)
        for name in FILES:
            meta_path(config.out / name).unlink(
                missing_ok=True
            )  # a file without its header is not finished
    for name, rows in zip(
        FILES, (len(made.keys), *(int(mask.sum()) for mask in chosen)), strict=True
    ):
        write_json(meta_path(config.out / name), meta | {"rows": rows})
    for line in _table(made, chosen):
        say(line)
    answerable = len(made.types) - made.types.count(3)
    if left_out := sum(map(count_lines, files)) - len(made.keys):
        say(f"{left_out} questions could not be asked for P(True), and are left out")
    say(
        f"{made.noisy / max(1, answerable):.0%} of the labels lie within sampling noise of a threshold"
    )
    if made.without_answer:
        say(
            f"{made.without_answer} Known questions have no correct response to teach, as nothing was judged against gold answers"
        )
    say(
        f"{len(made.keys)} records, {chosen[0].sum()} instructions, {chosen[1].sum()} pairs -> {config.out}"
    )


def _refusals(config: BuildConfig) -> RefusalMix:
    if config.refusal_mix and config.templates != BuildConfig.templates:
        raise InbolError("--refusal-mix and --templates: give one of them")
    return RefusalMix(config.refusal_mix or ((config.templates, 1.0),))


def _stores(path: Path) -> list[Path]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InbolError(
            f"--negatives {path}: no such file, or a folder without .jsonl files; give a store that `inbol confidence` has written"
        )
    return files


def _key(*parts: Any) -> int:
    """64 bits of what identifies an item: its place in an order that is as good as random, and the same whatever the order of the files."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:8], "big")


def _construct(
    config: BuildConfig,
    files: Sequence[Path],
    estimator: Estimator,
    mix: RefusalMix,
    negatives: Negatives | None,
    paths: Sequence[Path],
) -> _Made:
    """Writes all that the questions give, a line each, to the three paths."""
    made = _Made()
    total = sum(map(count_lines, files))
    with contextlib.ExitStack() as stack:
        records, instructions, preferences = (
            stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths
        )
        advance = stack.enter_context(progress("construction", total, "questions"))
        for number, record in enumerate(read_records(files, config.thresholds, estimator)):
            records.write(json_line(record.to_json()))
            made.keys.append(_key(config.seed, record.id))
            made.types.append(record.type or 0)
            made.noisy += record.type != 3 and within_noise(
                record.wilson_low, record.wilson_high, config.thresholds
            )
            made.without_answer += record.boundary is Boundary.KNOWN and not record.correct
            for instruction in make_instructions([record], mix, config.seed):
                instructions.write(json_line(instruction.to_json()))
                made.taught.append(number)
            for pair in make_preferences(
                [record], mix, config.seed, pairs=config.pairs, negatives=negatives
            ):
                preferences.write(json_line(pair.to_json()))
                made.paired.append(number)
                made.kinds.append(pair.kind)
                made.pair_keys.append(
                    _key(config.seed, pair.id, pair.kind, pair.chosen, pair.rejected)
                    if config.kinds
                    else 0
                )
            if number % 256 == 255:
                advance(256)
        advance(len(made.keys) % 256)
    return made


def _check_ids(made: _Made, files: Sequence[Path], seed: int) -> None:
    """Raises InbolError where two questions have one id. Reads the files once more only where two hashes are alike."""
    keys = np.sort(np.asarray(made.keys))
    alike = set(keys[1:][keys[1:] == keys[:-1]].tolist())
    seen: set[str] = set()
    for file in files if alike else ():
        for number, (_, question) in enumerate(read_rows(file), 1):
            id = question.example.id
            if id in seen:
                raise InbolError(
                    f"{file}:{number}: id {id} is in another store too; ids must be unique across datasets"
                )
            if _key(seed, id) in alike:
                seen.add(id)


def _chosen(
    made: _Made, types: Mapping[int, float], kinds: Mapping[int, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Which instructions and which pairs are kept for the shares: bool[instructions], bool[pairs]."""
    taught, paired = np.asarray(made.taught, np.int64), np.asarray(made.paired, np.int64)
    questions = np.ones(len(made.keys), bool)
    if types:
        of = np.asarray(made.types)
        keep = quotas("--types", {t: int((of == t).sum()) for t in (1, 2, 3)}, types)
        groups = np.where(
            (of == 0) | np.isin(of, list(types)), of, -1
        )  # -1: the types that are not named
        questions = kept(
            np.asarray(made.keys),
            groups,
            {-1 if group is None else group: n for group, n in keep.items()},
        )
    pairs = questions[paired]
    if kinds:
        of, keys = np.asarray(made.kinds)[pairs], np.asarray(made.pair_keys)[pairs]
        keep = quotas("--kinds", {kind: int((of == kind).sum()) for kind in PairKind}, kinds)
        groups = np.where(np.isin(of, list(kinds)), of, -1)
        pairs[pairs] = kept(
            keys, groups, {-1 if group is None else group: n for group, n in keep.items()}
        )
    return questions[taught], pairs


def _check_classes(made: _Made, chosen: tuple[np.ndarray, np.ndarray], config: BuildConfig) -> None:
    types = np.asarray(made.types)[np.asarray(made.taught, np.int64)[chosen[0]]]
    for boundary, there in (
        (Boundary.KNOWN, (types == 1).any()),
        (Boundary.UNKNOWN, (types > 1).any()),
    ):
        if not there:
            moved = " and the shares" if config.types else ""
            raise InbolError(
                f"no question is {boundary}: nothing to teach; move the thresholds {config.thresholds}{moved} or use more data"
            )


def _keep_lines(path: Path, mask: np.ndarray) -> None:
    whole = path.with_name(path.name + ".whole")
    path.rename(whole)
    try:
        with whole.open("rb") as lines, path.open("wb") as file:
            file.writelines(line for line, keep in zip(lines, mask, strict=True) if keep)
    finally:
        whole.unlink()


def _table(made: _Made, chosen: tuple[np.ndarray, np.ndarray]) -> Iterator[str]:
    """Questions, instructions and pairs by type and by kind of pair."""
    types, kinds = np.asarray(made.types), np.asarray(made.kinds)[chosen[1]]
    taught = types[np.asarray(made.taught, np.int64)[chosen[0]]]
    paired = types[np.asarray(made.paired, np.int64)[chosen[1]]]
    columns = {"questions": types, "instructions": taught, "pairs": paired}
    columns |= {
        name.replace("_over_", " > "): paired[kinds == kind] for name, kind in _KINDS.items()
    }
    rows = [("", *columns)]
    rows += [
        (name, *(str((column == type).sum()) for column in columns.values()))
        for type, name in _ROWS.items()
    ]
    rows += [("all", *(str(len(column)) for column in columns.values()))]
    for row in rows:
        cells = (f"  {cell:>{len(name)}}" for cell, name in zip(row[1:], columns, strict=True))
        yield row[0].ljust(max(map(len, _ROWS.values()))) + "".join(cells)
