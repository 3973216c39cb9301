"""IDK instructions (Figure 3): the correct response for Known, a refusal for Unknown, no Mixed."""

from inbol_jax.prompts import Prompt
from inbol_jax.records import Boundary, BoundaryRecord, Instruction
from inbol_jax.taught_refusals import pick_refusal


def make_instruction(
    record: BoundaryRecord, prompt: Prompt, templates: str, seed: int
) -> Instruction | None:
    """The instruction of a record; None if it is Mixed, or Known without a correct response.

    The latter happens with an estimator that needs no gold answer to be sure.
    """
    match record.boundary:
        case Boundary.KNOWN if record.correct:
            response = record.correct[0].text
        case Boundary.UNKNOWN:
            key = f"{seed}:{record.id}"
            response = pick_refusal(templates, key, record.type, pictured=bool(record.images))
        case _:
            return None
    return Instruction(
        id=record.id,
        images=record.images,
        question=prompt.text(record),
        response=response,
        boundary=record.boundary,
        type=record.type,
    )
