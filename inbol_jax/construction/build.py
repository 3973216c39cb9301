"""`inbol build`: confidences in; records, IDK instructions and preference pairs out.

Questions stream through; memory holds a few numbers of each. What a question gives depends on the
seed and on the question alone: the order of the stores decides that of the lines, nothing else.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inbol_jax.artifacts import (
    atomically,
    fingerprint,
    hash64,
    json_line,
    meta_path,
    one_writer,
    write_json,
)
from inbol_jax.confidence.boundary import Thresholds, within_noise
from inbol_jax.confidence.estimators import Estimator, get_estimator
from inbol_jax.confidence.store import read_rows, read_store
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.instructions import make_instruction
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.stores import Negatives, Stores, find_stores
from inbol_jax.construction.tally import TYPES, Selection, Tally, select, table, warnings
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import Boundary, BoundaryRecord

FILES = ("records.jsonl", "instructions.jsonl", "preferences.jsonl")


@one_writer
def build(config: BuildConfig) -> None:
    """Writes the three files, each with its header, and prints what is in them.

    Raises:
      InbolError: if there is no confidence to read, a store is not finished, the stores belong to
        different images, two questions have one id, or a class or a group that is to have a share
        would be empty. The files of an earlier build then stay.
    """
    estimator = get_estimator(config.estimator)
    stores = find_stores(config)
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(atomically(config.out / name)) for name in FILES]
        tally = _write_all(config, stores, estimator, paths)
        _check_ids(tally.question_keys, stores.files)
        if tally.n_without_negatives:
            _check_negatives(tally, config)
        selection = select(tally, config)
        for path, mask in zip(paths[1:], selection, strict=True):
            _keep_lines(path, mask)
        for name in FILES:  # a file without its header is not finished
            meta_path(config.out / name).unlink(missing_ok=True)
    counts = (len(tally.question_keys), *(int(mask.sum()) for mask in selection))
    settings = {"command": "build", **dataclasses.asdict(config), "out": "", **stores.fingerprints}
    settings |= stores.prompt.to_json()
    header = settings | {"config": fingerprint(settings), "images": stores.images}
    for name, rows in zip(FILES, counts, strict=True):
        write_json(meta_path(config.out / name), header | {"rows": rows})
    _say_results(tally, selection, stores)
    say("{} records, {} instructions, {} pairs -> {}".format(*counts, config.out))


def _read_records(
    files: Sequence[Path], thresholds: Thresholds, estimator: Estimator
) -> Iterator[BoundaryRecord]:
    """The records of the stores' questions, but for those that the estimator gives nothing for."""
    for file in files:
        for number, question in enumerate(read_store(file), 1):
            if question.example.answerable is not False and estimator(question) is None:
                continue
            try:
                record = make_record(question, thresholds, estimator)
            except KeyError as error:  # an outcome that is none
                raise InbolError(
                    f"{file}:{number}: not a line of a confidence store ({error!r})"
                ) from error
            yield record


def _write_all(
    config: BuildConfig, stores: Stores, estimator: Estimator, paths: Sequence[Path]
) -> Tally:
    """Writes the lines that all questions give to the three paths."""
    tally = Tally()
    refusals, seed = config.refusals, config.seed
    with contextlib.ExitStack() as stack:
        records, instructions, preferences = (
            stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths
        )
        negatives = Negatives(stores.negatives, stack) if stores.negatives else None
        advance = stack.enter_context(progress("construction", stores.n_questions, "questions"))
        for i, record in enumerate(_read_records(stores.files, config.thresholds, estimator)):
            records.write(json_line(record.to_json()))
            tally.question_keys.append(hash64(f"{seed}:{record.id}"))
            tally.question_types.append(record.type or 0)
            if record.type != 3:
                interval = record.wilson_low, record.wilson_high
                tally.n_noisy += within_noise(*interval, config.thresholds)
            tally.n_unanswered += record.boundary is Boundary.KNOWN and not record.correct

            if instruction := make_instruction(record, stores.prompt, refusals, seed):
                instructions.write(json_line(instruction.to_json()))
                tally.instruction_questions.append(i)

            incorrect = record.incorrect if negatives is None else negatives.find(record)
            tally.n_without_negatives += incorrect is None
            for pair in make_preferences(
                record,
                stores.prompt,
                refusals,
                seed,
                pairs_per_kind=config.pairs_per_kind,
                incorrect=incorrect or (),
            ):
                preferences.write(json_line(pair.to_json()))
                tally.pair_questions.append(i)
                tally.pair_kinds.append(pair.kind.number)
                sides = f"{pair.kind.number}:{pair.chosen}:{pair.rejected}"
                tally.pair_keys.append(hash64(f"{seed}:{pair.id}:{sides}"))
            advance()
    tally.close()
    return tally


def _check_ids(keys: np.ndarray, files: Sequence[Path]) -> None:
    """Raises InbolError if two questions have one id. Reads the files if two keys are equal."""
    if len(np.unique(keys)) == len(keys):
        return
    seen: set[str] = set()
    for file in files:
        for number, (_, question) in enumerate(read_rows(file), 1):
            id = question.example.id
            if id in seen:
                raise InbolError(
                    f"{file}:{number}: id {id} is in another store too; ids must be unique across "
                    "datasets"
                )
            seen.add(id)


def _check_negatives(tally: Tally, config: BuildConfig) -> None:
    """Raises InbolError if a type has no pair; else says how many questions have no negatives."""
    for type in np.setdiff1d(tally.question_types, tally.pair_types).tolist():
        raise InbolError(
            f"--negatives {config.negatives}: no pair is left of {TYPES[type]}; sample those "
            "questions as well"
        )
    say(
        f"{tally.n_without_negatives} of {len(tally.question_keys)} questions are not in "
        f"{config.negatives}: no pair rejects what was said to them"
    )


def _keep_lines(path: Path, mask: np.ndarray) -> None:
    """Leaves the lines of a file for which the mask is True."""
    if mask.all():
        return
    with atomically(path) as kept, path.open("rb") as lines, kept.open("wb") as file:
        file.writelines(itertools.compress(lines, mask))


def _say_results(tally: Tally, selection: Selection, stores: Stores) -> None:
    for line in (*table(tally, selection), *warnings(tally, selection)):
        say(line)
    n_questions = len(tally.question_types)
    if left_out := stores.n_questions - n_questions:
        say(f"{left_out} questions could not be asked for P(True), and are left out")
    noisy = tally.n_noisy / max(1, (tally.question_types != 3).sum())
    say(f"{noisy:.0%} of the labels lie within sampling noise of a threshold")
    if tally.n_unanswered:
        say(
            f"{tally.n_unanswered} Known questions have no correct response to teach, "
            "as nothing was judged against gold answers"
        )
