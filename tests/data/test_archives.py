"""TUBench's official zips."""

import json
import zipfile

import pytest
from sample_sets import picture

from inbol_jax.artifacts import read_jsonl
from inbol_jax.data import archives
from inbol_jax.errors import InbolError


def write_zip(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(content) if isinstance(content, dict) else content)
    return file


def facts(dataset):
    return [(e.id, e.question, e.answers, e.answerable, e.metric) for e in dataset.examples]


def test_photographs_and_code(tmp_path, read):
    lines = "1\tIs it a dog?\tYes\n2\tIs it hers?\tUnanswerable\t3\n\n"
    members = {"UVQA/12/vqa.txt": lines, "UVQA/12/COCO_val2014_1.jpg": picture(0, "JPEG")}
    members["__MACOSX/UVQA/12/._vqa.txt"] = b"\0"
    dataset = read(format="tubench", questions=write_zip(tmp_path / "UVQA.zip", members))
    assert facts(dataset) == [
        ("UVQA-12-original-0", "Is it a dog?", ("Yes",), True, "yes_no"),
        ("UVQA-12-original-1", "Is it hers?", (), False, "exact"),
    ]
    assert dataset.examples[1].extra == {"kind": "UVQA", "strategy": "3"}
    assert (dataset.root / dataset.examples[0].image).read_bytes() == picture(0, "JPEG")

    members = {
        "UCR/3/1.txt": "Is x 1?\tNo\n",
        "UCR/3/1_u2.txt": "Is x 1?\tUnanswerable\n",
        "UCR/3/1_negate_flip.txt": "Is x not 1?\tYes\n",
    }
    members |= {"UCR/3/1.png": picture(1), "UCR/3/1_u2.png": picture(2)}
    dataset = read(format="tubench", questions=write_zip(tmp_path / "UCR.zip", members))
    first, second = dataset.examples
    assert (first.id, second.id) == ("UCR-3-original-0", "UCR-3-u2-0")
    assert (second.answerable, second.extra["strategy"]) == (False, "u2")
    assert (dataset.root / second.image).read_bytes() == picture(2)


def test_geometry_and_tables_have_options(tmp_path, read):
    about = {"choices": ["30°", "40°"], "label": 1, "subject": "图()", "eng_subject": "It is ()"}
    about |= {"unanswerable_subject": "图()", "unanswerable_eng_subject": "Now it is ()"}
    members = {"UGeoQA/9/9.json": about, "UGeoQA/9/9.png": picture(0)}
    dataset = read(format="tubench", questions=write_zip(tmp_path / "UGeoQA.zip", members))
    assert facts(dataset) == [
        ("UGeoQA-9-original-0", "It is ?", ("B",), True, "choice"),
        ("UGeoQA-9-original-1", "Now it is ?", (), False, "choice"),
    ]
    assert dataset.examples[0].options == ("30°", "40°")

    about = {"question": "Which is more?", "choices": ["a", "b"], "answer": "a"}
    members = {"UTabMWP/4/4.json": about, "UTabMWP/4/4.png": picture(1)}
    members["UTabMWP/4/4_u1.png"] = picture(2)
    dataset = read(format="tubench", questions=write_zip(tmp_path / "UTabMWP1.zip", members))
    first, second = dataset.examples
    assert (first.answers, second.id, second.answerable) == (("A",), "UTabMWP-4-u1-1", False)
    assert (dataset.root / first.image).read_bytes() == picture(1)
    assert (dataset.root / second.image).read_bytes() == picture(2)


def test_zips_that_cannot_be_used(tmp_path, read, monkeypatch):
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(InbolError, match="cannot be read as a zip"):
        read(format="tubench", questions=tmp_path / "broken.zip")
    other = write_zip(tmp_path / "other.zip", {"README.md": "hello"})
    with pytest.raises(InbolError, match="holds none of TUBench's sets"):
        read(format="tubench", questions=other)
    with pytest.raises(InbolError, match=r"needs --data\.images"):
        read(format="pope", questions=other)
    monkeypatch.setattr(archives, "MAX_MEMBER", 200)
    about = {"question": "Which?", "choices": ["a", "b"], "answer": "a"}
    members = {"S/4/4.json": about, "S/4/4.png": bytes(201), "S/5/5.json": "{", "S/6/6.json": "[]"}
    members |= {"S/7/7.json": about}
    file = write_zip(tmp_path / "some.zip", members)
    with pytest.raises(InbolError, match="set aside"):
        read(format="tubench", questions=file)
    rejected = read_jsonl(tmp_path / "out/data/some/rejected.jsonl")
    assert [(row["id"], row["reason"]) for row in rejected] == [
        ("4", "file in the zip too large"),
        ("5", "not UTF-8 or not JSON"),
        ("6", "not a JSON object"),
        ("UTabMWP-7-original-0", "image missing"),
        ("UTabMWP-7-u1-1", "image missing"),
    ]
