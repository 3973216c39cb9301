"""Each set is read from a file in its own schema, or from a local copy of its repository as `datasets` loads it."""

import csv
import io
import json
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.data.adapters import ADAPTERS, metric_of
from inbol_jax.data.config import FORMATS, DataConfig
from inbol_jax.data.images import load_image
from inbol_jax.data.importing import open_dataset
from inbol_jax.errors import InbolError


def picture(number, format="PNG"):
    """The bytes of a small image, one for each number."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    return folder


def write_hub(folder, split, rows, subset=None, pictures=("image",)):
    """A copy of a hub repository: parquet with the library's own Image columns, in a folder of its own for each subset."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = datasets.Dataset.from_dict(columns)
    for column in pictures:
        made = made.cast_column(column, datasets.Image())
    where = folder / (subset or "data")
    where.mkdir(parents=True, exist_ok=True)
    made.to_parquet(where / f"{split}-00000-of-00001.parquet")
    return folder


def stored(data):
    return {"bytes": data, "path": None}


@pytest.fixture
def read(tmp_path):
    def read(max_rejected=0.0, **options):
        paths = {
            name: Path(options[name])
            for name in ("dir", "images", "questions", "annotations")
            if name in options
        }
        return open_dataset(
            DataConfig(**(options | paths)), out=tmp_path / "out", max_rejected=max_rejected
        )

    return read


ANSWERS = ["net", "net", "net", "netting", "net", "mesh", "net", "net", "net", "a net"]
AS_OBJECTS = [
    {"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(ANSWERS)
]


def test_vqav2_official(tmp_path, read):
    images = write_images(
        tmp_path / "val2014", "COCO_val2014_000000262148.jpg", "COCO_val2014_000000000042.jpg"
    )
    questions = [
        {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
        {"image_id": 262148, "question": "What is this?", "question_id": 262148001},
        {"image_id": 42, "question": "What is that?", "question_id": 42000},
    ]
    annotations = [
        {
            "question_type": "what",
            "multiple_choice_answer": "net",
            "answers": AS_OBJECTS,
            "answer_type": "other",
        }
        | {name: question[name] for name in ("image_id", "question_id")}
        for question in questions[
            ::-1
        ]  # the official files have one order; another one is read as well
    ]
    head = {
        "info": {"year": 2017, "version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": {"url": "x", "name": "y"},
    }
    q, a = (
        tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json",
        tmp_path / "v2_mscoco_val2014_annotations.json",
    )
    q.write_text(json.dumps(head | {"data_subtype": "val2014", "questions": questions}))
    a.write_text(json.dumps(head | {"data_subtype": "val2014", "annotations": annotations}))
    dataset = read(format="vqav2", questions=q, annotations=a, images=images)
    assert dataset.name == "v2_OpenEnded_mscoco_val2014_questions"
    assert dataset.root.samefile(images)
    found = {e.id: e for e in dataset.examples}
    assert found.keys() == {"262148000", "262148001", "42000"}
    first = found["262148000"]
    assert (first.image, first.question, first.answers) == (
        "COCO_val2014_000000262148.jpg",
        "Where is he looking?",
        tuple(ANSWERS),
    )
    assert (first.answerable, first.source, first.split, first.metric) == (
        True,
        "vqav2",
        "val2014",
        "vqa",
    )
    assert first.extra == {"kind": "other", "question_type": "what"}
    load_image(dataset.root / first.image)
    assert (
        len(read(format="vqav2", questions=q, annotations=a, images=images).examples) == 3
    )  # what is there is read


@pytest.mark.parametrize("streaming", [True, False])
def test_vqav2_of_the_hub(tmp_path, read, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {
            "question_type": "what is this",
            "multiple_choice_answer": "net",
            "answers": AS_OBJECTS,
            "image_id": 262148,
            "answer_type": "other",
            "question_id": 262148000 + i,
            "question": f"What is this, {i}?",
            "image": stored(picture(i // 2, "JPEG")),
        }
        for i in range(4)
    ]
    folder = write_hub(tmp_path / "VQAv2", "validation", rows)
    dataset = read(format="vqav2", id=str(folder), split="validation", streaming=streaming)
    assert dataset.name == "VQAv2-validation"
    assert [e.id for e in dataset.examples] == [str(262148000 + i) for i in range(4)]
    assert {(e.answers, e.split, e.metric) for e in dataset.examples} == {
        (tuple(ANSWERS), "validation", "vqa")
    }
    names = [e.image for e in dataset.examples]
    assert names[0] == names[1] != names[2] == names[3], (
        "a picture that questions share is there once"
    )
    assert (dataset.root / names[0]).read_bytes() == picture(0, "JPEG")
    assert names[0].endswith(".jpg")
    assert len([p for p in (dataset.root / "images").rglob("*") if p.is_file()]) == 2


def test_answers_as_an_object_of_lists(tmp_path, read):
    answers = {"answer": ANSWERS, "answer_confidence": ["yes"] * 10}
    rows = [
        {
            "answers": answers,
            "question_id": 1,
            "question": "What is this?",
            "image": stored(picture(0)),
        }
    ]
    (example,) = read(
        format="vqav2",
        id=str(write_hub(tmp_path / "VQAv2", "validation", rows)),
        split="validation",
    ).examples
    assert (example.answers, example.answerable) == (tuple(ANSWERS), True)


def test_okvqa(tmp_path, read):
    row = {
        "question_id": "2971475",
        "image": stored(picture(0)),
        "question": "What sport?",
        "answers": ["race"] * 8 + ["motocross"] * 2,
    }
    row |= {"question_type": "eight", "answer_type": "other"}
    (example,) = read(
        format="okvqa", id=str(write_hub(tmp_path / "OK-VQA", "val2014", [row])), split="val2014"
    ).examples
    assert (example.id, example.answers.count("race"), example.metric, example.extra["kind"]) == (
        "2971475",
        8,
        "vqa",
        "other",
    )

    images = write_images(tmp_path / "images", "COCO_train2014_000000051606.jpg")
    q, a = (
        tmp_path / "OpenEnded_mscoco_train2014_questions.json",
        tmp_path / "mscoco_train2014_annotations.json",
    )
    q.write_text(
        json.dumps(
            {"questions": [{"image_id": 51606, "question": "What is it?", "question_id": 516065}]}
        )
    )
    answers = [
        {
            "answer_id": 1,
            "raw_answer": "pony tail",
            "answer_confidence": "yes",
            "answer": "pony tail",
        }
    ]
    a.write_text(
        json.dumps(
            {
                "annotations": [
                    {
                        "image_id": 51606,
                        "answer_type": "other",
                        "question_type": "four",
                        "question_id": 516065,
                        "answers": answers,
                        "confidence": 3,
                    }
                ]
            }
        )
    )
    (example,) = read(format="okvqa", questions=q, annotations=a, images=images).examples
    assert (example.id, example.image, example.answers) == (
        "516065",
        "COCO_train2014_000000051606.jpg",
        ("pony tail",),
    )


def test_gqa(tmp_path, read):
    questions = [
        {
            "id": "201307251",
            "imageId": "n161313",
            "question": "Is it overcast?",
            "answer": "no",
            "types": {"structural": "verify"},
        },
        {
            "id": "201640614",
            "imageId": "n235859",
            "question": "Who is wearing the dress?",
            "answer": "women",
            "types": {"structural": "query"},
        },
        {
            "id": "201640615",
            "imageId": "n161313",
            "question": "What is it?",
            "answer": "sky",
            "types": {"structural": "query"},
        },
        {
            "id": "201640616",
            "imageId": "n0",
            "question": "What is there?",
            "answer": "sky",
            "types": {"structural": "query"},
        },
    ]
    pictures = [
        {"id": "n161313", "image": stored(picture(0))},
        {"id": "n235859", "image": stored(picture(1))},
    ]
    folder = write_hub(
        tmp_path / "GQA", "testdev", questions, "testdev_balanced_instructions", pictures=()
    )
    write_hub(folder, "testdev", pictures, "testdev_balanced_images")
    subsets = ("testdev_balanced_instructions", "testdev_balanced_images")
    listed = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: testdev\n    path: {name}/testdev-*\n"
        for name in subsets
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    dataset = read(
        max_rejected=0.5, format="gqa", id=str(folder), subset="testdev_balanced", split="testdev"
    )
    first, second, third = dataset.examples
    assert (first.id, first.answers, first.metric, first.extra["kind"]) == (
        "201307251",
        ("no",),
        "exact",
        "verify",
    )
    assert first.image == third.image != second.image
    assert (dataset.root / second.image).read_bytes() == picture(1)
    (fault,) = read_jsonl(dataset.root / "rejected.jsonl")
    assert fault == {"line": 4, "id": "201640616", "reason": "image missing"}

    images = write_images(tmp_path / "images", "2354786.jpg")
    official = {
        "02930152": {
            "question": "Is it blue?",
            "answer": "yes",
            "imageId": "2354786",
            "isBalanced": True,
            "types": {"structural": "verify"},
        }
    }
    (tmp_path / "questions.json").write_text(json.dumps(official))
    (example,) = read(
        format="gqa", questions=tmp_path / "questions.json", images=images, split="val"
    ).examples
    assert (example.id, example.image, example.answers, example.split) == (
        "02930152",
        "2354786.jpg",
        ("yes",),
        "val",
    )


def test_vizwiz(tmp_path, read):
    ten = ["unanswerable"] * 7 + ["unsuitable", "dog", "dog"]
    rows = [
        {
            "question_id": "VizWiz_val_0.jpg",
            "image": stored(picture(0)),
            "question": "Ok. What is it?",
            "answers": ten,
            "category": "unanswerable",
        },
        {
            "question_id": "VizWiz_val_1.jpg",
            "image": stored(picture(1)),
            "question": "Colour?",
            "answers": ["red"] * 10,
            "category": "other",
        },
    ]
    first, second = read(
        format="vizwiz", id=str(write_hub(tmp_path / "VizWiz-VQA", "val", rows)), split="val"
    ).examples
    assert (first.id, first.answerable, first.answers) == ("VizWiz_val_0.jpg", False, tuple(ten))
    assert (second.answerable, second.metric) == (True, "vqa")

    images = write_images(tmp_path / "val", "VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg")
    answers = [{"answer": a, "answer_confidence": "no"} for a in ten]
    official = [
        {
            "image": f"VizWiz_val_0000000{i}.jpg",
            "question": "What is it?",
            "answers": answers,
            "answer_type": "other",
            "answerable": i,
        }
        for i in (0, 1)
    ]
    (tmp_path / "val.json").write_text(json.dumps(official, indent=1))
    first, second = read(format="vizwiz", questions=tmp_path / "val.json", images=images).examples
    assert (first.id, first.answerable, second.answerable, second.answers) == (
        "VizWiz_val_00000000.jpg",
        False,
        True,
        tuple(ten),
    )


def test_textvqa(tmp_path, read):
    row = {
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "question": "What brand?",
        "image": stored(picture(0)),
    }
    row |= {
        "image_width": 8,
        "image_height": 6,
        "answers": ["nokia"] * 9 + ["toshiba"],
        "ocr_tokens": ["NOKIA"],
        "set_name": "val",
    }
    (example,) = read(
        format="textvqa",
        id=str(write_hub(tmp_path / "textvqa", "validation", [row])),
        split="validation",
    ).examples
    assert (example.id, example.answers, example.answerable, example.metric) == (
        "34602",
        ("nokia",) * 9 + ("toshiba",),
        True,
        "vqa",
    )

    images = write_images(tmp_path / "train_images", "003a8ae2ef43b901.jpg")
    row["image"] = None
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(
        json.dumps({"dataset_type": "val", "data": [row]})
    )
    (example,) = read(
        format="textvqa", questions=tmp_path / "TextVQA_0.5.1_val.json", images=images
    ).examples
    assert example.image == "003a8ae2ef43b901.jpg"


def test_pope(tmp_path, read, capsys):
    rows = [
        {
            "id": str(i),
            "question_id": str(i % 2 + 1),
            "question": "Is there a dog in the image?",
            "answer": answer,
            "image_source": "COCO_1",
        }
        | {"image": stored(picture(0)), "category": category}
        for i, (category, answer) in enumerate(
            [
                ("random", "yes"),
                ("random", "no"),
                ("popular", "yes"),
                ("popular", "no"),
                ("adversarial", "no"),
            ]
        )
    ]
    found = list(
        read(
            format="pope", id=str(write_hub(tmp_path / "POPE", "test", rows)), split="test"
        ).examples
    )
    assert [e.id for e in found] == [
        "random-1",
        "random-2",
        "popular-1",
        "popular-2",
        "adversarial-1",
    ]
    assert {(e.metric, e.source) for e in found} == {("yes_no", "pope")}
    assert (
        "5 questions of POPE-test (random 2, popular 2, adversarial 1), 0 set aside"
        in capsys.readouterr().out
    )

    images = write_images(tmp_path / "val2014", "COCO_val2014_000000310196.jpg")
    lines = [
        {
            "question_id": 1,
            "image": "COCO_val2014_000000310196.jpg",
            "text": "Is there a snowboard in the image?",
            "label": "yes",
        }
    ]
    lines.append(lines[0] | {"question_id": 2, "label": "no"})
    (tmp_path / "coco_pope_popular.json").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    first, second = read(
        format="pope", questions=tmp_path / "coco_pope_popular.json", images=images
    ).examples
    assert (first.id, first.question, first.answers) == (
        "popular-1",
        "Is there a snowboard in the image?",
        ("yes",),
    )
    assert (second.answers, second.extra) == (("no",), {"kind": "popular"})


def test_tubench(tmp_path, read):
    common = {"question": "Is it hot?", "image_variant": "original", "item_id": "7"}
    rows = [
        common
        | {
            "answer": "Yes",
            "dataset": "UVQA",
            "is_unanswerable": False,
            "strategy": None,
            "question_idx": 0,
        },
        common
        | {
            "answer": "Unanswerable",
            "dataset": "UVQA",
            "is_unanswerable": True,
            "strategy": "S.1",
            "question_idx": 1,
        },
        common
        | {
            "answer": "B",
            "dataset": "UGeoQA",
            "is_unanswerable": False,
            "strategy": None,
            "question_idx": 0,
        },
        common
        | {
            "answer": "1,250",
            "dataset": "UTabMWP",
            "is_unanswerable": False,
            "strategy": None,
            "question_idx": 0,
        },
        common
        | {
            "answer": "Friday",
            "dataset": "UTabMWP",
            "is_unanswerable": False,
            "strategy": None,
            "question_idx": 1,
        },
    ]
    rows = [row | {"image": stored(picture(0))} for row in rows]
    found = list(
        read(
            format="tubench", id=str(write_hub(tmp_path / "TUBench", "test", rows)), split="test"
        ).examples
    )
    assert [(e.id, e.answerable, e.answers, e.metric) for e in found] == [
        ("UVQA-7-original-0", True, ("Yes",), "yes_no"),
        ("UVQA-7-original-1", False, (), "exact"),
        ("UGeoQA-7-original-0", True, ("B",), "choice"),
        ("UTabMWP-7-original-0", True, ("1,250",), "numeric:0"),
        ("UTabMWP-7-original-1", True, ("Friday",), "exact"),
    ]
    assert found[1].extra == {"kind": "UVQA", "strategy": "S.1"}
    assert [metric_of(a) for a in ("no.", "(c)", "-3.5", "nan", "")] == [
        "yes_no",
        "choice",
        "numeric:0",
        "exact",
        "exact",
    ]


def test_haloquest(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png", "b.png")
    header = [
        "image_name",
        "url",
        "image type",
        "hallucination type",
        "question",
        "groundtruth responses",
        "split",
    ]
    rows = [
        [
            "a.png",
            "http://x/a.png",
            "generated",
            "false premises",
            "What is the dog doing?",
            "There is no dog.; No dog is in the image",
            "train",
        ],
        [
            "a.png",
            "http://x/a.png",
            "generated",
            "insufficient context",
            "Whose is it, ours?",
            "It is not known",
            "train",
        ],
        [
            "b.png",
            "http://x/b.png",
            "real",
            "visually challenging",
            "How many\nare there?",
            "Three; 3",
            "train",
        ],
        [
            "b.png",
            "http://x/b.png",
            "real",
            "visually challenging",
            "How many are there?",
            "Three",
            "eval",
        ],
    ]
    with (tmp_path / "haloquest-train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    found = list(
        read(
            format="haloquest",
            questions=tmp_path / "haloquest-train.csv",
            images=images,
            split="train",
        ).examples
    )
    assert [e.answerable for e in found] == [False, False, True]
    assert found[0].answers == ("There is no dog.", "No dog is in the image")
    assert (found[2].answers, found[2].image, found[2].question) == (
        ("Three", "3"),
        "b.png",
        "How many\nare there?",
    )
    assert len({e.id for e in found}) == 3
    assert (found[0].split, found[0].extra) == (
        "train",
        {"kind": "false premises", "image_type": "generated"},
    )


def test_unkvqa(tmp_path, read):
    images = write_images(tmp_path / "images", "COCO_val2014_000000000042.jpg")
    common = {"question": "What is it?", "image_name": "COCO_val2014_000000000042.jpg"}
    rows = [
        common | {"question_id": 1, "answerability": 0, "alter_type": "word replacement"},
        common | {"question_id": 2, "answerability": 1, "alter_type": None},
        common | {"question_id": 3, "answerability": 1, "alter_type": 3, "answers": ["net", "net"]},
    ]
    (tmp_path / "val.json").write_text(json.dumps(rows))
    found = list(read(format="unkvqa", questions=tmp_path / "val.json", images=images).examples)
    assert [(e.id, e.answerable, e.answers) for e in found] == [
        ("1", False, ()),
        ("2", None, ()),
        ("3", True, ("net", "net")),
    ]
    assert [e.extra.get("kind") for e in found] == ["word replacement", None, "3"]


def test_any_set_by_its_columns(tmp_path, read):
    rows = [
        {
            "key": i,
            "pic": stored(picture(i)),
            "q": f"What is {i}?",
            "gold": f"thing {i}",
            "known": i != 1,
            "score": 0.5,
            "none": None,
            "tags": ["a"],
        }
        for i in range(3)
    ]
    folder = write_hub(tmp_path / "My set", "train", rows, pictures=("pic",))
    options = {
        "id": str(folder),
        "split": "train",
        "image_column": "pic",
        "question_column": "q",
        "answers_column": "gold",
    }
    dataset = read(
        **options, id_column="key", answerable_column="known", metric="numeric:0.1", name="a/b c"
    )
    assert dataset.name == "a-b-c"
    first, second, _ = dataset.examples
    assert (first.id, first.answers, first.answerable, first.metric) == (
        "0",
        ("thing 0",),
        True,
        "numeric:0.1",
    )
    assert (second.answerable, first.source, first.extra) == (
        False,
        "a-b-c",
        {"score": 0.5, "tags": ["a"]},
    )
    assert [e.id for e in read(**options, limit=2, name="numbered").examples] == [
        "train-1",
        "train-2",
    ]
    with pytest.raises(
        InbolError,
        match=r"3 of 3 set aside: 3 no column 'picture' \(first: train-1|3 of 3 set aside: 3 no column 'picture'",
    ):
        read(**(options | {"image_column": "picture"}), name="other")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_local_file_with_paths_of_images(tmp_path, read, suffix):
    write_images(tmp_path / "set/pictures", "0.png", "1.png")
    (tmp_path / "secret.png").write_bytes(picture(9))
    rows = [
        {"id": f"q{i}", "image": image, "question": "What?", "answers": "red"}
        for i, image in enumerate(["pictures/0.png", "pictures/1.png", "../secret.png", "x.png"])
    ]
    made = datasets.Dataset.from_list(rows)
    file = tmp_path / f"set/rows.{suffix}"
    {"jsonl": made.to_json, "csv": made.to_csv, "parquet": made.to_parquet}[suffix](file)
    dataset = read(max_rejected=0.5, id=str(file), split="train")
    assert [(e.id, e.answers) for e in dataset.examples] == [("q0", ("red",)), ("q1", ("red",))]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)
    faults = {f["id"]: f["reason"] for f in read_jsonl(dataset.root / "rejected.jsonl")}
    assert faults == {"q2": "image outside the set's files", "q3": "image missing"}
    dataset = read(
        max_rejected=0.5, id=str(file), split="train", images=tmp_path / "set", name="in place"
    )
    assert [e.image for e in dataset.examples] == ["pictures/0.png", "pictures/1.png"]
    faults = {
        f["id"]: f["reason"] for f in read_jsonl(tmp_path / "out/data/in-place/rejected.jsonl")
    }
    assert faults == {"q2": "image outside the folder", "q3": "image missing"}


@pytest.mark.parametrize(
    ("questions", "split", "found"),
    [
        ("q_train2014.json", "val2014", "val2014"),
        ("q_train2014.json", "dev", "train2014"),
        ("q.json", None, "test2015"),
        ("q.json", "x", "test2015"),
    ],
)
def test_the_split_of_coco_pictures(tmp_path, read, questions, split, found):
    folder = tmp_path / "train2014 of coco"  # the name of a folder above says nothing
    images = write_images(folder / "test2015", f"COCO_{found}_000000000001.jpg")
    (folder / questions).write_text(
        json.dumps([{"question_id": 1, "image_id": 1, "question": "What?"}])
    )
    (folder / "a.json").write_text(json.dumps([{"question_id": 1, "answers": ANSWERS}]))
    options = {
        "questions": folder / questions,
        "annotations": folder / "a.json",
        "images": images,
        "split": split,
    }
    (example,) = read(format="okvqa", **options).examples
    assert (example.image, example.split) == (f"COCO_{found}_000000000001.jpg", split or found)
    if questions == "q.json":
        with pytest.raises(InbolError, match="split not known"):
            read(
                format="okvqa",
                name="other",
                **(options | {"images": images.rename(folder / "pictures")}),
            )


def test_every_adapter_is_tested():
    assert {"folder", *ADAPTERS} == set(FORMATS)
    assert set(ADAPTERS) == {
        "columns",
        "vqav2",
        "okvqa",
        "gqa",
        "vizwiz",
        "textvqa",
        "pope",
        "tubench",
        "haloquest",
        "unkvqa",
    }


def test_pictures_in_rows_that_cannot_be_used(tmp_path, read):
    (tmp_path / "secret.png").write_bytes(picture(9))
    header = (
        b"IHDR" + (100_000).to_bytes(4, "big") * 2 + picture(0)[24:29]
    )  # and 33 on: behind its checksum
    bomb = picture(0)[:12] + header + zlib.crc32(header).to_bytes(4, "big") + picture(0)[33:]
    faults = {
        "no image": (stored(b"<html>"), "not an image"),
        "zero byte": (stored(b""), "image empty"),
        "bomb": (stored(bomb), "image too large"),
        "missing": (None, "image missing"),
        "not there": ({"bytes": None, "path": "nowhere.png"}, "image missing"),
        "climbs out": ({"bytes": None, "path": "../secret.png"}, "image outside the set's files"),
        "absolute": (
            {"bytes": None, "path": str(tmp_path / "secret.png")},
            "image outside the set's files",
        ),
        "sound": (stored(picture(1)), None),
    }
    rows = [
        {"id": id, "image": value, "question": "What?", "answers": "red"}
        for id, (value, _) in faults.items()
    ]
    folder = write_hub(
        tmp_path / "set", "train", rows, pictures=()
    )  # the library would look for the paths as it writes
    dataset = read(max_rejected=1.0, id=str(folder), split="train")
    assert [e.id for e in dataset.examples] == ["sound"]
    assert {r.id: r.reason for r in dataset.rejected} == {
        id: cause for id, (_, cause) in faults.items() if cause
    }
    with pytest.raises(InbolError, match=r"7 of 8 set aside: .*; at most 10% may be"):
        read(max_rejected=0.1, id=str(folder), split="train")


def test_faults_in_an_official_pair(tmp_path, read):
    images = write_images(tmp_path / "val2014", "COCO_val2014_000000000001.jpg")
    common = {"image_id": 1, "question": "What is it?"}
    questions = [
        common | {"question_id": 1},
        common | {"question_id": 2, "image_id": 7},
        common | {"question_id": 1},
        common | {"question_id": 4, "question": "caf\udce9?"},
        common | {"question_id": 5},
        "no object",
        common | {"question_id": 7},
        common | {"question_id": 8, "image_id": "../1"},
        common | {"question_id": [9]},
        common | {"question_id": 10, "question": "\ud800?"},
        common | {"question_id": 11},
    ]
    annotations = [
        {"question_id": i, "answers": AS_OBJECTS, "answer_type": "other"}
        for i in (1, 2, 4, 8, 10, 11, 12)
    ]
    annotations += [{"question_id": 7, "answers": []}, 3, {"answers": AS_OBJECTS}]
    q, a = tmp_path / "q_val2014.json", tmp_path / "a_val2014.json"
    q.write_bytes(
        json.dumps({"questions": questions}, ensure_ascii=False)
        .replace("\ud800", "\\ud800")
        .encode(errors="surrogateescape")
    )
    a.write_text(json.dumps({"annotations": annotations}))
    dataset = read(max_rejected=1.0, format="vqav2", questions=q, annotations=a, images=images)
    assert sorted(e.id for e in dataset.examples) == ["1", "11", "7"]
    assert next(e for e in dataset.examples if e.id == "7").answerable is None, (
        "without answers nobody can say"
    )
    assert sorted((r.id or "", r.reason) for r in dataset.rejected) == [
        ("", "annotation without an id"),
        ("", "id not a string"),
        ("", "not a JSON object"),
        ("", "not a JSON object"),
        ("1", "duplicated id"),
        ("10", "not UTF-8"),
        ("12", "annotation without question"),
        ("2", "image missing"),
        ("4", "not UTF-8"),
        ("5", "question without annotation"),
        ("8", "image_id not a number"),
    ]
    for torn in (a.read_bytes()[:-30], a.read_bytes() + b"]", b"", b'{"info": 1}'):
        a.write_bytes(torn)
        with pytest.raises(
            InbolError, match=r"a_val2014\.json: (not whole JSON|holds no list of records)"
        ):
            read(
                max_rejected=1.0,
                format="vqav2",
                questions=q,
                annotations=a,
                images=images,
                name="torn",
            )
        assert not (tmp_path / "out/data/torn/data.jsonl").exists()


def test_settings_of_an_import_are_kept(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png")
    file = tmp_path / "val.json"
    file.write_text(
        json.dumps(
            [
                {
                    "question_id": 1,
                    "question": "What?",
                    "image_name": "a.png",
                    "answerability": 0,
                    "alter_type": "x",
                }
            ]
        )
    )
    options = {"format": "unkvqa", "questions": file, "images": images}
    dataset = read(**options)
    header = read_meta(tmp_path / "out/data/val/data.jsonl")
    assert (header["format"], header["rows"], header["set_aside"], header["kinds"]) == (
        "unkvqa",
        1,
        0,
        {"x": 1},
    )
    assert dataset.root.samefile(images)
    with pytest.raises(InbolError, match="val holds a dataset made with other settings"):
        read(**options, metric="exact")
    with pytest.raises(InbolError, match="val holds a dataset made with other settings"):
        read(**(options | {"images": write_images(tmp_path / "others", "a.png")}))
    file.write_text(file.read_text().replace("What", "Who"))
    with pytest.raises(InbolError, match="val holds a dataset made with other settings"):
        read(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no dataset is named: give --data DIR"),
        ({"format": "folder"}, "format folder takes --data$"),
        ({"format": "coco", "id": "x"}, "--data.format coco: choose one of folder, columns, vqav2"),
        ({"dir": "x", "id": "y"}, "format columns takes --data.id, not --data and --data.id"),
        ({"dir": "x", "split": "val"}, "--data.split is of no use with a dataset folder"),
        (
            {"format": "vqav2", "dir": "x"},
            "format vqav2 takes --data.questions or --data.id, not --data",
        ),
        ({"format": "vqav2", "questions": "q.json"}, "--data.questions needs --data.images"),
        (
            {"format": "vqav2", "questions": "q.json", "images": "i"},
            "--data.format vqav2 needs --data.annotations",
        ),
        (
            {"format": "gqa", "questions": "q", "images": "i", "annotations": "a"},
            "--data.format gqa has its answers in --data.questions",
        ),
        (
            {"format": "gqa", "questions": "q.json", "images": "i"},
            "--data.questions q.json: no such file",
        ),
        (
            {"format": "unkvqa", "id": "x", "split": "val"},
            "reads the set's own file: give --data.questions",
        ),
        ({"id": "x"}, "--data.split is needed"),
        ({"format": "gqa", "id": "x", "split": "testdev"}, "--data.format gqa needs --data.subset"),
        (
            {"id": "x", "annotations": "a", "split": "val"},
            "--data.annotations needs --data.questions",
        ),
        ({"id": "x", "split": "val", "limit": 0}, "--data.limit 0"),
        ({"id": "x", "split": "val", "metric": "bleu"}, "'bleu' is not known"),
        ({"id": "x", "split": "val", "name": "../"}, "--data.name '../'"),
        ({"id": "x", "split": "val", "images": "nowhere"}, "--data.images nowhere: no such folder"),
    ],
)
def test_options_that_do_not_go_together(read, options, message):
    with pytest.raises(InbolError, match=message):
        read(**options)


def test_sets_that_cannot_be_loaded(tmp_path, read, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = write_hub(
        tmp_path / "set", "train", [{"image": stored(picture(0)), "question": "What?"}]
    )
    with pytest.raises(
        InbolError, match="no set that `datasets` can load with subset None, split val"
    ):
        read(id=str(folder), split="val")
    (tmp_path / "set/data/train-00000-of-00001.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(InbolError, match="no set that `datasets` can load"):
        read(id=str(folder), split="train")
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(InbolError, match="must end with one of"):
        read(id=str(tmp_path / "x.bin"), split="train")
