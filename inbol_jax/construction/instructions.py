"""IDK instructions (Figure 3): the correct response where the model knows, a refusal where it does not; Mixed is left out."""

from collections.abc import Iterable, Iterator

from inbol_jax.construction.templates import RefusalMix
from inbol_jax.records import Boundary, BoundaryRecord, Instruction


def make_instructions(
    records: Iterable[BoundaryRecord], refusals: RefusalMix, seed: int
) -> Iterator[Instruction]:
    """One instruction for each Known and each Unknown record. Depends on each record alone, not on their order.

    A Known record without a correct response gives none: an estimator that needs no gold answer may be sure of one that nobody has judged.
    """
    for record in records:
        known = record.boundary is Boundary.KNOWN
        if record.boundary is Boundary.MIXED or (known and not record.correct):
            continue
        response = (
            record.correct[0].text if known else refusals.pick(f"{seed}:{record.id}", record.type)
        )
        yield Instruction(
            record.id, record.image, record.question, response, record.boundary, record.type
        )
