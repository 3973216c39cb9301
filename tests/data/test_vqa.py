import json

import pytest
from sample_sets import dataset_row as row
from sample_sets import write_rows as write

from inbol_jax.artifacts import meta_path, write_json
from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError


def test_reads_a_folder(tmp_path):
    folder = tmp_path / "kitchen"
    whole = row(split="val", meta={"k": [1]})
    unanswerable = row(id=2, answers=[], answerable=False)
    write(folder, whole, unanswerable, row(id="3", answers=..., answerable=None))
    dataset = load_dataset_folder(folder)
    assert (dataset.name, dataset.root, dataset.rejected) == ("kitchen", folder, [])
    first, second, third = dataset.examples
    assert (first.id, first.image, first.question) == ("q1", "images/a.png", "What colour?")
    assert (first.answers, first.source) == (("red", "red", "blue"), "")
    assert (first.split, first.metric, first.extra) == ("val", "inclusion", {"meta": {"k": [1]}})
    assert [e.answerable for e in dataset.examples] == [True, False, None]
    assert (second.id, second.extra, third.answers) == ("2", {}, ())
    assert first.to_json() == first.to_json() | whole


def test_what_is_judged_needs_gold_answers(tmp_path):
    none = row(id=2, answers=[], answerable=None), row(id=3, answers=[" "], answerable=None)
    write(tmp_path, row(), *none, row(id=4, answers=[], answerable=False))
    assert len(load_dataset_folder(tmp_path).examples) == 4
    dataset = load_dataset_folder(tmp_path, judged=True, max_rejected=0.5)
    assert [e.id for e in dataset.examples] == ["q1", "4"]
    assert [fault.reason for fault in dataset.rejected] == ["no gold answers"] * 2


def test_a_limit_reads_no_further(tmp_path):
    write(tmp_path, row(), b"broken", row(id=2), row(id=3))
    dataset = load_dataset_folder(tmp_path, limit=3, max_rejected=0.5)
    assert ([e.id for e in dataset.examples], len(dataset.rejected)) == (["q1", "2"], 1)


def test_byte_order_mark_blank_lines_and_line_ends(tmp_path):
    first, second = (json.dumps(r).encode() for r in (row(), row(id=2, question="où ? \u2028")))
    write(tmp_path).write_bytes(b"\xef\xbb\xbf" + first + b"\r\n\n  \n" + second)
    dataset = load_dataset_folder(tmp_path)
    assert [e.id for e in dataset.examples] == ["q1", "2"]
    assert dataset.rejected == []


def test_a_file_finds_its_images(tmp_path):
    file = write(tmp_path / "set", row(), name="train.jsonl")
    dataset = load_dataset_folder(file)
    assert (dataset.name, dataset.root) == ("train", file.parent)

    built = tmp_path / "build" / "idk.jsonl"
    built.parent.mkdir()
    built.write_bytes(file.read_bytes())
    (built.parent / "idk.jsonl.meta.json").write_text('{"images": "../set"}')
    assert load_dataset_folder(built).root.samefile(tmp_path / "set")
    assert load_dataset_folder(built, images=tmp_path / "set").root == tmp_path / "set"

    (built.parent / "idk.jsonl.meta.json").write_text('{"images": 12}')
    with pytest.raises(InbolError, match=r"idk\.jsonl\.meta\.json: .*Expected .str., got .int."):
        load_dataset_folder(built)
    (built.parent / "idk.jsonl.meta.json").write_text('{"images": "nowhere"}')
    with pytest.raises(InbolError, match="nowhere: no such image folder"):
        load_dataset_folder(built)


def test_an_id_is_taken_by_the_first_usable_record(tmp_path):
    write(tmp_path, row(question=""), row(), row(id="2"), row(id=2))
    dataset = load_dataset_folder(tmp_path, max_rejected=1)
    assert [e.id for e in dataset.examples] == ["q1", "2"]
    assert dataset.rejected == [
        Rejection(1, "q1", "question blank"),
        Rejection(4, "2", "duplicated id"),
    ]


def test_who_ever_reads_a_dataset_says_what_it_sets_aside(tmp_path, capsys):
    """So that no figure is of fewer questions in silence."""
    write(tmp_path, *(row(id=i) for i in range(18)), row(id="x", question=""))
    load_dataset_folder(tmp_path)
    said = f"{tmp_path / 'data.jsonl'}: 1 of 19 set aside: 1 question blank (first: x)\n"
    assert capsys.readouterr().out == said
    load_dataset_folder(tmp_path, limit=18)
    assert capsys.readouterr().out == ""


def test_too_many_bad_records_stop_the_run(tmp_path):
    rows = [row(id=i) for i in range(18)] + [
        row(id="x", images=["b.png"]),
        row(id="y", question=""),
    ]
    write(tmp_path, *rows)
    assert len(load_dataset_folder(tmp_path).examples) == 18  # exactly a tenth may go
    write(tmp_path, *rows, row(id="z", images=["b.png"]))
    with pytest.raises(InbolError) as caught:
        load_dataset_folder(tmp_path)
    message = str(caught.value)
    missing = f"2 image missing (first: x, looked for {tmp_path / 'b.png'})"
    causes = f"3 of 21 set aside: {missing}, 1 question blank (first: y)"
    assert f"{causes}; at most 10% may be" in message
    assert message.endswith("--images` names the folder that paths are relative to")
    assert "\n" not in message
    assert len(load_dataset_folder(tmp_path, max_rejected=0.2).rejected) == 3


def test_a_dataset_that_was_cut_is_told(tmp_path, capsys):
    """It may be meant: people shorten a dataset by hand."""
    write(tmp_path, *(row(id=i) for i in range(3)))
    for rows, told in ((4, True), (3, False), (2, True)):
        write_json(meta_path(tmp_path / "data.jsonl"), {"rows": rows})
        assert len(load_dataset_folder(tmp_path).examples) == 3
        said = " ".join(capsys.readouterr().out.split())
        assert (f"data.jsonl holds 3 lines, and by its header {rows}: it was cut" in said) == told
    assert len(load_dataset_folder(tmp_path, limit=2).examples) == 2
    assert "header" not in capsys.readouterr().out


def test_what_is_not_a_dataset(tmp_path):
    (tmp_path / "data.csv").write_text("id\n")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "data.csv"):
        with pytest.raises(InbolError, match=f"{path}.*: give a folder that holds data.jsonl, or"):
            load_dataset_folder(path)
    (tmp_path / "data.jsonl").write_text("\n")
    with pytest.raises(InbolError, match="holds no records"):
        load_dataset_folder(tmp_path)
