"""TUBench's official zips become dataset folders by the example."""

import json
import runpy
import zipfile
from pathlib import Path

import pytest
from sample_sets import picture

from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples/tubench.py"))


def converted(tmp_path, name, members):
    file, out = tmp_path / f"{name}.zip", tmp_path / name
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, json.dumps(content) if isinstance(content, dict) else content)
    EXAMPLE["convert"](EXAMPLE["Config"](file, out))
    return load_dataset_folder(out)


def facts(dataset):
    return [(e.id, e.question, e.answers, e.answerable, e.metric) for e in dataset.examples]


def pixels(dataset, number):
    return (dataset.root / dataset.examples[number].images[0]).read_bytes()


def test_photographs_and_code(tmp_path):
    lines = "1\tIs it a dog?\tYes\n2\tIs it hers?\tUnanswerable\t3\n\n"
    members = {"./UVQA/12//vqa.txt": lines, "UVQA/12/COCO_val2014_1.jpg": picture(0, "JPEG")}
    members["__MACOSX/UVQA/12/._vqa.txt"] = b"\0"
    dataset = converted(tmp_path, "UVQA", members)
    assert facts(dataset) == [
        ("UVQA-12-original-0", "Is it a dog?", ("Yes",), True, "yes_no"),
        ("UVQA-12-original-1", "Is it hers?", (), False, "inclusion"),
    ]
    assert dataset.examples[1].extra == {"kind": "UVQA", "strategy": "3"}
    assert pixels(dataset, 0) == picture(0, "JPEG")
    members = {
        "UCR/3/1.txt": "Is x 1?\tNo\n",
        "UCR/3/1_u2.txt": "Is x 1?\tUnanswerable\n",
        "UCR/3/1_negate_flip.txt": "Is x not 1?\tYes\n",
    }
    members |= {"UCR/3/1.png": picture(1), "UCR/3/1_u2.png": picture(2)}
    dataset = converted(tmp_path, "UCR", members)
    first, second = dataset.examples
    assert (first.id, second.id) == ("UCR-3-original-0", "UCR-3-u2-0")
    assert (second.answerable, second.extra["strategy"]) == (False, "u2")
    assert pixels(dataset, 1) == picture(2)


def test_geometry_and_tables_have_options(tmp_path):
    about = {"choices": ["30°", "40°"], "label": 1, "subject": "图()", "eng_subject": "It is ()"}
    about |= {"unanswerable_subject": "图()", "unanswerable_eng_subject": "Now it is ()"}
    dataset = converted(
        tmp_path, "UGeoQA", {"UGeoQA/9/9.json": about, "UGeoQA/9/9.png": picture(0)}
    )
    assert facts(dataset) == [
        ("UGeoQA-9-original-0", "It is ?", ("B",), True, "choice"),
        ("UGeoQA-9-original-1", "Now it is ?", (), False, "choice"),
    ]
    assert dataset.examples[0].options == ("30°", "40°")
    about = {"question": "Which is more?", "choices": ["a", "b"], "answer": "a"}
    members = {"UTabMWP/4/4.json": about, "UTabMWP/4/4.png": picture(1)}
    dataset = converted(tmp_path, "UTabMWP1", members | {"UTabMWP/4/4_u1.png": picture(2)})
    first, second = dataset.examples
    assert (first.answers, second.id, second.answerable) == (("A",), "UTabMWP-4-u1-1", False)
    assert (pixels(dataset, 0), pixels(dataset, 1)) == (picture(1), picture(2))


def test_zips_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(InbolError, match="cannot be read as a zip"):
        EXAMPLE["convert"](EXAMPLE["Config"](tmp_path / "broken.zip", tmp_path / "broken"))
    with pytest.raises(InbolError, match="holds none of TUBench's sets"):
        converted(tmp_path, "other", {"README.md": "hello"})
    about = {"question": "Which?", "choices": ["a", "b"], "answer": "a"}
    members = {"S/5/5.json": "{", "S/6/6.json": "[]", "S/7/7.json": about}
    with pytest.raises(InbolError, match="2 of 2 set aside: 2 image missing"):
        converted(tmp_path, "some", members)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["S/5/5.json", "S/6/6.json"]
