"""What a construction gave: what is kept of it, warned of, and counted."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from inbol_jax.artifacts import hash64
from inbol_jax.confidence.boundary import Thresholds, within_noise
from inbol_jax.construction.config import BuildConfig
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord, Instruction, PairKind, Preference, Type

# The rows of the table.
TYPES: dict[Type, str] = {1: "Type 1, known", None: "mixed", 2: "Type 2, unknown", 3: "Type 3"}
# The kinds whose chosen response is a refusal.
REFUSED = (PairKind.REFUSAL_OVER_INCORRECT, PairKind.REFUSAL_OVER_ANSWER)
MAX_SIDE = 0.8  # share of refusals, or of answers, above which a warning is given
MIN_ANSWERS = 50  # instructions that answer, below which a warning is given


class Built(NamedTuple):
    """What questions gave, in the order of the stores."""

    records: list[BoundaryRecord]
    instructions: list[Instruction]
    pairs: list[Preference]


def without_surplus(built: Built, config: BuildConfig) -> Built:
    """The same without the surplus refusals, and without the pairs of their questions.

    Raises:
      InbolError: if no instruction is left of a class.
    """
    surplus = _surplus(built.instructions, config.max_refusals, config.seed)
    instructions = [lesson for lesson in built.instructions if lesson.id not in surplus]
    for boundary in (Boundary.KNOWN, Boundary.UNKNOWN):
        if not any(lesson.boundary is boundary for lesson in instructions):
            raise InbolError(
                f"no question is {boundary}: nothing to teach; move the thresholds "
                f"{config.thresholds} or use more data"
            )
    pairs = [pair for pair in built.pairs if pair.id not in surplus]
    return Built(built.records, instructions, pairs)


def _surplus(instructions: Sequence[Instruction], most: float, seed: int) -> set[str]:
    """The ids of the refusals above the share `most` of the instructions, as many of Type 2 as of
    Type 3 in proportion. Which they are depends on the seed and the ids alone."""
    if most == 1:
        return set()
    answers = sum(lesson.type == 1 for lesson in instructions)
    # 60 answers with at most 60% refusals: n / (n + 60) = 0.6, so n = 60 * 0.6 / 0.4 = 90.
    n = math.floor(answers * most / (1 - most) + 1e-6)
    places: list[tuple[float, int, str]] = []  # of a refusal among those of its type, from 0 to 1
    for type in (2, 3):
        ids = [lesson.id for lesson in instructions if lesson.type == type]
        drawn = sorted((hash64(f"{seed}:{id}"), id) for id in ids)
        places += [((i + 0.5) / len(ids), key, id) for i, (key, id) in enumerate(drawn)]
    return {id for *_, id in sorted(places)[n:]}


def table(kept: Built) -> Iterator[str]:
    """Lines of a table: questions, instructions and pairs by type, and pairs by kind."""
    columns = {
        "questions": [record.type for record in kept.records],
        "instructions": [lesson.type for lesson in kept.instructions],
        "pairs": [pair.type for pair in kept.pairs],
    }
    for kind in PairKind:
        types = [pair.type for pair in kept.pairs if pair.kind is kind]
        columns[kind.replace("_over_", " > ")] = types
    rows = [("", list(columns))]
    for type, name in TYPES.items():
        rows.append((name, [str(types.count(type)) for types in columns.values()]))
    rows.append(("all", [str(len(types)) for types in columns.values()]))
    width = max(len(name) for name, _ in rows)
    for name, cells in rows:
        aligned = [cell.rjust(len(title)) for cell, title in zip(cells, columns, strict=True)]
        yield "  ".join([name.ljust(width), *aligned])


def warnings(built: Built, kept: Built, thresholds: Thresholds) -> Iterator[str]:
    """Lines on what was left out, and on what is too one-sided to be learnt."""
    total, n = len(built.instructions), len(kept.instructions)
    if left_out := total - n:
        yield f"{left_out} of {total} instructions are left out for --max-refusals"
    taught = [lesson.type != 1 for lesson in kept.instructions]
    if (answers := taught.count(False)) < MIN_ANSWERS:
        yield (
            f"Warning: only {answers} instructions teach an answer; fewer than {MIN_ANSWERS} teach "
            "little but to refuse. Use more data, or data that the model knows better"
        )
    preferred = [pair.kind in REFUSED for pair in kept.pairs]
    for name, refused in (("instructions", taught), ("pairs", preferred)):
        refusals = sum(refused) / len(refused) if refused else 0.5
        if refusals > MAX_SIDE:
            yield (
                f"Warning: {refusals:.0%} of the {name} teach a refusal, and always refusing will "
                "do nearly as well. Add questions that the model knows, or lower --max-refusals"
            )
        if refusals < 1 - MAX_SIDE:
            yield (
                f"Warning: {1 - refusals:.0%} of the {name} teach an answer, and never refusing "
                "will do nearly as well. Add questions that the model does not know, or Type 3 "
                "ones by `inbol extrinsic`"
            )
    labels = [(r.wilson_low, r.wilson_high) for r in kept.records if r.type != 3]
    noisy = sum(within_noise(*interval, thresholds) for interval in labels) / max(1, len(labels))
    yield f"{noisy:.0%} of the labels lie within sampling noise of a threshold"
    unanswered = [r for r in kept.records if r.boundary is Boundary.KNOWN and not r.correct]
    if unanswered:
        yield (
            f"{len(unanswered)} Known questions have no correct response to teach, as nothing was "
            "judged against gold answers"
        )
