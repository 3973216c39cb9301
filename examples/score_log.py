"""Acc, RefR and T of anybody's answers to a dataset: JSON lines with `id` and `prediction`.

    python examples/score_log.py --data data/test --log answers.jsonl

The questions and gold answers are the dataset's. What the log lacks is counted and named.
"""

import dataclasses
from pathlib import Path

import tyro

import inbol_jax
from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.vqa import load_dataset_folder


@dataclasses.dataclass(frozen=True)
class Config:
    data: Path
    log: Path


def main(config: Config) -> None:
    questions = {e.id: e.to_json() for e in load_dataset_folder(config.data).examples}
    answers = list(read_jsonl(config.log))
    unknown = [row["id"] for row in answers if row["id"] not in questions]
    missing = questions.keys() - {row["id"] for row in answers}
    for what, ids in (("no question of the dataset", unknown), ("no answer", sorted(missing))):
        if ids:
            print(f"{what}: {len(ids)}, the first is {ids[0]}")
    said = ("prediction", "model", "confidence")  # gold answers are the dataset's alone
    known = [
        questions[row["id"]] | {name: row[name] for name in said if name in row}
        for row in answers
        if row["id"] in questions
    ]
    for model, domains in inbol_jax.score(known).items():
        for group, s in domains["in_domain"].items():
            if s.n:
                print(f"{model} {group}: n {s.n}, Acc {s.acc:.3f}, RefR {s.refr:.3f}, T {s.t:+.3f}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
