"""Acc, RefR and T of anybody's answers to a dataset.

    python examples/score_log.py --data data/test --log answers.jsonl

The log is JSON lines of `id` and `prediction`, the samples of an lmms-eval task (of any version),
or a table of VLMEvalKit (.xlsx, .tsv, .json; the first needs `pip install openpyxl`). Questions and
gold answers are the dataset's. A row is joined by the question's id, or by its number and words.
What is not joined, what is empty (and so wrong) and what is missing is counted and named.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import tyro

import inbol_jax
from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.records import VQAExample

IDS = ("id", "question_id", "questionId", "index")


@dataclasses.dataclass(frozen=True)
class Config:
    data: Path
    log: Path


def read_rows(log: Path) -> list[dict[str, Any]]:
    """The rows of a file of any of the layouts."""
    if log.suffix == ".jsonl":
        return list(read_jsonl(log))
    if log.suffix == ".json":
        held = json.loads(log.read_text(encoding="utf-8"))
        held = held.get("logs", held) if isinstance(held, dict) else held
        return pandas.DataFrame(held).to_dict("records")
    if log.suffix == ".xlsx":
        return pandas.read_excel(log, dtype=str, keep_default_na=False).to_dict("records")
    return pandas.read_csv(log, sep="\t", dtype=str, keep_default_na=False).to_dict("records")


def first_text(value: Any) -> str | None:
    """The first text in lists within lists, as lmms-eval keeps responses."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def joined(row: dict[str, Any], examples: dict[str, VQAExample]) -> VQAExample | None:
    """The question that a row answers: by its id, or else by its number and words.

    Ends the script if the words at that number are others: the dataset has other rows.
    """
    doc = row.get("doc") if isinstance(row.get("doc"), dict) else {}
    # Without `doc`, the newer lmms-eval has the ids in what its metrics note.
    holders = [row, doc, *(value for value in row.values() if isinstance(value, dict))]
    ids = [str(holder[name]) for holder in holders for name in IDS if name in holder]
    words = plain(doc.get("question") or row.get("question") or row.get("input"))
    for example in (examples[id] for id in ids if id in examples):
        if plain(example.question) in words or not words:
            return example
    number = str(row.get("doc_id", row.get("index", "")))
    if not words or not number.isdecimal() or int(number) >= len(examples):
        return None
    example = list(examples.values())[int(number)]
    if plain(example.question) not in words:
        raise SystemExit(f"question {number} of the log is {words!r}, and of the data {example}")
    return example


def plain(text: Any) -> str:
    """A text with single spaces."""
    return " ".join(str(text or "").split())


def answers(config: Config) -> Iterator[dict[str, Any]]:
    """The rows that `inbol_jax.score` takes. An empty answer is a wrong one."""
    examples = {e.id: e for e in load_dataset_folder(config.data).examples}
    left, unknown, empty = dict(examples), [], []
    for number, row in enumerate(read_rows(config.log)):
        if (example := joined(row, examples)) is None:
            unknown.append(str(row.get("id", f"row {number}")))
            continue
        said = (first_text(row.get(name)) for name in ("prediction", "filtered_resps", "resps"))
        prediction = next(filter(None, said), "")
        if not prediction:
            empty.append(example.id)
        left.pop(example.id, None)
        about = {name: row[name] for name in ("model", "confidence") if name in row}
        yield example.to_json() | about | {"prediction": prediction}
    counted = {"no question of the dataset": unknown, "empty answers": empty, "no answer": [*left]}
    for what, ids in counted.items():
        if ids:
            print(f"{what}: {len(ids)}, the first is {ids[0]}")


def main(config: Config) -> None:
    for model, domains in inbol_jax.score(answers(config)).items():
        for group, s in domains["in_domain"].items():
            if s.n:
                print(f"{model} {group}: n {s.n}, Acc {s.acc:.3f}, RefR {s.refr:.3f}, T {s.t:+.3f}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
