"""The examples of the Python interface, run as scripts are."""

import io
import itertools
import json
import runpy
import shutil
import sys
from pathlib import Path

import datasets
import pandas
import pytest
from PIL import Image

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.records import Preference

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_a_model_is_asked(small_world, monkeypatch, capsys):
    dataset = load_dataset_folder(small_world / "test")
    example = next(e for e in dataset.examples if e.answerable is not False)
    picture = dataset.root / example.images[0]
    about = ("--picture", picture, "--question", example.question)
    run(monkeypatch, "ask.py", *about, "--answers", example.answers[0])
    said = capsys.readouterr().out
    for part in ("refused: ", "chance of refusing: 0.", "ten samples: ", "confidence: "):
        assert part in said


def test_a_log_is_scored_and_what_it_lacks_is_said(small_world, tmp_path, monkeypatch, capsys):
    dataset = load_dataset_folder(small_world / "test")
    lines = [
        {
            "id": e.id,
            "prediction": e.answers[0] if e.answers else "I don't know.",
            "answers": ["nonsense"],
        }
        for e in dataset.examples[1:]
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(x) + "\n" for x in [*lines, {"id": "?", "prediction": ""}]))
    run(monkeypatch, "score_log.py", "--data", small_world / "test", "--log", log)
    said = capsys.readouterr().out
    assert "no question of the dataset: 1, the first is ?" in said
    assert f"no answer: 1, the first is {dataset.examples[0].id}" in said
    assert f"model all: n {len(lines)}, Acc" in said
    assert "T +1.000" in said


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_pairs_of_trl_are_trained_on(suffix, small_world, micro, tmp_path, monkeypatch, capsys):
    dataset = load_dataset_folder(small_world / "train")
    pictures = [str(dataset.root / e.images[0]) for e in dataset.examples[:5]]
    shutil.copytree(dataset.root / "images", tmp_path / "images")
    asked = [{"type": "image", "text": None}, {"type": "text", "text": "What is this?"}]
    said = ("red", "blue"), ("I don't know.", "blue"), ("red", "I don't know.")
    pairs = [
        {
            "prompt": [{"role": "user", "content": asked}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for chosen, rejected in said
    ]
    pairs.append(pairs[0] | {"prompt": 2 * pairs[0]["prompt"]})
    if suffix == "parquet":
        rows = [
            pair | {"images": [{"bytes": Path(picture).read_bytes(), "path": None}]}
            for pair, picture in zip(pairs, pictures, strict=False)
        ]
        column = datasets.List(datasets.Image())
        datasets.Dataset.from_list(rows).cast_column("images", column).to_parquet(
            tmp_path / "pairs.parquet"
        )
    else:
        names = [dataset.examples[0].images[0]] * 4 + ["../outside.png"]
        rows = [
            pair | {"image": name} for pair, name in zip([*pairs, pairs[0]], names, strict=True)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "pairs.jsonl").write_text(lines)
    out = tmp_path / "run"
    run(monkeypatch, "from_trl.py", "--pairs", tmp_path / f"pairs.{suffix}", "--out", out)
    aside = len(rows) - 3
    assert f"{aside} pairs set aside, the first is pair 3 (ValueError('2 turns'))" in (
        capsys.readouterr().out
    )
    found = list(read_jsonl(out / "preferences.jsonl", Preference.from_json))
    kinds = ("correct_over_incorrect", "refusal_over_incorrect", "correct_over_refusal")
    assert tuple(pair.kind.value for pair in found) == kinds
    assert {pair.question for pair in found} == {"What is this?"}
    options = ("--model", micro.path, "--out", tmp_path / "ca_dpo", "--epochs", 1)
    assert main(["dpo", "--data", str(out / "preferences.jsonl"), *map(str, options)]) == 0
    assert (tmp_path / "ca_dpo/model/model.safetensors").exists()
    again = "--pairs", tmp_path / f"pairs.{suffix}", "--out", out
    with pytest.raises(SystemExit, match="is there already"):
        run(monkeypatch, "from_trl.py", *again)


def test_pairs_that_cannot_be_trained_on_are_set_aside(tmp_path, monkeypatch, capsys):
    encoded = io.BytesIO()
    Image.new("CMYK", (4, 4), "red").save(encoded, "JPEG")
    sound = {"prompt": "<image>\nWhat?", "chosen": "red", "rejected": "blue", "id": 0}
    sound["image"] = {"bytes": encoded.getvalue(), "path": None}
    rows = [
        sound,
        sound | {"chosen": "I don't know.", "rejected": "I cannot tell."},
        sound | {"confidence": 20.0},
        sound | {"image": {"bytes": b"no image", "path": None}},
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "pairs.parquet")
    words = "--pairs", tmp_path / "pairs.parquet", "--out", tmp_path / "run"
    run(monkeypatch, "from_trl.py", *words)
    assert "3 pairs set aside" in capsys.readouterr().out
    (pair,) = read_jsonl(tmp_path / "run/preferences.jsonl")
    assert (pair["id"], pair["question"]) == ("0", "What?")
    with Image.open(tmp_path / "run" / pair["images"][0]) as image:
        assert image.mode == "RGB"


def in_lmms_eval_2024(rows):
    """{"logs": [...]} in one JSON file, with the set's own row as `doc`."""
    logs = [
        {"doc_id": i, "doc": {"question_id": e.id, "question": e.question}, "target": "x"}
        | {"resps": [[said]], "filtered_resps": [said]}
        for i, (e, said) in enumerate(rows)
    ]
    return "log.json", json.dumps({"args": {}, "logs": logs})


def in_lmms_eval_2025(rows):
    """JSON lines with `doc`, of which the ids are unknown here: the number and the words tell."""
    lines = [
        {
            "doc_id": i,
            "doc": {"question": e.question},
            "resps": [[[said]]],
            "filtered_resps": [said],
        }
        for i, (e, said) in enumerate(rows)
    ]
    return "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines)


def in_lmms_eval_2026(rows):
    """JSON lines without `doc`; responses that no filter has changed are there once."""
    lines = [
        {"doc_id": i, "input": f"<image>\n{e.question}\nAnswer with a word.", "target": "x"}
        | {"resps": [said], "token_counts": [{"output_tokens": 2}], "doc_hash": "0"}
        | {"pope_accuracy": {"question_id": e.id, "score": 1.0, "prediction": said}}
        for i, (e, said) in enumerate(rows)
    ]
    return "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines)


def vlmevalkit(rows):
    columns = {"index": [], "question": [], "answer": [], "prediction": []}
    for i, (e, said) in enumerate(rows):
        for name, value in zip(columns, (i, e.question, "x", said), strict=True):
            columns[name].append(value)
    return pandas.DataFrame(columns)


def in_vlmevalkit_tsv(rows):
    return "log.tsv", vlmevalkit(rows).to_csv(sep="\t", index=False)


def in_vlmevalkit_json(rows):
    return "log.json", vlmevalkit(rows).to_json(orient="records")


def in_vlmevalkit_xlsx(rows):
    file = io.BytesIO()
    vlmevalkit(rows).to_excel(file, index=False)
    return "log.xlsx", file.getvalue()


LAYOUTS = [layout for name, layout in globals().items() if name.startswith("in_")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logs_of_other_harnesses_are_worth_what_our_own_are(
    layout, small_world, tmp_path, monkeypatch, capsys
):
    examples = load_dataset_folder(small_world / "test").examples
    answers = itertools.cycle(("I don't know.", None, "a wrong answer", ""))
    rows = [
        (e, (e.answers or ["red"])[0] if a is None else a)
        for e, a in zip(examples, answers, strict=False)
    ]
    own = "".join(json.dumps({"id": e.id, "prediction": said}) + "\n" for e, said in rows)
    told = []
    for name, log in (("own.jsonl", own), layout(rows)):
        write = Path.write_bytes if isinstance(log, bytes) else Path.write_text
        write(tmp_path / name, log)
        run(monkeypatch, "score_log.py", "--data", small_world / "test", "--log", tmp_path / name)
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert f"empty answers: {len(rows) // 4}, the first is {examples[3].id}" in told[0]
    assert f"model all: n {len(rows)}, Acc 0." in told[0]


def test_a_log_of_other_rows_is_not_joined_by_number(small_world, tmp_path, monkeypatch):
    examples = load_dataset_folder(small_world / "test").examples
    name, log = in_lmms_eval_2025([(e, "red") for e in examples[1:]])
    (tmp_path / name).write_text(log)
    with pytest.raises(SystemExit, match=r"question \d+ of the log is '.+', and of the data "):
        run(monkeypatch, "score_log.py", "--data", small_world / "test", "--log", tmp_path / name)


def same_words(tmp_path):
    """A dataset whose questions are all "What is this?", with ids 1, 3 and 4."""
    (tmp_path / "data").mkdir()
    rows = [
        {"id": id, "images": [], "question": "What is this?", "answers": [said]}
        for id, said in (("1", "cat"), ("3", "3"), ("4", "fox"))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data/data.jsonl").write_text(lines)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "log", "said"),
    [
        # 2 is no question of the dataset, and not its third one
        (
            "a.json",
            [{"question_id": i, "doc_id": i, "question": "What is this?", "prediction": p}
             for i, p in ((1, "cat"), (2, "cow"), (3, 3), (4, "fox"))],
            ("no question of the dataset: 1,", "n 3, Acc 1.000"),
        ),
        # an index that counts rows; fewer of them than questions of the same words
        (
            "b.tsv",
            "index\tquestion\tprediction\tconfidence\n0\tWhat is this?\tcat\t\n",
            ("no question of the dataset: 1,",),
        ),
        (
            "c.tsv",
            "index\tquestion\tprediction\tconfidence\n"
            "0\tWhat is this?\tcat\t\n1\tWhat is this?\t3\t\n2\tWhat is this?\tfox\t0.5\n",
            ("n 3, Acc 1.000",),
        ),
        # a column that one row has is not "nan" in the others
        (
            "d.json",
            [{"id": "1", "prediction": "cat", "question": "What is this?", "model": "model"},
             {"id": "3", "prediction": "3"}],
            ("no answer: 1,", "n 2, Acc 1.000"),
        ),
    ],
)  # fmt: skip
def test_questions_of_the_same_words_are_not_confused(
    name, log, said, tmp_path, monkeypatch, capsys
):
    file = tmp_path / name
    file.write_text(log if isinstance(log, str) else json.dumps(log))
    run(monkeypatch, "score_log.py", "--data", same_words(tmp_path), "--log", file)
    output = capsys.readouterr().out
    for part in said:
        assert part in output


def test_what_each_model_did_not_answer(tmp_path, monkeypatch, capsys):
    rows = [{"id": i, "model": m, "prediction": "cat"} for i, m in (("1", "a"), ("3", "b"))]
    (tmp_path / "a.json").write_text(json.dumps([*rows, rows[0] | {"id": "4"}]))
    run(monkeypatch, "score_log.py", "--data", same_words(tmp_path), "--log", tmp_path / "a.json")
    output = capsys.readouterr().out
    assert "no answer of a: 1, the first is 3\nno answer of b: 2, the first is 1\n" in output


@pytest.mark.parametrize(
    "log",
    [[], {"results": [{"id": "1", "prediction": "x"}]}, {"1": {"prediction": "x"}}, {"1": "x"}],
)
def test_a_log_of_an_unknown_layout_is_not_scored(log, tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps(log))
    with pytest.raises(SystemExit, match=r"no row has prediction or|error: "):
        run(
            monkeypatch,
            "score_log.py",
            "--data",
            same_words(tmp_path),
            "--log",
            tmp_path / "a.json",
        )


@pytest.mark.parametrize("name", ["a.csv", "b.json", "c.jsonl"])
def test_a_log_that_cannot_be_read_ends_in_a_sentence(name, tmp_path, monkeypatch):
    (tmp_path / name).write_text('[{"id": ')
    with pytest.raises(SystemExit, match=r"--log|error: "):
        run(monkeypatch, "score_log.py", "--data", same_words(tmp_path), "--log", tmp_path / name)
