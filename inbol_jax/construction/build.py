"""`inbol build`: confidences in; records, IDK instructions and preference pairs out.

Questions stream through; memory holds a few numbers of each, by which shares are chosen and the
table is counted. What a question gives depends on the seed and on the question alone: the order of
the stores decides the order of the lines and nothing else.
"""

import contextlib
import dataclasses
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inbol_jax.artifacts import (
    atomically,
    fingerprint,
    hash64,
    json_line,
    meta_path,
    write_json,
)
from inbol_jax.confidence.boundary import Thresholds, within_noise
from inbol_jax.confidence.estimators import Estimator, get_estimator, sampled_accuracy
from inbol_jax.confidence.store import read_rows, read_store
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.instructions import make_instruction
from inbol_jax.construction.negatives import Negatives
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.stores import Stores, find_stores
from inbol_jax.construction.tally import TYPES, Selection, Tally, select, table
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import Boundary, BoundaryRecord

FILES = ("records.jsonl", "instructions.jsonl", "preferences.jsonl")


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
        _check_ids(tally.question_keys, stores.files, config.seed)
        if tally.n_without_negatives:
            _check_negatives(tally, config)
        selection = select(tally, config)
        _keep_lines(paths[1], selection.instructions)
        _keep_lines(paths[2], selection.pairs)
        for name in FILES:  # a file without its header is not finished
            meta_path(config.out / name).unlink(missing_ok=True)
    counts = (len(tally.question_keys), *(int(mask.sum()) for mask in selection))
    settings = {"command": "build", **dataclasses.asdict(config), "out": "", **stores.fingerprints}
    header = settings | {"config": fingerprint(settings), "images": stores.images}
    for name, rows in zip(FILES, counts, strict=True):
        write_json(meta_path(config.out / name), header | {"rows": rows})
    _say_results(tally, selection, stores, config)


def read_records(
    files: Sequence[Path], thresholds: Thresholds, estimator: Estimator = sampled_accuracy
) -> Iterator[BoundaryRecord]:
    """The records of the stores' questions, in their order.

    Answerable questions for which the estimator gives nothing are left out.

    Raises:
      InbolError: if a line is not one of a confidence store.
    """
    for file in files:
        for question in read_store(file):
            if question.example.answerable is False or estimator(question) is not None:
                yield make_record(question, thresholds, estimator)


def _write_all(
    config: BuildConfig, stores: Stores, estimator: Estimator, paths: Sequence[Path]
) -> Tally:
    """Writes the lines that all questions give to the three paths."""
    question_keys, question_types = array("Q"), array("b")
    instruction_questions, pair_questions = array("I"), array("I")
    pair_kinds, pair_keys = array("b"), array("Q")
    n_noisy = n_unanswered = n_without_negatives = 0
    with contextlib.ExitStack() as stack:
        records, instructions, preferences = (
            stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths
        )
        negatives = stack.enter_context(Negatives(stores.negatives)) if stores.negatives else None
        advance = stack.enter_context(progress("construction", stores.n_questions, "questions"))
        for i, record in enumerate(read_records(stores.files, config.thresholds, estimator)):
            records.write(json_line(record.to_json()))
            question_keys.append(_question_key(config.seed, record.id))
            question_types.append(record.type or 0)
            if record.type != 3:
                n_noisy += within_noise(record.wilson_low, record.wilson_high, config.thresholds)
            n_unanswered += record.boundary is Boundary.KNOWN and not record.correct

            if instruction := make_instruction(record, config.refusals, config.seed):
                instructions.write(json_line(instruction.to_json()))
                instruction_questions.append(i)

            incorrect = record.incorrect if negatives is None else negatives.find(record)
            n_without_negatives += incorrect is None
            for pair in make_preferences(
                record,
                config.refusals,
                config.seed,
                pairs_per_kind=config.pairs_per_kind,
                incorrect=incorrect or (),
            ):
                preferences.write(json_line(pair.to_json()))
                pair_questions.append(i)
                pair_kinds.append(pair.kind)
                sides = f"{pair.kind}:{pair.chosen}:{pair.rejected}"
                pair_keys.append(hash64(f"{config.seed}:{pair.id}:{sides}"))
            advance()
    return Tally(
        question_keys=np.asarray(question_keys),
        question_types=np.asarray(question_types),
        instruction_questions=np.asarray(instruction_questions),
        pair_questions=np.asarray(pair_questions),
        pair_kinds=np.asarray(pair_kinds),
        pair_keys=np.asarray(pair_keys),
        n_noisy=n_noisy,
        n_unanswered=n_unanswered,
        n_without_negatives=n_without_negatives,
    )


def _question_key(seed: int, id: str) -> int:
    return hash64(f"{seed}:{id}")


def _check_ids(keys: np.ndarray, files: Sequence[Path], seed: int) -> None:
    """Raises InbolError if two questions have one id. Reads the files only if two keys are equal."""
    ordered = np.sort(keys)
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not repeated:
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
            if _question_key(seed, id) in repeated:
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
    whole = path.with_name(path.name + ".whole")
    path.rename(whole)
    try:
        with whole.open("rb") as lines, path.open("wb") as file:
            file.writelines(line for line, keep in zip(lines, mask, strict=True) if keep)
    finally:
        whole.unlink()


def _say_results(tally: Tally, selection: Selection, stores: Stores, config: BuildConfig) -> None:
    for line in table(tally, selection):
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
    n_instructions, n_pairs = selection.instructions.sum(), selection.pairs.sum()
    say(f"{n_questions} records, {n_instructions} instructions, {n_pairs} pairs -> {config.out}")
