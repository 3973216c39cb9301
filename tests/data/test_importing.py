"""An import sets aside what cannot be used, keeps its settings, and is made once."""

import json

import pytest
from sample_sets import AS_OBJECTS, write_images, write_json

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta
from inbol_jax.errors import InbolError


@pytest.fixture
def unkvqa(tmp_path):
    """The options of a set of one question."""
    images = write_images(tmp_path / "images", "a.png")
    row = {"question_id": 0, "question": "What?", "image_name": "a.png", "alter_type": "x"}
    file = write_json(tmp_path / "val.json", [row | {"answerability": {"binary": False}}])
    return {"format": "unkvqa", "id": file, "images": images}


def test_faults_in_an_official_pair(tmp_path, read):
    images = write_images(tmp_path / "val2014", "COCO_val2014_000000000001.jpg")
    same = {"image_id": 1, "question": "What is it?"}
    questions = [
        same | {"question_id": 1},
        same | {"question_id": 2, "image_id": 7},
        same | {"question_id": 1},
        same | {"question_id": 4, "question": "caf\udce9?"},
        same | {"question_id": 5},
        "no object",
        same | {"question_id": 7},
        same | {"question_id": 8, "image_id": "../1"},
        same | {"question_id": [9]},
        same | {"question_id": 10, "question": "\ud800?"},
        same | {"question_id": 11},
    ]
    annotations = [{"question_id": i, "answers": AS_OBJECTS} for i in (1, 2, 4, 8, 10, 11, 12)]
    annotations += [{"question_id": 7, "answers": []}, 3, {"answers": AS_OBJECTS}]
    q, a = tmp_path / "q_val2014.json", tmp_path / "a_val2014.json"
    text = json.dumps({"questions": questions}, ensure_ascii=False).replace("\ud800", "\\ud800")
    q.write_bytes(text.encode(errors="surrogateescape"))
    write_json(a, {"annotations": annotations})
    options = {"format": "vqav2", "id": q, "annotations": a, "images": images}
    dataset = read(max_rejected=1.0, **options)
    by_id = {e.id: e for e in dataset.examples}
    assert by_id.keys() == {"1", "7", "11"}
    assert by_id["7"].answerable is None, "without answers nobody can say"
    assert sorted((r.id or "", r.reason) for r in dataset.rejected) == sorted(
        [
            ("", "annotation without an id"),
            ("", "Expected `str`, got `array` - at `$.id`"),
            ("", "not a JSON object"),
            ("", "not a JSON object"),
            ("1", "duplicated id"),
            ("10", "not UTF-8"),
            ("12", "annotation without question"),
            ("2", "image missing"),
            ("4", "not UTF-8"),
            ("5", "question without annotation"),
            ("8", "columns not as the set has them"),
        ]
    )
    for torn in (a.read_bytes()[:-30], a.read_bytes() + b"]", b"", b'{"info": 1}'):
        a.write_bytes(torn)
        fault = r"a_val2014\.json: (not whole JSON|holds no list of records)"
        with pytest.raises(InbolError, match=fault):
            read(max_rejected=1.0, **options, name="torn")
        assert not (tmp_path / "out/data/torn/data.jsonl").exists()


def test_the_settings_of_an_import_are_kept(tmp_path, read, unkvqa):
    dataset = read(**unkvqa)
    header = read_meta(tmp_path / "out/data/val/data.jsonl")
    assert header["settings"]["format"] == "unkvqa"
    counts = {name: header[name] for name in ("rows", "set_aside", "without_answers")}
    assert counts == {"rows": 1, "set_aside": 0, "without_answers": 0}
    assert header["prompt"] == "short"
    assert dataset.root.samefile(unkvqa["images"])
    others = write_images(tmp_path / "others", "a.png")
    for changed in ({"metric": "exact"}, {"images": others}):
        (option,) = changed
        with pytest.raises(InbolError, match=f"was made with .*, and now --{option} "):
            read(**(unkvqa | changed))
    file = unkvqa["id"]
    file.write_text(file.read_text().replace("What", "Who"))
    with pytest.raises(InbolError, match="of another --id, or of what has changed"):
        read(**unkvqa)


def test_an_import_gives_no_header_before_its_rows_are_whole(tmp_path, read, unkvqa):
    file = unkvqa["id"]
    file.write_text(file.read_text().replace("What?", ""))
    with pytest.raises(InbolError, match=r"1 of 1 set aside: 1 question blank \(first: 0\)"):
        read(**unkvqa)
    folder = tmp_path / "out/data/val"
    assert [path.name for path in folder.glob("data.jsonl*")] == []
    assert [row["reason"] for row in read_jsonl(folder / "rejected.jsonl")] == ["question blank"]


def test_an_import_that_is_killed_is_made_by_the_same_command(tmp_path, read, unkvqa, kills):
    assert kills(lambda: read(**unkvqa)) == 6
    assert read_meta(tmp_path / "out/data/val/data.jsonl")["rows"] == 1
    (tmp_path / "out/data/foreign").mkdir()
    foreign = tmp_path / "out/data/foreign/data.jsonl"
    for header in ({}, {"command": "data check", "images": "."}):
        foreign.write_text("mine")
        write_json(meta_path(foreign), header)
        with pytest.raises(InbolError, match=r"foreign/data\.jsonl was not made by"):
            read(**unkvqa, name="foreign")
        assert foreign.read_text() == "mine"
