"""What `--id` reads from the disk: every kind of file and folder that its help names."""

import json

import datasets
import pytest
from sample_sets import picture, write_images

from inbol_jax.data.config import FILES

ROWS = [
    {"id": f"q{i}", "question": f"What is {i}?", "answers": f"thing {i}", "image": f"pics/{i}.png"}
    for i in range(2)
]


@pytest.fixture(autouse=True)
def no_copy_stays(tmp_path, monkeypatch):
    """Of local files the library leaves nothing behind, so that no old copy is ever read."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suffix", FILES)
def test_every_kind_of_file(tmp_path, read, suffix):
    write_images(tmp_path / "pics", "0.png", "1.png")
    file = tmp_path / f"rows{suffix}"
    table = datasets.Dataset.from_list(ROWS)
    if suffix == ".json":
        file.write_text(json.dumps({"data": ROWS}))
    elif suffix == ".arrow":
        table.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).rename(file)
    else:
        options = {"sep": "\t"} if suffix == ".tsv" else {}
        writers = {".jsonl": table.to_json, ".parquet": table.to_parquet}
        writers.get(suffix, table.to_csv)(file, **options)
    dataset = read(id=str(file))
    assert dataset.name == "rows"
    assert [(e.id, e.question, e.answers) for e in dataset.examples] == [
        (row["id"], row["question"], (row["answers"],)) for row in ROWS
    ]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)


@pytest.mark.parametrize(("kind", "split"), [("images", "train"), ("csv", None)])
def test_every_kind_of_folder(tmp_path, read, kind, split):
    folder = tmp_path / "set"
    if kind == "images":
        write_images(folder, "0.png", "1.png")
        named = [{"file_name": f"{i}.png"} | row for i, row in enumerate(ROWS)]
        table = datasets.Dataset.from_list(named).remove_columns("image")
        table.to_json(folder / "metadata.jsonl")
    else:
        write_images(folder / "pics", "0.png", "1.png")
        datasets.Dataset.from_list(ROWS).to_csv(folder / "train.csv")
    dataset = read(id=str(folder), split=split)
    assert [e.answers for e in dataset.examples] == [(row["answers"],) for row in ROWS]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)


def test_tables_are_read_as_they_are_written(tmp_path, read):
    """No cell is taken for a number, a date or nothing at all."""
    write_images(tmp_path, "a.png")
    answers = ["NA", "2015-03-01", "1.50", "none", "007"]
    rows = [{"id": f"00{i}", "image": "a.png", "question": "?", "answer": answer}
            for i, answer in enumerate(answers)]  # fmt: skip
    table = datasets.Dataset.from_list(rows)
    table.to_csv(tmp_path / "rows.csv")
    table.to_json(tmp_path / "rows.jsonl")
    (tmp_path / "set").mkdir()
    table.to_json(tmp_path / "set/rows.jsonl")
    write_images(tmp_path / "set", "a.png")
    for name in ("rows.csv", "rows.jsonl", "set"):
        examples = read(id=str(tmp_path / name), name=name).examples
        assert [(e.id, *e.answers) for e in examples] == [(r["id"], r["answer"]) for r in rows]
