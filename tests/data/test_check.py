import json
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sample_sets import write_json

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder


def check(data, out, *options):
    """Runs `inbol data check`. Returns its exit code."""
    return main(["data", "check", "--data", str(data), "--out", str(out), *map(str, options)])


def save(path, number, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def bomb(path):
    """A PNG whose header promises ten thousand million pixels, in a hundred bytes."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def corrupt(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 24] = bytes(24)
    path.write_bytes(data)


def spoil(fault, row, path, outside):
    """Puts a fault into a row or its picture. Returns the cause that is to be reported."""
    match fault:
        case "corrupt":
            corrupt(path)
            return "image damaged"
        case "truncated":
            path.write_bytes(path.read_bytes()[:-60])
            return "image damaged"
        case "no image":
            path.write_bytes(b"<html>not found</html>")
            return "not an image"
        case "bomb":
            bomb(path)
            return "image too large"
        case "zero byte":
            path.write_bytes(b"")
            return "image empty"
        case "wrong mode":
            Image.fromarray(np.zeros((4, 4), np.float32)).save(path, "TIFF")
            return "image mode not supported"
        case "missing":
            path.unlink()
            return "image missing"
        case "duplicated id":
            row["id"] = "q0"
            return "duplicated id"
        case "no answer":
            row["answers"] = [""]
            return "answerable without answers"
        case "not UTF-8":
            row |= {"question": "caf\udce9?", "id": ""}
            return "not UTF-8"
        case "climbs out":
            row["images"] = [f"images/../../outside/{row['id']}.png"]
            return "image outside the folder"
        case "link out":
            path.unlink()
            path.symlink_to(outside)
            return "image outside the folder"
        case "absolute":
            row["images"] = [str(outside)]
            return "image path absolute"


FAULTS = ["corrupt", "truncated", "no image", "bomb", "zero byte", "wrong mode", "missing"]
FAULTS += ["duplicated id", "no answer", "not UTF-8", "climbs out", "link out", "absolute"]


def faulty_set(folder, records, faults, seed):
    """A dataset folder with faults in it. Returns {index of a record: (its id, the cause)}."""
    rng = random.Random(seed)
    outside = folder.parent / "outside.png"
    save(outside, 0)
    # Each fault comes twice, then they are drawn at random; a record has one fault at most.
    drawn = [rng.choice(FAULTS) for _ in range(faults - 2 * len(FAULTS))]
    chosen = dict(zip(rng.sample(range(1, records), faults), FAULTS * 2 + drawn, strict=False))
    expected, lines = {}, []
    for i in range(records):
        row = {"id": f"q{i}", "images": [f"images/{i}.png"], "question": f"What is {i}?"}
        row |= {"answers": ["red"] * 3, "answerable": True}
        path = folder / row["images"][0]
        save(path, i, compress_level=1)
        if i in chosen:
            cause = spoil(chosen[i], row, path, outside)
            expected[i] = (row["id"], cause)
        lines.append(json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape"))
    (folder / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return expected


@pytest.mark.parametrize(
    ("records", "faults", "seed"),
    [(260, 26, 0), pytest.param(10_000, 1000, 1, marks=pytest.mark.slow)],
)
def test_every_fault_is_reported_and_all_else_comes_through(
    tmp_path, capsys, records, faults, seed
):
    data, out = tmp_path / "set", tmp_path / "out"
    expected = faulty_set(data, records, faults, seed)
    assert check(data, out) == 0, "a tenth is accepted"
    rejected = list(read_jsonl(out / "rejected.jsonl"))
    assert sorted((r["id"] or "", r["reason"]) for r in rejected) == sorted(expected.values())
    sound = load_dataset_folder(out, max_rejected=0)
    assert [e.id for e in sound.examples] == [f"q{i}" for i in range(records) if i not in expected]
    assert sound.root.samefile(data)
    output = capsys.readouterr().out
    causes = [cause for _, cause in expected.values()]
    for cause in set(causes):
        count = str(causes.count(cause))
        lines = [line for line in output.splitlines() if line.split()[0] == count]
        assert any(cause in line for line in lines), cause
    counts = f"{records - faults:,} of {records:,} records of set are sound, {faults:,} set aside"
    assert counts in output

    assert check(data, out, "--max-rejected", 0.05) == 2
    message = f"{faults:,} of {records:,} records cannot be used, more than --max-rejected 0.05"
    assert message in capsys.readouterr().err
    written = list(read_jsonl(out / "rejected.jsonl"))
    assert len(written) == faults, "what is wrong is written all the same"


def rows_about(folder, *images):
    folder.mkdir(exist_ok=True)
    with (folder / "data.jsonl").open("w") as file:
        for i, image in enumerate(images):
            image = [image] if isinstance(image, str) else image
            row = {"id": f"{folder.name}-{i}", "images": image, "question": "What?"}
            file.write(json.dumps(row | {"answers": ["red"]}) + "\n")


def test_gold_answers_that_do_not_score_right_are_named(tmp_path, capsys):
    data, out = tmp_path / "set", tmp_path / "out"
    save(data / "a.png", 0)
    row = {"images": ["a.png"], "question": "Which country?", "answerable": True}
    aliases = ["US", "USA", "United States", "America"]
    rows = [
        row | {"id": "alternatives", "answers": aliases},
        row | {"id": "votes", "answers": aliases, "metric": "vqa"},
        row | {"id": "refused", "answers": ["unknown"]},
        row | {"id": "choice", "answers": ["-5"], "options": ["5", "-5"]},
    ]
    (data / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert check(data, out) == 0
    vqa = "answers are alternatives, not ten votes (--data.metric inclusion)"
    assert {one["id"]: one["reason"] for one in read_jsonl(out / "gold.jsonl")} == {
        "votes": vqa,
        "refused": "gold answer reads as a refusal",
    }
    output = capsys.readouterr().out
    assert "2 questions do not score right when their own gold answers are the response" in output
    assert f"{vqa} first: votes" in output
    assert "4 of 4 records of set are sound" in output
    assert json.loads((out / "check.json").read_text())["gold_not_right"][vqa] == 1


def test_images_shared_with_another_set_are_found(tmp_path, capsys):
    train, test, other, out = (tmp_path / name for name in ("train", "test", "other", "out"))
    save(train / "a.png", 1)
    save(train / "b.png", 2)
    save(train / "c.png", 3)
    save(test / "x.png", 2, compress_level=0)  # the same pixels in another file
    save(test / "y.bmp", 3)  # and format
    save(test / "z.png", 4)
    save(other / "w.png", 5)
    rows_about(train, "a.png", "b.png", "b.png", "c.png")
    rows_about(test, "x.png", "y.bmp", "z.png")
    rows_about(other, "w.png")
    assert check(train, out, "--against", test, other) == 0
    same = {"dataset": "test"}
    assert list(read_jsonl(out / "shared.jsonl")) == [
        {"image": "b.png", "ids": ["train-1", "train-2"], "other": "x.png"} | same,
        {"image": "c.png", "ids": ["train-3"], "other": "y.bmp"} | same,
    ]
    counts = json.loads((out / "check.json").read_text())
    none = {"images": 0, "questions": 0}
    assert counts["shared"] == {"test": {"images": 2, "questions": 3}, "other": none}
    assert "2 images, of 3 questions, are in test too" in capsys.readouterr().out


def test_a_question_about_several_shared_images_counts_once(tmp_path, capsys):
    train, test = tmp_path / "train", tmp_path / "test"
    for folder in (train, test):
        save(folder / "a.png", 1)
        save(folder / "b.png", 2)
    rows_about(train, ["a.png", "b.png", "a.png"])
    rows_about(test, "a.png", "b.png")
    assert check(train, tmp_path / "out", "--against", test) == 0
    shared = [(row["image"], row["ids"]) for row in read_jsonl(tmp_path / "out/shared.jsonl")]
    assert shared == [("a.png", ["train-0"]), ("b.png", ["train-0"])]
    assert "2 images, of 1 questions, are in test too" in capsys.readouterr().out


def test_a_set_with_official_files_is_checked_and_written(tmp_path, capsys):
    save(tmp_path / "images/a.png", 1)
    (tmp_path / "images/b.png").write_bytes(b"no")
    same = {"question": "What?", "answerability": {"binary": False}, "alter_type": "x"}
    names = ["a.png", "b.png", "c.png"]
    rows = [same | {"question_id": i, "image_name": name} for i, name in enumerate(names)]
    file, out = write_json(tmp_path / "val.json", rows), tmp_path / "out"
    arguments = ["data", "check", "--data.format", "unkvqa", "--data.id", str(file)]
    arguments += ["--data.images", str(tmp_path / "images"), "--out", str(out)]
    assert main([*arguments, "--max-rejected", "0.7"]) == 0
    rejected = [(row["id"], row["reason"]) for row in read_jsonl(out / "rejected.jsonl")]
    assert rejected == [("2", "image missing"), ("1", "not an image")]
    (example,) = load_dataset_folder(out).examples
    assert (example.id, example.source, example.answerable) == ("0", "unkvqa", False)
    assert main(arguments) == 2
    assert "2 of 3 records cannot be used, more than --max-rejected 0.1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--images", "--data.images"])
def test_the_image_folder_of_a_file_has_two_spellings(tmp_path, option):
    save(tmp_path / "pictures/a.png", 1)
    rows_about(tmp_path / "rows", "a.png")
    file, out = tmp_path / "rows/data.jsonl", tmp_path / "out"
    assert check(file, out, option, tmp_path / "pictures") == 0
    assert load_dataset_folder(out).root.samefile(tmp_path / "pictures")


def test_a_check_that_is_killed_is_made_by_the_same_command(tmp_path, kills):
    """Also when what stood there was of another set: that is never taken for the new one's."""
    for name, number in (("one", 1), ("two", 2)):
        save(tmp_path / name / "a.png", number)
        rows_about(tmp_path / name, "a.png")
    out = tmp_path / "out"
    for name in ("one", "two"):

        def run(name=name):
            if (out / "data.jsonl").exists():
                (example,) = load_dataset_folder(out).examples
                root = load_dataset_folder(out).root
                assert root.samefile(tmp_path / example.id.partition("-")[0])
            assert check(tmp_path / name, out) == 0

        assert kills(run) == 7
        assert [e.id for e in load_dataset_folder(out).examples] == [f"{name}-0"]
    assert kills(lambda: check(out, out)) == 7, "a set that is checked in place is never lost"


def test_a_set_is_not_checked_into_itself(tmp_path, capsys):
    save(tmp_path / "a.png", 1)
    rows_about(tmp_path, "a.png")
    before = (tmp_path / "data.jsonl").read_bytes()
    assert check(tmp_path, tmp_path) == 2
    message = "holds a dataset that this command did not write; choose another folder"
    assert message in capsys.readouterr().err
    assert (tmp_path / "data.jsonl").read_bytes() == before
    out = tmp_path / "out"
    assert check(tmp_path, out) == check(out, out)
    assert check(tmp_path, out, "--against", tmp_path, tmp_path) == 2
    assert "two datasets are called" in capsys.readouterr().err
    assert check(tmp_path, out, "--max-rejected", 2) == 2
    assert "--max-rejected 2.0: at least 0 and at most 1 is needed" in capsys.readouterr().err


def test_each_image_of_a_question_is_checked(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "set" / name, name == "b.png")
    corrupt(tmp_path / "set/c.png")
    same = {"question": "Which?", "options": ["x", "y"], "answers": ["B"], "answerable": True}
    images = [["a.png", "b.png"], [], ["a.png", "c.png"], ["nowhere.png", "a.png"]]
    rows = [same | {"id": str(i), "images": paths} for i, paths in enumerate(images)]
    (tmp_path / "set/data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert check(tmp_path / "set", tmp_path / "out", "--max-rejected", 0.5) == 0
    sound = load_dataset_folder(tmp_path / "out").examples
    assert [e.images for e in sound] == [("a.png", "b.png"), ()]
    assert {(e.options, e.metric) for e in sound} == {(("x", "y"), "choice")}
    rejected = read_jsonl(tmp_path / "out/rejected.jsonl")
    assert {r["id"]: r["reason"] for r in rejected} == {"2": "image damaged", "3": "image missing"}
