"""IDK instructions (Figure 3): the correct response where the model knows, a refusal where it does not; Mixed is left out."""

from collections.abc import Iterable, Iterator, Sequence

from inbol_jax.records import Boundary, BoundaryRecord, Instruction
from inbol_jax.refusal.templates import pick_refusal


def make_instructions(records: Iterable[BoundaryRecord], templates: Sequence[str], seed: int) -> Iterator[Instruction]:
    """One instruction for each Known and each Unknown record. Depends on each record alone, not on their order."""
    for record in records:
        if record.boundary is Boundary.MIXED:
            continue
        known = record.boundary is Boundary.KNOWN
        response = record.correct[0].text if known else pick_refusal(f"{seed}:{record.id}", templates)
        yield Instruction(record.id, record.image, record.question, response, record.boundary, record.type)
