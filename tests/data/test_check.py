import json
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

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
    png = path.read_bytes()  # its header lies between bytes 12 and 29, with a checksum behind it
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + png[24:29]
    path.write_bytes(png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:])


def corrupt(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 24] = bytes(24)
    path.write_bytes(data)


def link_out(path):
    path.unlink()
    path.symlink_to(path.parents[2] / "outside.png")


# What is done to a picture, or which columns its row gets, and the cause that is reported.
FAULTS = [
    (corrupt, "image damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:-60]), "image damaged"),
    (lambda path: path.write_bytes(b"<html>not found</html>"), "not an image"),
    (bomb, "image too large"),
    (lambda path: path.write_bytes(b""), "image empty"),
    (lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path, "TIFF"),
     "image mode not supported"),
    (lambda path: path.unlink(), "image missing"),
    (link_out, "image outside the folder"),
    ({"images": ["images/../../outside.png"]}, "image outside the folder"),
    ({"images": ["/etc/hostname"]}, "image path absolute"),
    ({"id": "q13"}, "duplicated id"),
    ({"answers": [""]}, "answerable without answers"),
    ({"question": "caf\udce9?"}, "not UTF-8"),
]  # fmt: skip


def test_every_fault_is_reported_and_all_else_comes_through(tmp_path, capsys):
    data, out, lines, expected = tmp_path / "set", tmp_path / "out", [], []
    save(tmp_path / "outside.png", 0)
    for i in range(13, 143):  # the sound ones first, whose id the duplicated one has
        lines.append({"id": f"q{i}", "images": [f"images/{i}.png"], "question": f"What is {i}?"})
        save(data / "images" / f"{i}.png", i)
    for i, (fault, cause) in enumerate(FAULTS):
        path = data / "images" / f"{i}.png"
        save(path, i)
        lines.append({"id": f"q{i}", "images": [f"images/{i}.png"], "question": f"What is {i}?"})
        if callable(fault):
            fault(path)
        else:
            lines[-1] |= fault
        expected.append((None if cause == "not UTF-8" else lines[-1]["id"], cause))
    rows = (json.dumps({"answers": ["red"] * 3, "answerable": True} | line, ensure_ascii=False)
            for line in lines)  # fmt: skip
    (data / "data.jsonl").write_bytes("\n".join(rows).encode(errors="surrogateescape"))
    assert check(data, out) == 0, "a tenth is accepted"
    rejected = [(r["id"], r["reason"]) for r in read_jsonl(out / "rejected.jsonl")]
    assert sorted(rejected, key=str) == sorted(expected, key=str)
    sound = load_dataset_folder(out, max_rejected=0)
    assert [e.id for e in sound.examples] == [f"q{i}" for i in range(13, 143)]
    assert sound.root.samefile(data)
    output = capsys.readouterr().out
    for cause in {cause for _, cause in expected}:
        count = str([cause for _, cause in expected].count(cause))
        assert any(line.split()[0] == count and cause in line for line in output.splitlines())
    assert "130 of 143 records of set are sound, 13 set aside" in output

    assert check(data, out, "--max-rejected", 0.05) == 2
    message = "13 of 143 records cannot be used, more than --max-rejected 0.05"
    assert message in capsys.readouterr().err
    assert len(list(read_jsonl(out / "rejected.jsonl"))) == 13, "it is written all the same"


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
    vqa = "answers are alternatives, not ten votes (import --metric inclusion)"
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
    rows_about(train, "a.png", "b.png", ["b.png", "c.png", "b.png"], "c.png")
    rows_about(test, "x.png", "y.bmp", "z.png")
    rows_about(other, "w.png")
    assert check(train, out, "--against", test, other) == 0
    same = {"dataset": "test"}
    assert list(read_jsonl(out / "shared.jsonl")) == [
        {"image": "b.png", "ids": ["train-1", "train-2"], "other": "x.png"} | same,
        {"image": "c.png", "ids": ["train-2", "train-3"], "other": "y.bmp"} | same,
    ]
    counts = json.loads((out / "check.json").read_text())
    none = {"images": 0, "questions": 0}
    assert counts["shared"] == {"test": {"images": 2, "questions": 3}, "other": none}
    assert "2 images, of 3 questions, are in test too" in capsys.readouterr().out


def test_a_check_that_is_killed_is_made_by_the_same_command(tmp_path, kills):
    """Also over what the same command made before."""
    save(tmp_path / "one/a.png", 1)
    rows_about(tmp_path / "one", "a.png")
    for _ in range(2):
        assert kills(lambda: check(tmp_path / "one", tmp_path / "out")) == 10
        assert load_dataset_folder(tmp_path / "out").root.samefile(tmp_path / "one")


def test_a_check_replaces_what_is_of_the_same_set_alone(tmp_path, capsys):
    """A set that was mended is checked again; of other options nothing is replaced."""
    for name in ("one", "two"):
        save(tmp_path / name / "a.png", len(name))
        rows_about(tmp_path / name, "a.png", "b.png")
    save(tmp_path / "two/b.png", 2)
    one, two, out = (tmp_path / name for name in ("one", "two", "out"))
    assert check(one, out, "--max-rejected", 0.5) == 0
    save(one / "b.png", 2)
    assert check(one, out) == 0
    assert json.loads((out / "check.json").read_text())["sound"] == 2
    before = {file: file.read_bytes() for file in out.iterdir()}
    for words, message in (
        ([two, out], "was made with --data ../one/data.jsonl, and now --data ../two/data.jsonl"),
        ([one, out, "--against", two], "no --against, and now --against ../two/data.jsonl"),
        ([out, out], "and now --data data.jsonl"),
    ):
        assert check(*words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "choose another --out, or delete it" in error
    assert {file: file.read_bytes() for file in out.iterdir()} == before


def test_a_set_is_not_checked_into_itself(tmp_path, capsys):
    save(tmp_path / "a.png", 1)
    rows_about(tmp_path, "a.png")
    before = (tmp_path / "data.jsonl").read_bytes()
    assert check(tmp_path, tmp_path) == 2
    assert "data.jsonl was not made by `inbol data check`" in capsys.readouterr().err
    assert (tmp_path / "data.jsonl").read_bytes() == before
    assert check(tmp_path, tmp_path / "out", "--against", tmp_path, tmp_path) == 2
    assert "two datasets are called" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rejected.jsonl", "gold.jsonl", "shared.jsonl"])
def test_nobody_elses_files_are_replaced(tmp_path, capsys, name):
    save(tmp_path / "one/a.png", 1)
    rows_about(tmp_path / "one", "a.png")
    other = shutil.copytree(tmp_path / "one", tmp_path / "other")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    assert check(tmp_path / "one", out, "--against", other) == 2
    assert f"{name} was not made by `inbol`" in capsys.readouterr().err
    assert (out / name).read_text() == "mine"


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
