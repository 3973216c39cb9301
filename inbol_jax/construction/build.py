"""`inbol build`: confidences in; records, IDK instructions and preference pairs out.

Questions stream through; memory holds a few numbers of each. What a question gives depends on the
seed and on the question alone: the order of the stores decides that of the lines, nothing else.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inbol_jax.artifacts import atomically, hash64, json_line, meta_path, one_writer, write_json
from inbol_jax.confidence.boundary import within_noise
from inbol_jax.confidence.estimators import Estimator, get_estimator
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.instructions import make_instruction
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.stores import Stores, find_stores
from inbol_jax.construction.tally import TYPES, Tally, select, table, warnings
from inbol_jax.errors import InbolError
from inbol_jax.progress import progress, say
from inbol_jax.records import Boundary
from inbol_jax.stage import Stage

FILES = ("records.jsonl", "instructions.jsonl", "preferences.jsonl")


@one_writer
def build(config: BuildConfig) -> None:
    """Writes the three files, each with its header, and prints what is in them.

    Raises:
      InbolError: if there is no confidence to read, a store is not finished, the stores belong to
        different images, two questions have one id, a class would be empty, or the files were made
        with other settings or of other answers.
    """
    estimator, stores = get_estimator(config.estimator), find_stores(config)
    settings = dataclasses.asdict(config) | {"out": ""}
    settings |= settings.pop("thresholds")
    with Stage(config.out / FILES[0], "build", settings, inputs=stores.fingerprints) as stage:
        if not stage.finished:
            _build(config, stores, estimator, stage)


def _build(config: BuildConfig, stores: Stores, estimator: Estimator, stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(atomically(config.out / name)) for name in FILES]
        tally = _write_all(config, stores, estimator, paths)
        _check_left_out(tally, config)
        selection = select(tally, config.max_refusals, config.thresholds)
        for path, mask in zip(paths[1:], selection, strict=True):
            _keep_lines(path, mask)
        for name in FILES[1:]:  # no header is ever that of another file
            meta_path(config.out / name).unlink(missing_ok=True)
    counts = (len(tally.question_keys), *(int(mask.sum()) for mask in selection))
    images = os.path.relpath(stores.images.resolve(), config.out.resolve())
    about = stores.prompt.to_json() | {"images": images}
    for name, rows in zip(FILES[1:], counts[1:], strict=True):
        write_json(meta_path(config.out / name), stage.header | about | {"rows": rows})
    stage.finish(counts[0], **about)
    for line in (*table(tally, selection), *warnings(tally, selection)):
        say(line)
    say("{} records, {} instructions, {} pairs -> {}".format(*counts, config.out))


def _write_all(
    config: BuildConfig, stores: Stores, estimator: Estimator, paths: Sequence[Path]
) -> Tally:
    """Writes the lines that all questions give to the three paths."""
    tally, seed = Tally(), config.seed
    total = sum(len(samples.keys) for samples in stores.samples)
    with contextlib.ExitStack() as stack:
        records, instructions, preferences = (
            stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths
        )
        advance = stack.enter_context(progress("construction", total, "questions"))
        for question in stores.questions():
            advance()
            if question.example.answerable is not False and estimator(question) is None:
                tally.n_without_estimate += 1
                tally.n_not_asked += not stores.could_not_say(question)
                continue
            record = make_record(question, config.thresholds, estimator)
            i = len(tally.question_keys)
            records.write(json_line(record.to_json()))
            tally.question_keys.append(hash64(f"{seed}:{record.id}"))
            tally.question_types.append(record.type or 0)
            if record.type != 3:
                interval = record.wilson_low, record.wilson_high
                tally.n_noisy += within_noise(*interval, config.thresholds)
            tally.n_unanswered += record.boundary is Boundary.KNOWN and not record.correct

            if instruction := make_instruction(record, stores.prompt, config.templates, seed):
                instructions.write(json_line(instruction.to_json()))
                tally.instruction_questions.append(i)

            incorrect = record.incorrect
            if stores.negatives is not None:
                incorrect = stores.negatives_of(question.example)
            tally.n_without_negatives += incorrect is None
            for pair in make_preferences(
                record, stores.prompt, config.templates, seed, incorrect=incorrect or ()
            ):
                preferences.write(json_line(pair.to_json()))
                tally.pair_questions.append(i)
                tally.pair_kinds.append(pair.kind.number)
    tally.close()
    return tally


def _check_left_out(tally: Tally, config: BuildConfig) -> None:
    """Says how many questions have no P(True), or no negatives.

    Raises:
      InbolError: if some were not asked for P(True), or a type has no pair for lack of negatives.
    """
    if tally.n_not_asked and not config.partial:
        raise InbolError(
            f"--estimator p-true: {tally.n_not_asked} questions have no P(True) yet; "
            "`inbol confidence --p-true` adds it and samples nothing again. It cannot be asked of "
            "an endpoint's model"
        )
    if tally.n_without_estimate:
        say(f"{tally.n_without_estimate} questions have no P(True), and are left out")
    if tally.n_without_negatives:
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
