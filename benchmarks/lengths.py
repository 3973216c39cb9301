"""How much of what is computed is padding, by the number of lengths that rows are padded to.

    python benchmarks/lengths.py

Rows of 576 image tokens, as LLaVA-1.5 has them, with texts whose lengths are lognormal, in batches
as training makes them.
"""

import dataclasses

import numpy as np
import tyro

from inbol_jax.models.packing import Branch, RowShape
from inbol_jax.training.dataset import PackedRow, bucket_shapes, training_order


@dataclasses.dataclass(frozen=True)
class Config:
    """Padding of rows."""

    rows: int = 1000
    """Rows of each kind."""
    batch_size: int = 32
    """Rows per batch."""


def make_rows(count: int, answers: tuple[tuple[float, float], ...]) -> list[PackedRow]:
    """Rows with a branch per answer.

    Args:
      answers: (median number of tokens, sigma of its logarithm) of each.
    """
    draw = np.random.default_rng(0)
    questions = 22 + np.clip(draw.lognormal(np.log(8), 0.35, count), 3, 40).astype(int)
    lengths = [np.clip(draw.lognormal(np.log(m), s, count), 2, 500).astype(int) for m, s in answers]
    return [
        ([0] * (576 + question), [Branch([0] * int(n)) for n in own])
        for question, *own in zip(questions, *lengths, strict=True)
    ]


def padding(rows: list[PackedRow], buckets: int, batch_size: int) -> tuple[float, int]:
    """The share of padding in one epoch, and the number of lengths."""
    sizes, shapes = [RowShape.of(*row) for row in rows], bucket_shapes(rows, buckets)
    tokens = [size.tokens for size in sizes]
    order = training_order(tokens, batch_size, 1, 0, grouped=len(shapes) > 1)
    computed = 0
    for i in range(-(-len(rows) // batch_size)):
        batch = [sizes[row] for row in order(i)]
        shape = next(s for s in shapes if all(s.holds(size) for size in batch))
        computed += shape.tokens * len(batch)
    return 1 - sum(tokens) / computed, len(shapes)


def main(config: Config) -> None:
    kinds = {
        "one short answer or refusal": ((8, 0.8),),
        "pairs of a short answer and a refusal": ((3, 0.3), (14, 0.4)),
        "long answers": ((60, 0.9),),
    }
    print("| rows | tokens | 1 length | 2 | 4 | 8 | by default |\n|---|---|---|---|---|---|---|")
    for kind, answers in kinds.items():
        rows = make_rows(config.rows, answers)
        tokens = [RowShape.of(*row).tokens for row in rows]
        cells = [f"{padding(rows, n, config.batch_size)[0]:.1%}" for n in (1, 2, 4, 8)]
        share, count = padding(rows, 0, config.batch_size)
        span = f"{min(tokens)} to {max(tokens)}"
        print(f"| {kind} | {span} | {' | '.join(cells)} | {share:.1%} with {count} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
