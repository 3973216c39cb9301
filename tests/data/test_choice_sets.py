"""MM-UPD is scored as its own scorer does."""

import csv
import re
import runpy
from pathlib import Path

import pytest
from sample_sets import encoded

from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.responses.outcome import outcome

SCORES = runpy.run_path(str(Path(__file__).parents[2] / "examples/single_benchmarks.py"))


def write_tsv(file, rows):
    """As pandas writes official files: blank cells for what is missing, pictures in base64."""
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file


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
    examples = read(format="mmupd", id=write_tsv(tmp_path / "upd.tsv", rows)).examples
    asked = {"dataset": "u", "domain": "in_domain", "model": "m", "confidence": 0.0, "kind": ""}
    for example, row in zip(examples, rows, strict=True):
        for said in map(str.strip, SAID):
            about = {"type": 3 if row["type"] == "upd" else None, "prediction": said}
            about["outcome"] = outcome(example, said)
            counted = SCORES["is_right"](Prediction.from_json(example.to_json() | asked | about))
            expected = official_hit(row, said, upd, setting == "instruction")
            assert counted == expected, (said, row["type"])
