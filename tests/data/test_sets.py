"""Each set is read from a file in its own schema, or from a copy of its repository on the hub."""

import csv
import json
import math

import datasets
import pytest
from sample_sets import (
    ANSWERS,
    AS_OBJECTS,
    json_rows,
    picture,
    stored,
    write_hub,
    write_images,
    write_json,
)

from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.columns import metric_of
from inbol_jax.data.config import FORMATS
from inbol_jax.data.images import load_image
from inbol_jax.data.sets import SETS
from inbol_jax.errors import InbolError


def test_every_set_is_a_format_and_is_tested():
    assert ("folder", *SETS) == FORMATS
    tested = "columns vqav2 okvqa gqa vizwiz textvqa pope tubench haloquest unkvqa"
    choice_sets = "mmupd mmbench scienceqa mmmu aokvqa aokvqa_direct mme"
    assert set(SETS) == {*tested.split(), *choice_sets.split()}


def test_vqav2_official(tmp_path, read):
    names = ("COCO_val2014_000000262148.jpg", "COCO_val2014_000000000042.jpg")
    images = write_images(tmp_path / "val2014", *names)
    questions = json_rows("""
        {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000}
        {"image_id": 262148, "question": "What is this?", "question_id": 262148001}
        {"image_id": 42, "question": "What is that?", "question_id": 42000}
    """)
    same = {"question_type": "what", "multiple_choice_answer": "net", "answer_type": "other"}
    annotations = []
    for question in questions[::-1]:  # official files have one order; another one is read as well
        ids = {name: question[name] for name in ("image_id", "question_id")}
        annotations.append(same | ids | {"answers": AS_OBJECTS})
    (head,) = json_rows("""
        {"info": {"version": "2.0"}, "data_type": "mscoco", "license": {"url": "x"}, "data_subtype": "val2014"}
    """)  # noqa: E501
    q = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    a = tmp_path / "v2_mscoco_val2014_annotations.json"
    write_json(q, head | {"questions": questions})
    write_json(a, head | {"annotations": annotations})
    dataset = read(format="vqav2", questions=q, annotations=a, images=images)
    assert dataset.name == "v2_OpenEnded_mscoco_val2014_questions"
    assert dataset.root.samefile(images)
    by_id = {e.id: e for e in dataset.examples}
    assert by_id.keys() == {"262148000", "262148001", "42000"}
    first = by_id["262148000"]
    assert (first.image, first.question) == (names[0], "Where is he looking?")
    assert (first.answers, first.answerable) == (tuple(ANSWERS), True)
    assert (first.source, first.split, first.metric) == ("vqav2", "val2014", "vqa")
    assert first.extra == {"kind": "other", "question_type": "what"}
    load_image(dataset.root / first.image)
    again = read(format="vqav2", questions=q, annotations=a, images=images)
    assert len(again.examples) == 3, "a set that was imported is read"


@pytest.mark.parametrize("streaming", [True, False])
def test_vqav2_of_the_hub(tmp_path, read, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    same = {"question_type": "what is this", "answer_type": "other", "image_id": 262148}
    rows = []
    for i in range(4):
        row = {"question_id": 262148000 + i, "question": f"What is this, {i}?"}
        rows.append(same | row | {"answers": AS_OBJECTS, "image": stored(picture(i // 2, "JPEG"))})
    folder = write_hub(tmp_path / "VQAv2", "validation", rows)
    dataset = read(format="vqav2", id=str(folder), split="validation", streaming=streaming)
    assert dataset.name == "VQAv2-validation"
    assert [e.id for e in dataset.examples] == [str(262148000 + i) for i in range(4)]
    facts = {(e.answers, e.split, e.metric) for e in dataset.examples}
    assert facts == {(tuple(ANSWERS), "validation", "vqa")}
    a, b, c, d = (e.image for e in dataset.examples)
    assert a == b != c == d, "a picture that questions share is there once"
    assert (dataset.root / a).read_bytes() == picture(0, "JPEG")
    assert a.endswith(".jpg")
    assert len([p for p in (dataset.root / "images").rglob("*") if p.is_file()]) == 2


def test_answers_as_an_object_of_lists(tmp_path, read):
    answers = {"answer": ANSWERS, "answer_confidence": ["yes"] * 10}
    row = {"answers": answers, "question_id": 1, "question": "What?", "image": stored(picture(0))}
    folder = write_hub(tmp_path / "VQAv2", "validation", [row])
    (example,) = read(format="vqav2", id=str(folder), split="validation").examples
    assert (example.answers, example.answerable) == (tuple(ANSWERS), True)


def test_okvqa(tmp_path, read):
    row = {"question_id": "2971475", "question": "What sport?", "image": stored(picture(0))}
    row |= {"answers": ["race"] * 8 + ["motocross"] * 2}
    row |= {"question_type": "eight", "answer_type": "other"}
    folder = write_hub(tmp_path / "OK-VQA", "val2014", [row])
    (example,) = read(format="okvqa", id=str(folder), split="val2014").examples
    assert (example.id, example.answers.count("race")) == ("2971475", 8)
    assert (example.metric, example.extra["kind"]) == ("vqa", "other")

    images = write_images(tmp_path / "images", "COCO_train2014_000000051606.jpg")
    questions = json_rows('{"image_id": 51606, "question": "What is it?", "question_id": 516065}')
    answer = {"answer_id": 1, "raw_answer": "pony tail", "answer": "pony tail"}
    annotation = {"image_id": 51606, "question_id": 516065, "answers": [answer], "confidence": 3}
    q = tmp_path / "OpenEnded_mscoco_train2014_questions.json"
    a = tmp_path / "mscoco_train2014_annotations.json"
    write_json(q, {"questions": questions})
    write_json(a, {"annotations": [annotation]})
    (example,) = read(format="okvqa", questions=q, annotations=a, images=images).examples
    assert (example.id, example.answers) == ("516065", ("pony tail",))
    assert example.image == "COCO_train2014_000000051606.jpg"


def test_gqa_of_the_hub_finds_its_pictures_in_another_subset(tmp_path, read):
    questions = json_rows("""
        {"id": "201307251", "imageId": "n161313", "question": "Is it overcast?", "answer": "no", "types": {"structural": "verify"}}
        {"id": "201640614", "imageId": "n235859", "question": "Who wears the dress?", "answer": "women", "types": {"structural": "query"}}
        {"id": "201640615", "imageId": "n161313", "question": "What is it?", "answer": "sky", "types": {"structural": "query"}}
        {"id": "201640616", "imageId": "n0", "question": "What is there?", "answer": "sky", "types": {"structural": "query"}}
    """)  # noqa: E501
    pictures = [
        {"id": "n161313", "image": stored(picture(0))},
        {"id": "n235859", "image": stored(picture(1))},
    ]
    subsets = ("testdev_balanced_instructions", "testdev_balanced_images")
    folder = write_hub(tmp_path / "GQA", "testdev", questions, subsets[0], pictures=())
    write_hub(folder, "testdev", pictures, subsets[1])
    listed = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: testdev\n    path: {name}/testdev-*\n"
        for name in subsets
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    options = {"id": str(folder), "subset": "testdev_balanced", "split": "testdev"}
    dataset = read(max_rejected=0.5, format="gqa", **options)
    first, second, third = dataset.examples
    assert (first.id, first.answers) == ("201307251", ("no",))
    assert (first.metric, first.extra["kind"]) == ("exact", "verify")
    assert first.image == third.image != second.image
    assert (dataset.root / second.image).read_bytes() == picture(1)
    (fault,) = read_jsonl(dataset.root / "rejected.jsonl")
    assert (fault["line"], fault["id"], fault["reason"]) == (4, "201640616", "image missing")


def test_gqa_official_is_an_object_of_objects(tmp_path, read):
    images = write_images(tmp_path / "images", "2354786.jpg")
    row = {"question": "Is it blue?", "answer": "yes", "imageId": "2354786", "isBalanced": True}
    file = write_json(tmp_path / "questions.json", {"02930152": row})
    (example,) = read(format="gqa", questions=file, images=images, split="val").examples
    assert (example.id, example.image) == ("02930152", "2354786.jpg")
    assert (example.answers, example.split) == (("yes",), "val")


def test_vizwiz(tmp_path, read):
    ten = ["unanswerable"] * 7 + ["unsuitable", "dog", "dog"]
    rows = []
    for i, (answers, category) in enumerate([(ten, "unanswerable"), (["red"] * 10, "other")]):
        row = {"question_id": f"VizWiz_val_{i}.jpg", "question": "What is it?", "answers": answers}
        rows.append(row | {"category": category, "image": stored(picture(i))})
    folder = write_hub(tmp_path / "VizWiz-VQA", "val", rows)
    first, second = read(format="vizwiz", id=str(folder), split="val").examples
    assert (first.id, first.answerable, first.answers) == ("VizWiz_val_0.jpg", False, tuple(ten))
    assert (second.answerable, second.metric) == (True, "vqa")

    images = write_images(tmp_path / "val", "VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg")
    answers = [{"answer": a, "answer_confidence": "no"} for a in ten]
    same = {"question": "What is it?", "answers": answers, "answer_type": "other"}
    official = [same | {"image": f"VizWiz_val_0000000{i}.jpg", "answerable": i} for i in (0, 1)]
    file = write_json(tmp_path / "val.json", official)
    first, second = read(format="vizwiz", questions=file, images=images).examples
    assert (first.id, first.answerable) == ("VizWiz_val_00000000.jpg", False)
    assert (second.answerable, second.answers) == (True, tuple(ten))


def test_textvqa(tmp_path, read):
    answers = ["nokia"] * 9 + ["toshiba"]
    (row,) = json_rows("""
        {"image_id": "003a8ae2ef43b901", "question_id": 34602, "question": "What brand?", "set_name": "val"}
    """)  # noqa: E501
    row |= {"answers": answers, "ocr_tokens": ["NOKIA"], "image": stored(picture(0))}
    folder = write_hub(tmp_path / "textvqa", "validation", [row])
    (example,) = read(format="textvqa", id=str(folder), split="validation").examples
    assert (example.id, example.answers) == ("34602", tuple(answers))
    assert (example.answerable, example.metric) == (True, "vqa")

    images = write_images(tmp_path / "train_images", "003a8ae2ef43b901.jpg")
    data = {"dataset_type": "val", "data": [row | {"image": None}]}
    file = write_json(tmp_path / "TextVQA_0.5.1_val.json", data)
    (example,) = read(format="textvqa", questions=file, images=images).examples
    assert example.image == "003a8ae2ef43b901.jpg"


def test_pope(tmp_path, read, capsys):
    rows = json_rows("""
        {"id": "0", "question_id": "1", "answer": "yes", "category": "random"}
        {"id": "1", "question_id": "2", "answer": "no", "category": "random"}
        {"id": "2", "question_id": "1", "answer": "yes", "category": "popular"}
        {"id": "3", "question_id": "2", "answer": "no", "category": "popular"}
        {"id": "4", "question_id": "1", "answer": "no", "category": "adversarial"}
    """)
    same = {"question": "Is there a dog?", "image_source": "COCO_1", "image": stored(picture(0))}
    folder = write_hub(tmp_path / "POPE", "test", [same | row for row in rows])
    examples = list(read(format="pope", id=str(folder), split="test").examples)
    ids = ["random-1", "random-2", "popular-1", "popular-2", "adversarial-1"]
    assert [e.id for e in examples] == ids
    assert {(e.metric, e.source) for e in examples} == {("yes_no", "pope")}
    counts = "5 questions of POPE-test (random 2, popular 2, adversarial 1), 0 set aside"
    assert counts in capsys.readouterr().out

    name = "COCO_val2014_000000310196.jpg"
    images = write_images(tmp_path / "val2014", name)
    text = "Is there a snowboard in the image?"
    line = {"question_id": 1, "image": name, "text": text, "label": "yes"}
    lines = [line, line | {"question_id": 2, "label": "no"}]
    file = tmp_path / "coco_pope_popular.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read(format="pope", questions=file, images=images).examples
    assert (first.id, first.question, first.answers) == ("popular-1", text, ("yes",))
    assert (second.answers, second.extra) == (("no",), {"kind": "popular"})


def test_tubench(tmp_path, read):
    rows = json_rows("""
        {"answer": "Yes", "dataset": "UVQA", "is_unanswerable": false, "strategy": null, "question_idx": 0}
        {"answer": "Unanswerable", "dataset": "UVQA", "is_unanswerable": true, "strategy": "S.1", "question_idx": 1}
        {"answer": "B", "dataset": "UGeoQA", "is_unanswerable": false, "strategy": null, "question_idx": 0}
        {"answer": "1,250", "dataset": "UTabMWP", "is_unanswerable": false, "strategy": null, "question_idx": 0}
        {"answer": "Friday", "dataset": "UTabMWP", "is_unanswerable": false, "strategy": null, "question_idx": 1}
    """)  # noqa: E501
    same = {"question": "Is it hot?", "image_variant": "original", "item_id": "7"}
    rows = [same | row | {"image": stored(picture(0))} for row in rows]
    folder = write_hub(tmp_path / "TUBench", "test", rows)
    examples = list(read(format="tubench", id=str(folder), split="test").examples)
    assert [(e.id, e.answerable, e.answers, e.metric) for e in examples] == [
        ("UVQA-7-original-0", True, ("Yes",), "yes_no"),
        ("UVQA-7-original-1", False, (), "inclusion"),
        ("UGeoQA-7-original-0", True, ("B",), "choice"),
        ("UTabMWP-7-original-0", True, ("1,250",), "numeric:0"),
        ("UTabMWP-7-original-1", True, ("Friday",), "inclusion"),
    ]
    assert examples[1].extra == {"kind": "UVQA", "strategy": "S.1"}
    metrics = {"no.": "yes_no", "(c)": "choice", "-3.5": "numeric:0"}
    metrics |= {"nan": "inclusion", "": "inclusion"}
    assert {answer: metric_of(answer) for answer in metrics} == metrics


def test_haloquest(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png", "b.png")
    header = "image_name,url,image type,hallucination type,question,groundtruth responses,split"
    dog = "There is no dog.; No dog is in the image"
    rows = [
        ["a.png", "http://x/a.png", "generated", "false premises", "What is the dog doing?", dog],
        ["a.png", "http://x/a.png", "generated", "insufficient context", "Whose, ours?", "Unknown"],
        ["b.png", "http://x/b.png", "real", "visually challenging", "How\nmany?", "Three; 3"],
        ["b.png", "http://x/b.png", "real", "visually challenging", "How many?", "Three"],
    ]
    # As in the official file: a blank name, and a question that comes twice.
    rows.append(["", "http://x/b.png", "real", "visually challenging", "Whose\nis it?", "Hers"])
    rows.append(["a.png", "http://x/a.png", "generated", "false premises", rows[0][4], "It sits"])
    splits = ["train", "train", "train", "eval", "train", "train"]
    file = tmp_path / "haloquest-train.csv"
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerow(header.split(","))
        csv.writer(lines).writerows([*row, split] for row, split in zip(rows, splits, strict=True))
    options = {"format": "haloquest", "questions": file, "images": images}
    first, second, third, nameless = read(**options, split="train", max_rejected=0.2).examples
    assert (nameless.image, nameless.answers) == ("b.png", ("Hers",))
    assert nameless.id.startswith("b.png-")
    assert (first.answerable, second.answerable, third.answerable) == (False, False, True)
    assert first.answers == ("There is no dog.", "No dog is in the image")
    assert (third.answers, third.image, third.question) == (("Three", "3"), "b.png", "How\nmany?")
    assert len({first.id, second.id, third.id}) == 3
    assert first.split == "train"
    assert first.extra == {"kind": "false premises", "image_type": "generated"}


def test_unkvqa(tmp_path, read):
    images = write_images(tmp_path / "images-val", "COCO_val2014_000000000042.jpg")
    same = {"question": "What is it?", "image_name": "COCO_val2014_000000000042.jpg"}
    same["misc"] = {"question_id_origin": 42000, "answer_origin": "glasses"}
    rows = json_rows("""
        {"question_id": 1, "alter_type": "T-1", "answerability": {"binary": true, "other": {"answer": "nothing", "options": {"orig": "glasses", "baseline": "nothing", "random": "camera"}}}}
        {"question_id": 2, "alter_type": "I-2", "answerability": {"binary": false, "other": {"answer": "1", "reason": "3"}}}
        {"question_id": 3, "alter_type": "T-9", "answerability": {"binary": true, "other": null}}
    """)  # noqa: E501
    head = {"answer_map": {"1": "I don't know"}, "reason_map": {}, "alter_type_map": {"T-1": "x"}}
    file = write_json(tmp_path / "annt_val.json", head | {"annotation": [same | r for r in rows]})
    first, second, third = read(format="unkvqa", questions=file, images=images).examples
    assert (first.id, first.answerable, first.answers) == ("1", True, ("nothing",))
    assert first.extra["kind"] == "word replacement"
    assert first.extra["other_options"] == {
        "orig": "glasses",
        "baseline": "nothing",
        "random": "camera",
    }
    assert (second.answerable, second.answers) == (False, ())
    assert second.extra["kind"] == "image mask"
    assert (third.answerable, third.answers, third.extra["kind"]) == (None, (), "T-9")


def test_any_set_by_its_columns(tmp_path, read):
    same = {"score": 0.5, "none": None, "tags": ["a"]}
    rows = []
    for i in range(3):
        row = {"key": i, "q": f"What is {i}?", "gold": f"thing {i}", "known": i != 1}
        rows.append(same | row | {"pic": stored(picture(i))})
    folder = write_hub(tmp_path / "My set", "train", rows, pictures=("pic",))
    options = {"id": str(folder), "split": "train"}
    options |= {"image_column": "pic", "question_column": "q", "answers_column": "gold"}
    columns = {"id_column": "key", "answerable_column": "known"}
    dataset = read(**options, **columns, metric="numeric:0.1", name="a/b c")
    assert dataset.name == "a-b-c"
    first, second, _ = dataset.examples
    assert (first.id, first.answers, first.answerable) == ("0", ("thing 0",), True)
    assert (first.metric, first.source, second.answerable) == ("numeric:0.1", "a-b-c", False)
    assert first.extra == {"score": 0.5, "tags": ["a"]}
    numbered = read(**options, limit=2, name="numbered")
    assert [e.id for e in numbered.examples] == ["train-1", "train-2"]
    with pytest.raises(InbolError, match="3 of 3 set aside: 3 no column 'picture'"):
        read(**(options | {"image_column": "picture"}), name="other")


@pytest.mark.parametrize(
    ("answers", "options", "gold"),
    [
        ([None, "red", math.nan], None, ("red",)),
        ([None], None, ()),
        (math.nan, None, ()),
        (3.0, None, ("3",)),
        ([3.0, 2.5, 7], None, ("3", "2.5", "7")),
        (1.0, ["red", "blue"], ("B",)),
        (1.0, ["2.0", "1.0"], ("1.0",)),
        ("B", ["C", "A", "B"], ("B",)),
        (["(b)", "A"], ["x", "y", "(b)"], ("(b)", "A")),
    ],
)
def test_answers_as_tables_hold_them(tmp_path, read, answers, options, gold):
    images = write_images(tmp_path / "images", "a.png")
    row = {"image": "a.png", "question": "What?", "answers": answers, "options": options}
    file = write_json(tmp_path / "rows.json", [row])
    (example,) = read(id=str(file), images=images).examples
    assert example.answers == gold


def test_ids_as_tables_hold_them(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png")
    same = {"image": "a.png", "question": "What?", "answer": "red"}
    rows = [same | {"id": id} for id in (0, 1.0, "2.0", 2.5, None, True)]
    dataset = read(id=str(write_json(tmp_path / "r.json", rows)), images=images, max_rejected=0.5)
    assert [(e.id, e.answers) for e in dataset.examples] == [
        (i, ("red",)) for i in ("0", "1", "2.0")
    ]
    faults = [(fault.line, fault.reason) for fault in dataset.rejected]
    assert faults == [
        (4, "Expected `str`, got `float` - at `$.id`"),
        (5, "Object missing required field `id`"),
        (6, "Expected `str`, got `bool` - at `$.id`"),
    ]


def test_flags_as_tables_spell_them(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png")
    flags = {"1.0": True, " 0.0": False, "": None, "YES": True, "unanswerable": False}
    lines = [f"a.png,What?,red,{flag}\n" for flag in flags]
    file = tmp_path / "rows.csv"
    file.write_text("".join(["image,question,answers,answerable\n", *lines]))
    examples = read(id=str(file), images=images).examples
    assert [e.answerable for e in examples] == list(flags.values())


def test_an_option_that_has_no_letter(tmp_path, read):
    images = write_images(tmp_path / "images", "a.png")
    row = {"image": "a.png", "question": "What?", "answers": "B"}
    options = [*(f"thing {i}" for i in range(26)), "B"]
    file = write_json(tmp_path / "rows.json", [row | {"options": options}])
    with pytest.raises(InbolError, match="1 Expected `array` of length <= 26"):
        read(id=str(file), images=images)


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
    q = write_json(folder / questions, [{"question_id": 1, "image_id": 1, "question": "What?"}])
    a = write_json(folder / "a.json", [{"question_id": 1, "answers": ANSWERS}])
    options = {"format": "okvqa", "questions": q, "annotations": a, "split": split}
    (example,) = read(**options, images=images).examples
    assert (example.image, example.split) == (f"COCO_{found}_000000000001.jpg", split or found)
    if questions == "q.json":
        with pytest.raises(InbolError, match="split not known"):
            read(**options, name="other", images=images.rename(folder / "pictures"))
