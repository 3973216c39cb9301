"""Multiple-choice sets and MME, from files in their own schemas or copies of their repositories."""

import base64
import csv
import json
import re
import runpy
from pathlib import Path

import pytest
from sample_sets import json_rows, picture, stored, write_hub, write_images, write_json

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.prompts import BARE
from inbol_jax.responses.matching import CORRECT_AT
from inbol_jax.responses.outcome import outcome
from inbol_jax.responses.vqa_accuracy import vqa_soft_score

SCORES = runpy.run_path(str(Path(__file__).parents[2] / "examples/single_benchmarks.py"))


def write_tsv(file, rows):
    """As pandas writes official files: blank cells for what is missing, pictures in base64."""
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file


def encoded(number):
    return base64.b64encode(picture(number)).decode()


def test_mmupd(tmp_path, read):
    same = {"hint": "", "question": "What is it?", "A": "a cat", "B": "a\tdog", "C": "", "D": ""}
    same |= {"E": "", "answer": "B", "masked_answer": "", "category": "object_localization"}
    same |= {"image": encoded(0), "source": "x", "l2-category": "coarse", "split": "test"}
    upd = {"type": "upd", "answer": "F", "masked_answer": "a bird"}
    none = {"C": "None of the above", "answer": "C", "hint": "Look."}
    rows = [
        {"index": 7} | same | {"type": "standard"},
        {"index": 7} | same | upd,
        # The setting "option", with a hint and its options in another order.
        {"index": 1_000_008} | same | upd | none,
        {"index": 8} | same | {"type": "standard", "image": "not base64!"},
        {"index": 9} | same | {"type": "standard", "image": "iVBORw0KGé"},
    ]  # fmt: skip
    file = write_tsv(tmp_path / "mmaad_20240303_base.tsv", rows)
    dataset = read(format="mmupd", questions=file, max_rejected=0.4)
    standard, unanswerable, option = dataset.examples
    assert (standard.id, standard.answers, standard.answerable) == ("7-standard", ("B",), True)
    assert (standard.options, standard.metric) == (("a cat", "a\tdog"), "choice")
    assert (dataset.root / standard.image).read_bytes() == picture(0)
    assert (unanswerable.id, unanswerable.answers, unanswerable.answerable) == ("7-upd", (), False)
    assert unanswerable.extra["masked_answer"] == "a bird"
    assert standard.extra["pair"] == unanswerable.extra["pair"] == "7" != option.extra["pair"]
    assert standard.extra["kind"] == "coarse"
    assert (option.answers, option.answerable) == (("C",), False)
    assert BARE.text(option) == "Look.\nWhat is it?\nA. a cat\nB. a\tdog\nC. None of the above"
    faults = [(f["id"], f["reason"]) for f in read_jsonl(dataset.root / "rejected.jsonl")]
    assert faults == [(f"{i}-standard", "image not base64") for i in (8, 9)]


NONE = {"aad": "None of the above", "ivqd": "The image and question are irrelevant."}
NONE["iasd"] = NONE["aad"]
SAID = """A|B|(B)|B. a dog|a dog|It is a dog.|A. a cat|C|D|E|F|(F)|F.|a bird|It is a bird.|C. a bird
    |a fish|None of the above|C. None of the above|F. None of the above|A. I cannot answer.
    |I cannot answer.|All provided options are incorrect.|The image and question are irrelevant.
    |F. The image and question are irrelevant.|The image is incompatible with the question."""
SAID = SAID.split("|")


def official_hit(row, said, upd, instructed):
    """What MM-UPD's scorer makes of a response, with a reader of texts in place of its model.

    The letter of an offered option, or an instructed "F", must be the answer. If the response has
    none, options are added to those offered: where none is right, the masked answer (but to IVQD)
    and one that says so. The response must mean the answer, or one of the added ones.
    """
    offered = {letter: row[letter] for letter in "ABCDE" if row[letter]}
    unanswerable = row["type"] == "upd"
    letter = (re.match(r"\(?([A-G])(?:[.)]|$)", said) or [""] * 2)[1]
    if letter and letter in {*offered, *("F" * instructed)}:
        return letter == row["answer"]
    added = [row["masked_answer"]] * (unanswerable and upd != "ivqd")
    added = dict(zip("ABCDEFG"[len(offered) :], [*added, "none"], strict=False))
    meanings = offered | added | ({"F": "none"} if instructed else {})
    says_none = re.search("none of|cannot answer|incorrect|incompatible|irrelevant", said, re.I)
    texts = {k: v for k, v in meanings.items() if v in said or (v == "none" and says_none)}
    meant = letter if letter in meanings else next(iter(texts), "H")
    right = {row["answer"]} | ({*added, *("F" * instructed)} if unanswerable else set())
    return meant in right


@pytest.mark.parametrize("setting", ["base", "option", "instruction"])
@pytest.mark.parametrize("upd", ["aad", "iasd", "ivqd"])
def test_mmupd_counts_as_its_scorer(tmp_path, read, upd, setting):
    same = {"index": 7, "hint": "", "question": "What is it?", "A": "a cat", "B": "a dog", "C": ""}
    same |= {"D": "", "E": "", "category": "c", "image": encoded(0), "source": "x", "split": "test"}
    same |= {"l2-category": "l", "type": "standard", "answer": "B", "masked_answer": ""}
    unanswerable = {"type": "upd", "answer": "F"}
    if upd != "ivqd":
        unanswerable["masked_answer"] = "a bird"
    if setting == "option":
        same["C"], unanswerable["answer"] = NONE[upd], "C"
    if setting == "instruction":
        same["question"] += f' If no option is right, answer "F. {NONE[upd]}"'
    rows = [same, same | unanswerable]
    examples = read(format="mmupd", questions=write_tsv(tmp_path / "upd.tsv", rows)).examples
    asked = {"dataset": "u", "domain": "in_domain", "model": "m", "confidence": 0.0, "kind": ""}
    for example, row in zip(examples, rows, strict=True):
        for said in map(str.strip, SAID):
            about = {"type": 3 if row["type"] == "upd" else None, "prediction": said}
            about["outcome"] = outcome(example, said)
            counted = SCORES["is_right"](Prediction.from_json(example.to_json() | asked | about))
            expected = official_hit(row, said, upd, setting == "instruction")
            assert counted == expected, (said, row["type"])


def test_mmupd_of_the_hub_has_no_index(tmp_path, read):
    row = {"task": "mmaad", "image": stored(picture(0)), "question": "What?", "answer": "A"}
    row |= {"A": "cat", "B": "dog", "C": None, "D": "nan", "hint": None, "category": "c"}
    rows = [row | {"l2-category": "l", "type": type, "source": "s"} for type in ("standard", "aad")]
    folder = write_hub(tmp_path / "MM-UPD", "train", rows)
    standard, absent = read(format="mmupd", id=str(folder), split="train").examples
    assert (standard.id, standard.answerable) == ("train-1", True)
    assert (absent.answerable, absent.options) == (False, ("cat", "dog"))
    assert "pair" not in absent.extra


def test_mmbench(tmp_path, read):
    same = {"question": "Which?", "hint": "nan", "A": "3", "B": "4", "C": "", "D": ""}
    same |= {"answer": "A"}
    same |= {"category": "c", "source": "s", "L2-category": "logic", "comment": "", "split": "dev"}
    rows = [
        {"index": 241} | same | {"image": encoded(0)},
        {"index": 1_000_241} | same | {"A": "4", "B": "3", "answer": "B", "image": "241"},
        {"index": 242} | same | {"answer": "", "image": encoded(1)},
        {"index": 243} | same | {"answer": "E", "image": encoded(1)},
    ]
    file = write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)
    dataset = read(format="mmbench", questions=file, max_rejected=0.3)
    first, rotated, test = dataset.examples
    assert (first.id, first.question, first.options) == ("241", "Which?", ("3", "4"))
    assert first.image == rotated.image
    assert first.extra["pair"] == rotated.extra["pair"] == "241"
    assert (first.extra["kind"], test.answerable) == ("logic", None)
    (fault,) = read_jsonl(dataset.root / "rejected.jsonl")
    assert (fault["id"], fault["reason"]) == ("243", "answer none of the options")


def test_scienceqa(tmp_path, read):
    row = {"question": "Which is it?", "choices": ["solid", "gas"], "answer": 1, "hint": "Look."}
    row |= {"task": "closed choice", "subject": "natural science", "topic": "physics"}
    row |= {"lecture": "A solid ...", "solution": "It is gas."}
    rows = [row | {"image": stored(picture(0))}, row | {"image": None, "hint": ""}]
    folder = write_hub(tmp_path / "ScienceQA", "validation", rows)
    with_image, text_alone = read(format="scienceqa", id=str(folder), split="validation").examples
    assert (with_image.id, with_image.answers) == ("validation-1", ("B",))
    assert BARE.text(with_image) == "Look.\nWhich is it?\nA. solid\nB. gas"
    assert len(with_image.images) == 1
    assert text_alone.images == ()

    write_images(tmp_path / "images/val/5", "image.png")
    official = {"5": row | {"image": "image.png", "split": "val"}}
    official |= {"6": row | {"image": None, "split": "val", "answer": 2}}
    official |= {"7": row | {"image": None, "split": "test"}}
    file = write_json(tmp_path / "problems.json", official)
    options = {"format": "scienceqa", "questions": file, "images": tmp_path / "images"}
    dataset = read(**options, split="val", max_rejected=0.5)
    (example,) = dataset.examples
    assert (example.id, example.image, example.split) == ("5", "val/5/image.png", "val")
    (fault,) = read_jsonl(tmp_path / "out/data/problems-val/rejected.jsonl")
    assert fault["reason"] == "answer not the number of an option"


def test_mmmu(tmp_path, read):
    pictures = {f"image_{i}": None for i in range(1, 8)}
    row = {"question": "Which of <image 1> and <image 2>?", "options": "['$6', \"it's 7\"]"}
    row |= {"id": "validation_Math_1", "answer": "B", "question_type": "multiple-choice"}
    row |= {"explanation": "", "subfield": "Algebra"} | pictures
    row |= {"image_1": stored(picture(0)), "image_2": stored(picture(1))}
    open_answer = {"id": "validation_Math_2", "options": "[]", "answer": "['24/7', '3.4']"}
    number = {"id": "validation_Math_3", "options": "[]", "answer": "8.4"}
    rows = [row, row | open_answer, row | number, row | {"id": "test_Math_1", "answer": "?"}]
    folder = write_hub(tmp_path / "MMMU", "validation", rows, pictures=tuple(pictures))
    dataset = read(format="mmmu", id=str(folder), split="validation")
    choice, words, number, test = dataset.examples
    found = [(dataset.root / name).read_bytes() for name in choice.images]
    assert found == [picture(0), picture(1)]
    assert (choice.options, choice.answers, choice.metric) == (("$6", "it's 7"), ("B",), "choice")
    assert (words.answers, words.options, words.metric) == (("24/7", "3.4"), (), "inclusion")
    assert (number.answers, number.metric) == (("8.4",), "numeric:0")
    assert (test.answers, test.answerable) == ((), None)


@pytest.mark.parametrize("as_text", [False, True])
def test_aokvqa(tmp_path, read, as_text):
    direct = ["ride", "ride", *["move"] * 8]
    (row,) = json_rows("""
        {"split": "val", "image_id": 299207, "question_id": "22MexNkBPpdZGX6sxbxVBH", "question": "What is he doing?", "choices": ["ride", "eat", "move", "sing"], "correct_choice_idx": 2, "difficult_direct_answer": false, "rationales": ["x"]}
    """)  # noqa: E501
    row["direct_answers"] = str(direct) if as_text else direct  # one copy on the hub has a text
    images = write_images(tmp_path / "val2017", "000000299207.jpg")
    options = {"questions": write_json(tmp_path / "aokvqa_v1p0_val.json", [row]), "images": images}
    (choice,) = read(format="aokvqa", **options).examples
    assert (choice.id, choice.image) == (row["question_id"], "000000299207.jpg")
    assert (choice.answers, choice.options[2], choice.metric) == (("C",), "move", "choice")
    (words,) = read(format="aokvqa_direct", **options, name="direct").examples
    assert (words.answers, words.options, words.metric) == (tuple(direct), (), "vqa")
    folder = write_hub(tmp_path / "A-OKVQA", "val", [row | {"image": stored(picture(0))}])
    (copy,) = read(format="aokvqa", id=str(folder), split="val").examples
    assert (copy.answers, copy.extra) == (choice.answers, {"difficult_direct_answer": False})


def test_direct_answers_are_correct_where_the_official_score_says_so():
    """That is min(1, equal answers / 3) of ten."""
    for equal in range(11):
        answers = ["ride"] * equal + [f"other {i}" for i in range(10 - equal)]
        official = min(1, equal / 3)
        assert (vqa_soft_score("ride", answers) >= CORRECT_AT) == (official >= CORRECT_AT)


def test_mme(tmp_path, read):
    same = {"image": stored(picture(0)), "category": "OCR"}
    rows = [
        same | {"question_id": "0020.png", "question": f"Is it {word}?", "answer": answer}
        for word, answer in (("red", "Yes"), ("blue", "No"))
    ]
    rows.append(rows[0] | {"category": "count"})
    folder = write_hub(tmp_path / "MME", "test", rows)
    first, second, other = read(format="mme", id=str(folder), split="test").examples
    assert first.extra["pair"] == second.extra["pair"] == "OCR-0020.png" != other.extra["pair"]
    assert first.id != second.id
    assert (first.answers, second.answers, first.metric) == (("Yes",), ("No",), "yes_no")
    assert first.extra["kind"] == "OCR"


def test_any_multiple_choice_set_by_its_columns(tmp_path, read):
    same = {"image": ["0.png", "1.png"], "question": "Which?", "choices": ["x", "y"]}
    rows = [
        same | {"id": 0, "answers": 1},
        same | {"id": 1, "answers": "x", "image": []},
        same | {"id": 2, "answers": "(b)", "image": "1.png", "choices": "['x', 'y']"},
        same | {"id": 3, "answers": 4},
        same | {"id": 4, "answers": "z"},
        same | {"id": 5, "answers": "x", "choices": {"a": "x"}},
        same | {"id": 6, "answers": "x", "image": None},
        same | {"id": 7, "answers": "x", "image": [["0.png"]]},
    ]
    write_images(tmp_path / "pictures", "0.png", "1.png")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"id": str(file), "images": tmp_path / "pictures"}
    dataset = read(**options, max_rejected=0.7)
    assert [(e.id, e.images, e.answers) for e in dataset.examples] == [
        ("0", ("0.png", "1.png"), ("B",)),
        ("1", (), ("x",)),
        ("2", ("1.png",), ("(b)",)),
    ]
    assert {(e.options, e.metric) for e in dataset.examples} == {(("x", "y"), "choice")}
    rejected = read_jsonl(tmp_path / "out/data/rows/rejected.jsonl")
    assert {row["id"]: row["reason"] for row in rejected} == {
        "3": "answer not the number of an option",
        "4": "answer none of the options",
        "5": "options not a list",
        "6": "image missing",
        "7": "image a list of lists (one list of pictures or paths is read)",
    }
    with pytest.raises(
        InbolError, match=r"8 no column 'offered' \(first: 0, there are image, question, "
    ):
        read(**options, options_column="offered", name="other")
