"""Precision and recall of the metric `inclusion` on labelled responses.

    python benchmarks/answer_inclusion.py [--wrong]

The lists stand in tests/responses. answers.tsv and answers_unseen.tsv were written to be hard.
answers_model.tsv has what SmolLM2-135M-Instruct said to questions of fact, drawn at random among
the sampled sentences that hold a gold answer somewhere; eleven that can be judged either way are
left out.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

from inbol_jax.intervals import wilson_interval
from inbol_jax.responses.inclusion import inclusion_score

RESPONSES = Path(__file__).parent.parent / "tests/responses"
LISTS = ("answers.tsv", "answers_unseen.tsv", "answers_model.tsv")


class Labelled(NamedTuple):
    """A response, and whether it gives one of the gold answers and nothing else."""

    right: bool
    question: str
    answers: list[str]
    response: str

    @property
    def scored(self) -> bool:
        return inclusion_score(self.response, self.answers, self.question) == 1


def read(name: str) -> list[Labelled]:
    """The labelled responses of a list."""
    with (RESPONSES / name).open(encoding="utf-8", newline="") as file:
        return [
            Labelled(
                row["right"] == "1",
                row["question"],
                row["answers"].split("|"),
                row["response"].replace("\\n", "\n"),
            )
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def shares(rows: list[Labelled]) -> dict[str, tuple[int, int]]:
    """Precision and recall as counts: (hits, of how many)."""
    hits = sum(row.right and row.scored for row in rows)
    return {
        "precision": (hits, sum(row.scored for row in rows)),
        "recall": (hits, sum(row.right for row in rows)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wrong", action="store_true", help="print what is scored wrongly")
    wrong = parser.parse_args().wrong
    for name in LISTS:
        rows = read(name)
        print(f"{name}: {len(rows)} responses, {sum(row.right for row in rows)} right")
        for share, (hits, n) in shares(rows).items():
            low, high = wilson_interval(hits, n)
            print(f"  {share:<9} {hits / n:.3f} ({low:.3f} to {high:.3f}), {hits} of {n}")
        if wrong:
            for row in rows:
                if row.right != row.scored:
                    said = "right" if row.scored else "wrong"
                    print(f"  called {said}: {row.question} {row.answers} {row.response!r}")


if __name__ == "__main__":
    main()
