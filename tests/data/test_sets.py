"""Each set is read from a file in its own schema, or from a copy of its repository on the hub."""

import csv
import json

import pytest
from sample_sets import (
    ANSWERS,
    AS_OBJECTS,
    encoded,
    picture,
    stored,
    write_hub,
    write_images,
    write_json,
)

from inbol_jax.data.sets import SETS
from inbol_jax.errors import InbolError

COCO = "COCO_val2014_000000000042.jpg"
HALO = {"image_name": "a.png", "url": "http://x/a.png", "image type": "real", "split": "train"}
MCQ = {"hint": "nan", "A": "3", "B": "4", "C": "", "D": "", "answer": "A", "L2-category": "logic",
       "source": "s", "category": "c", "comment": "", "split": "dev"}  # fmt: skip
UPD = MCQ | {"hint": "", "E": "", "masked_answer": "", "l2-category": "coarse", "type": "standard"}
UNK = {"image_name": "a.png", "alter_type": "T-9"}

# (format, name of the official file or "hub", rows, what the records hold). A row without a
# question asks "What?", and one of the hub has picture 0; of None, nothing is looked for.
CASES = [
    ("vqav2", "hub", [{"question_id": 0, "answers": AS_OBJECTS, "answer_type": "other"},
                      {"question_id": 1, "answers": [], "answer_type": "other"}],
     [{"id": "0", "answers": ANSWERS, "answerable": True, "metric": "vqa", "split": "val",
       "source": "vqav2", "kind": "other"}, {"answers": [], "answerable": None}]),
    ("vqav2", "hub", [{"question_id": 1, "answers": {"answer": ANSWERS, "other": [1]}}],
     [{"answers": ANSWERS}]),
    ("okvqa", "hub", [{"question_id": "297", "answers": ["race"] * 8 + ["motocross"] * 2}],
     [{"id": "297", "answers": ["race"] * 8 + ["motocross"] * 2, "metric": "vqa"}]),
    ("gqa", "questions.json", {"029": {"question": "What?", "answer": "yes", "imageId": "23"}},
     [{"id": "029", "images": ["23.jpg"], "answers": ["yes"], "metric": "exact"}]),
    ("vizwiz", "hub", [{"question_id": "V_0.jpg", "answers": ["dog"], "category": "unanswerable"},
                       {"question_id": "V_1.jpg", "answers": ["red"], "category": "other"}],
     [{"id": "V_0.jpg", "answerable": False, "answers": ["dog"]}, {"answerable": True}]),
    ("vizwiz", "val.json", [{"image": "V.jpg", "answers": AS_OBJECTS, "answerable": 0}],
     [{"id": "V.jpg", "answerable": False, "answers": ANSWERS, "metric": "vqa"}]),
    ("textvqa", "TextVQA_val.json", {"data": [{"image_id": "003", "question_id": 34,
                                               "answers": ["nokia"], "ocr_tokens": ["N"]}]},
     [{"id": "34", "images": ["003.jpg"], "answers": ["nokia"]}]),
    ("pope", "hub", [{"question_id": "1", "answer": "yes", "category": "random"},
                     {"question_id": "1", "answer": "no", "category": "popular"}],
     [{"id": "random-1", "answers": ["yes"], "metric": "yes_no"}, {"id": "popular-1"}]),
    ("pope", "coco_pope_popular.json", [{"question_id": 1, "image": COCO, "text": "A dog?",
                                         "label": "yes"},
                                        {"question_id": 2, "image": COCO, "label": "no"}],
     [{"id": "popular-1", "question": "A dog?", "answers": ["yes"], "kind": "popular"},
      {"question": "What?", "answers": ["no"]}]),
    ("haloquest", "haloquest.csv", [
        HALO | {"hallucination type": "false premises", "groundtruth responses": "No dog.; No"},
        HALO | {"hallucination type": "visually challenging", "groundtruth responses": "Three; 3",
                "question": "How\nmany?", "image_name": ""},
        HALO | {"hallucination type": "false premises", "groundtruth responses": "x",
                "question": "Of another split?", "split": "eval"}],
     [{"answerable": False, "answers": ["No dog.", "No"], "split": "train", "image_type": "real",
       "kind": "false premises"},
      {"answerable": True, "answers": ["Three", "3"], "images": ["a.png"]}]),
    ("unkvqa", "annt_val.json", {"annotation": [
        UNK | {"question_id": 1, "alter_type": "T-1", "answerability": {"binary": True, "other": {
            "answer": "nothing", "options": {"orig": "glasses"}}}},
        UNK | {"question_id": 2, "answerability": {"binary": False, "other": {"answer": "1"}}},
        UNK | {"question_id": 3, "answerability": {"binary": True, "other": None}}]},
     [{"id": "1", "answerable": True, "answers": ["nothing"], "kind": "word replacement",
       "other_options": {"orig": "glasses"}},
      {"answerable": False, "answers": []}, {"answerable": None, "kind": "T-9"}]),
    ("mmupd", "mmaad_base.tsv", [
        {"index": 7, "image": encoded(0)} | UPD,
        {"index": 7, "image": encoded(0)} | UPD | {
            "type": "upd", "answer": "F", "masked_answer": "9"},
        {"index": 1_000_008, "image": encoded(0)} | UPD | {
            "type": "upd", "answer": "C", "C": "None of the above", "hint": "Look."}],
     [{"id": "7-standard", "answers": ["A"], "options": ["3", "4"], "metric": "choice", "pair": "7",
       "kind": "coarse"},
      {"id": "7-upd", "answers": [], "answerable": False, "masked_answer": "9", "pair": "7"},
      {"answers": ["C"], "answerable": False, "question": "Look.\nWhat?", "pair": "8"}]),
    ("mmupd", "hub", [{"A": "cat", "B": "dog", "C": None, "D": "nan", "answer": "A", "type": kind}
                      for kind in ("standard", "aad")],
     [{"id": "val-1", "answerable": True}, {"answerable": False, "options": ["cat", "dog"]}]),
    ("mmbench", "MMBench_DEV_EN.tsv", [
        {"index": 241, "image": encoded(0)} | MCQ,
        {"index": 1_000_241, "image": "241"} | MCQ | {"A": "4", "B": "3", "answer": "B"},
        {"index": 242, "image": encoded(1)} | MCQ | {"answer": ""}],
     [{"id": "241", "question": "What?", "options": ["3", "4"], "pair": "241", "kind": "logic"},
      {"pair": "241", "answers": ["B"]}, {"answerable": None}]),
]  # fmt: skip


def write(tmp_path, name, rows):
    """The options by which rows are read, as a copy of the hub or as an official file."""
    if name == "hub":
        rows = [{"question": "What?", "image": stored(picture(0))} | row for row in rows]
        return {"id": write_hub(tmp_path / "hub", "val", rows), "split": "val"}
    file = tmp_path / name
    if name.endswith((".csv", ".tsv")):
        with file.open("w", newline="") as lines:
            rows = [{"question": "What?"} | row for row in rows]
            separator = "\t" if name.endswith(".tsv") else ","
            writer = csv.DictWriter(lines, rows[0], delimiter=separator, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    elif isinstance(rows, list):
        asked = [row if "text" in row else {"question": "What?"} | row for row in rows]
        lines = list(map(json.dumps, asked))
        file.write_text("\n".join(lines) if "pope" in name else f"[{','.join(lines)}]")
    else:
        head = {"question": "What?"}
        lists = {k: [head | r for r in v] if isinstance(v, list) else v for k, v in rows.items()}
        write_json(file, lists)
    if name.endswith(".tsv"):
        return {"id": file}
    images = write_images(tmp_path / "images", "23.jpg", "V.jpg", "003.jpg", COCO, "a.png")
    return {"id": file, "images": images}


@pytest.mark.parametrize(
    ("format", "name", "rows", "expected"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_a_set_in_its_own_schema(tmp_path, read, format, name, rows, expected):
    options = write(tmp_path, name, rows)
    if SETS[format].splits and name != "hub":
        options["split"] = "train"
    examples = list(read(format=format, **options).examples)
    assert len(examples) == len(expected)
    for example, facts in zip(examples, expected, strict=True):
        row = example.to_json()
        assert {name: row.get(name) for name in facts} == facts
    assert len({e.id for e in examples}) == len(examples)


def test_every_set_is_tested():
    assert {case[0] for case in CASES} == {*SETS} - {"columns"}


def test_pictures_that_questions_share_are_there_once(tmp_path, read):
    rows = [{"question_id": i, "image": stored(picture(i // 2, "JPEG")), "answers": ["x"]}
            for i in range(4)]  # fmt: skip
    dataset = read(format="vqav2", **write(tmp_path, "hub", rows))
    a, b, c, d = (e.image for e in dataset.examples)
    assert a == b != c == d
    assert (dataset.root / a).read_bytes() == picture(0, "JPEG")
    assert a.endswith(".jpg")
    assert len([p for p in (dataset.root / "images").rglob("*") if p.is_file()]) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "not base64!"}, "image not base64"),
        ({"image": "iVBORw0KGé"}, "image not base64"),
        ({"image": encoded(0), "answer": "E"}, "answer none of the options"),
        ({"image": ""}, "image missing"),
    ],
)
def test_a_row_of_a_choice_set_that_is_set_aside(tmp_path, read, row, reason):
    sound = {"index": 0, "image": encoded(0)} | MCQ
    file = write(tmp_path, "MMBench.tsv", [sound, {"index": 1, "image": ""} | MCQ | row])
    (fault,) = read(format="mmbench", **file, max_rejected=1.0).rejected
    assert (fault.id, fault.reason) == ("1", reason)


@pytest.mark.parametrize(
    ("file", "split", "found"),
    [
        ("q_train2014.json", "val2014", "val2014"),
        ("q_train2014.json", "dev", "train2014"),
        ("q.json", None, "test2015"),
    ],
)
def test_the_split_of_coco_pictures(tmp_path, read, file, split, found):
    folder = tmp_path / "train2014 of coco"  # the name of a folder above says nothing
    images = write_images(folder / "test2015", f"COCO_{found}_000000000001.jpg")
    q = write_json(folder / file, [{"question_id": 1, "image_id": 1, "question": "What?"}])
    a = write_json(folder / "a.json", [{"question_id": 1, "answers": ANSWERS}])
    options = {"format": "okvqa", "id": q, "annotations": a, "split": split}
    (example,) = read(**options, images=images).examples
    assert (example.image, example.split) == (f"COCO_{found}_000000000001.jpg", split or found)
    if file == "q.json":
        with pytest.raises(InbolError, match="split not known"):
            read(**options, name="other", images=images.rename(folder / "pictures"))


def test_any_set_by_its_columns(tmp_path, read):
    rows = [
        {"question_id": i, "q": f"What is {i}?", "gold": f"thing {i}", "answerable": i != 1,
         "score": 0.5, "none": None, "tags": ["a"], "pic": stored(picture(i))} for i in range(3)
    ]  # fmt: skip
    options = {"id": write_hub(tmp_path / "My set", "train", rows, pictures=("pic",))}
    options |= {"split": "train", "question_column": "q", "answers_column": "gold"}
    dataset = read(**options, image_column="pic", metric="numeric", name="a b")
    assert dataset.name == "a b"
    first, second, _ = dataset.examples
    assert (first.id, first.answers, first.answerable) == ("0", ("thing 0",), True)
    assert (first.metric, first.source, second.answerable) == ("numeric", "a b", False)
    assert first.extra == {"score": 0.5, "tags": ["a"]}
    with pytest.raises(InbolError, match=r"3 of 3 set aside: 3 image missing \(first: 0, the row"):
        read(**options, name="other")


NAN = float("nan")


@pytest.mark.parametrize(
    ("answers", "options", "gold"),
    [
        ([None, "red", NAN], None, ["red"]),
        (NAN, None, []),
        (3.0, None, ["3"]),
        ([3.0, 2.5, 7], None, ["3", "2.5", "7"]),
        ("['red', 'blue']", None, ["red", "blue"]),
        ('["red", null, "it\'s"]', None, ["red", "it's"]),
        ("['red' 'dark\\n blue'\n \"it's\"]", None, ["red", "dark\n blue", "it's"]),
        ("[1 -2 2.5]", None, ["1", "-2", "2.5"]),
        ("[{'answer': 'red', 'n': -1}\n {'answer': 'blue'}]", None, ["red", "blue"]),
        ("['red' ... 'blue']", None, "list unreadable"),
        ("[unclear]", None, "list unreadable"),
        ("['red'].pop()+[1]", None, "list unreadable"),
        ("[0, 5)", None, ["[0, 5)"]),
        ("y", "['x' 'y']", ["y"]),
        (1.0, ["red", "blue"], ["B"]),
        ("1", ["red", "blue"], ["B"]),
        (1, ["1", "2", "3"], ["B"]),
        (1, [1, 2, 3], ["1"]),
        ("1", ["1", "2", "3"], ["1"]),
        (1.0, ["2.0", "1.0"], ["1.0"]),
        ("B", ["C", "A", "B"], ["B"]),
        (1, ["C", "A", "B"], ["A"]),
        (["(b)", "A"], ["x", "y", "(b)"], ["(b)", "A"]),
        ("x", "['x', 'y']", ["x"]),
        (4, ["x", "y"], "answer not the number of an option"),
        ("z", ["x", "y"], "answer none of the options"),
        ("x", {"a": "x"}, "options not a list"),
        ("B", ["x"] * 27, "Expected `array` of length <= 26 - at `$.options`"),
    ],
)  # fmt: skip
def test_answers_and_options_as_tables_hold_them(tmp_path, read, answers, options, gold):
    row = {"id": 0, "image": [], "question": "What?", "answers": answers, "options": options}
    sound = row | {"id": 1, "answers": "x", "options": None}
    dataset = read(id=write_json(tmp_path / "rows.json", [row, sound]), max_rejected=0.5)
    found = [r.reason for r in dataset.rejected] or [list(dataset.examples[0].answers)]
    assert found == [gold]


def test_ids_as_tables_hold_them(tmp_path, read):
    same = {"image": [], "question": "What?", "answer": "red"}
    rows = [same | {"id": id} for id in (0, 1.0, "2.0", 2.5, None, True)]
    dataset = read(id=write_json(tmp_path / "r.json", rows), max_rejected=0.5)
    assert [(e.id, e.answers) for e in dataset.examples] == [
        (i, ("red",)) for i in ("0", "1", "2.0")
    ]
    faults = [(fault.line, fault.reason) for fault in dataset.rejected]
    assert faults == [
        (4, "Expected `str`, got `float` - at `$.id`"),
        (5, "Object missing required field `id`"),
        (6, "Expected `str`, got `bool` - at `$.id`"),
    ]
    nameless = read(id=write_json(tmp_path / "n.json", [same, same]), split="dev")
    assert [e.id for e in nameless.examples] == ["dev-1", "dev-2"]


def test_flags_as_tables_spell_them(tmp_path, read):
    flags = {"1.0": True, " 0.0": False, "": None, "YES": True, "unanswerable": False}
    lines = [f"[],What?,red,{flag}\n" for flag in flags]
    file = tmp_path / "rows.csv"
    file.write_text("".join(["image,question,answers,answerable\n", *lines]))
    assert [e.answerable for e in read(id=file).examples] == list(flags.values())
