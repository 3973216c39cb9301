"""Acc, RefR and T of anybody's answers to a dataset.

    python examples/score_log.py --data data/test --log answers.jsonl

The log is JSON lines of `id` and `prediction`, the samples of an lmms-eval task (of any version),
or a table of VLMEvalKit (.xlsx, .tsv, .json; the first needs `pip install openpyxl`). Questions and
gold answers are the dataset's. A row is joined by the question's id, or by its number and words
if no id of the log is known.
What is not joined, what is empty (and so wrong) and what is missing is counted and named.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import tyro

import inbol_jax
from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample

IDS = ("id", "question_id", "questionId")
SAID = ("prediction", "filtered_resps", "resps")


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
        return held if isinstance(held, list) else pandas.DataFrame(held).to_dict("records")
    if log.suffix == ".xlsx":
        return pandas.read_excel(log, dtype=str, keep_default_na=False).to_dict("records")
    if log.suffix == ".tsv":
        return pandas.read_csv(log, sep="\t", dtype=str, keep_default_na=False).to_dict("records")
    raise SystemExit(f"--log {log}: give a .jsonl, .json, .xlsx or .tsv")


def first_text(value: Any) -> str | None:
    """The first text in lists within lists, as lmms-eval keeps responses; a number is one too."""
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    return str(value) or None


def words_of(row: dict[str, Any]) -> str:
    """The question as the log has it; empty if it has none."""
    doc = row.get("doc") if isinstance(row.get("doc"), dict) else {}
    return plain(doc.get("question") or row.get("question") or row.get("input"))


def joined(
    rows: list[dict[str, Any]], examples: dict[str, VQAExample]
) -> Iterator[VQAExample | None]:
    """The question that each row answers: by its id, or if no id of the log is known, by its number
    and words.

    Ends the script if the words at a number are others: the dataset has other rows.
    """
    # VLMEvalKit's index is an id, or counts the rows.
    index = ("index",) if all(str(row.get("index")) in examples for row in rows) else ()
    known = []
    for row in rows:
        # Without `doc`, the newer lmms-eval has the ids in what its metrics note.
        holders = [row, *(value for value in row.values() if isinstance(value, dict))]
        ids = [str(holder[name]) for holder in holders for name in IDS + index if name in holder]
        known.append([examples[id] for id in ids if id in examples])
    places, asked = list(examples.values()), Counter(plain(e.question) for e in examples.values())
    for row, of_id in zip(rows, known, strict=True):
        words, number = words_of(row), str(row.get("doc_id", row.get("index", "")))
        same = [e for e in of_id if plain(e.question) in words or not words]
        if same or any(known) or not words or not number.isdecimal() or int(number) >= len(places):
            yield next(iter(same), None)
            continue
        example = places[int(number)]
        question = plain(example.question)
        if question not in words:
            raise SystemExit(
                f"question {number} of the log is {words!r}, and of the data {example}"
            )
        # Of as many rows the numbers are the same; else words that stand once tell.
        yield example if len(rows) == len(places) or asked[question] == 1 else None


def plain(text: Any) -> str:
    """A text with single spaces."""
    return " ".join(str(text or "").split())


def answers(config: Config) -> Iterator[dict[str, Any]]:
    """The rows that `inbol_jax.score` takes. An empty answer is a wrong one."""
    examples = {e.id: e for e in load_dataset_folder(config.data, judged=True).examples}
    answered, unknown, empty = dict[str, set[str]](), [], []
    rows = read_rows(config.log)
    if not any(name in row for row in rows for name in SAID):
        raise SystemExit(f"--log {config.log}: no row has {' or '.join(SAID)}")
    for number, (row, example) in enumerate(zip(rows, joined(rows, examples), strict=True)):
        if example is None:
            unknown.append(str(row.get("id", f"row {number}")))
            continue
        said = (first_text(row.get(name)) for name in SAID)
        prediction = next(filter(None, said), "")
        if not prediction:
            empty.append(example.id)
        about = {name: row[name] for name in ("model", "confidence") if first_text(row.get(name))}
        answered.setdefault(str(about.get("model", "model")), set()).add(example.id)
        yield example.to_json() | about | {"prediction": prediction}
    counted = {"no question of the dataset": unknown, "empty answers": empty}
    for model, ids in answered.items():
        of_model = f" of {model}" if len(answered) > 1 else ""
        counted[f"no answer{of_model}"] = [id for id in examples if id not in ids]
    for what, ids in counted.items():
        if ids:
            print(f"{what}: {len(ids)}, the first is {ids[0]}")


def main(config: Config) -> None:
    try:
        scores = inbol_jax.score(answers(config))
    except (InbolError, OSError, ValueError) as error:  # also what pandas and json raise
        raise SystemExit(f"error: {error}") from error
    for model, domains in scores.items():
        for group, s in domains["in_domain"].items():
            if s.n:
                print(f"{model} {group}: n {s.n}, Acc {s.acc:.3f}, RefR {s.refr:.3f}, T {s.t:+.3f}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
