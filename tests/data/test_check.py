import json
import random
import struct
import time
import zlib

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.world.export import ExportConfig, export
from inbol_jax.world.splits import Split


def save(path, number, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(
        path, **options
    )


def bomb(path):
    """A PNG whose header promises ten thousand million pixels, in a hundred bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def corrupt(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 24] = bytes(24)
    path.write_bytes(data)


# A fault: what it does to (row, path of its picture, folder), and the cause that is reported. A row that becomes bytes is a line as it is.
FAULTS = {
    "corrupt": (lambda row, path, folder: corrupt(path), "image damaged"),
    "truncated": (
        lambda row, path, folder: path.write_bytes(path.read_bytes()[:-60]),
        "image damaged",
    ),
    "no image": (
        lambda row, path, folder: path.write_bytes(b"<html>not found</html>"),
        "not an image",
    ),
    "bomb": (lambda row, path, folder: bomb(path), "image too large"),
    "zero byte": (lambda row, path, folder: path.write_bytes(b""), "image empty"),
    "wrong mode": (
        lambda row, path, folder: Image.fromarray(np.zeros((4, 4), np.float32)).save(path, "TIFF"),
        "image mode not supported",
    ),
    "missing": (lambda row, path, folder: path.unlink(), "image missing"),
    "duplicated id": (lambda row, path, folder: row.update(id="q0"), "duplicated id"),
    "no answer": (lambda row, path, folder: row.update(answers=[""]), "answerable without answers"),
    "not UTF-8": (lambda row, path, folder: row.update(question="caf\udce9?"), "not UTF-8"),
    "climbs out": (
        lambda row, path, folder: row.update(image=f"images/../../outside/{row['id']}.png"),
        "image outside the folder",
    ),
    "link out": (
        lambda row, path, folder: (path.unlink(), path.symlink_to(folder.parent / "outside.png")),
        "image outside the folder",
    ),
    "absolute": (
        lambda row, path, folder: row.update(image=str(folder.parent / "outside.png")),
        "image path absolute",
    ),
}


def faulty_set(folder, records, faults, seed=0):
    """A dataset folder with random faults in it. Returns {index of a record: (its id, the cause)}."""
    rng = random.Random(seed)
    save(folder.parent / "outside.png", 0)
    chosen = rng.sample(range(1, records), faults)
    # Each kind comes up, then at random; the same record has one fault.
    kinds = [
        list(FAULTS)[i % len(FAULTS)] if i < 2 * len(FAULTS) else rng.choice(list(FAULTS))
        for i in range(faults)
    ]
    expected, lines = {}, []
    for i in range(records):
        row = {
            "id": f"q{i}",
            "image": f"images/{i}.png",
            "question": f"What is {i}?",
            "answers": ["red"] * 3,
            "answerable": True,
        }
        save(folder / row["image"], i, compress_level=1)
        if i in chosen:
            spoil, cause = FAULTS[kinds[chosen.index(i)]]
            spoil(row, folder / row["image"], folder)
            expected[i] = (row["id"], cause)
        lines.append(json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape"))
    (folder / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return expected


@pytest.mark.parametrize(
    ("records", "faults"), [(1000, 100), pytest.param(10_000, 1000, marks=pytest.mark.slow)]
)
def test_every_fault_is_reported_and_all_else_comes_through(tmp_path, capsys, records, faults):
    expected = faulty_set(tmp_path / "set", records, faults)
    out = tmp_path / "out"
    start = time.monotonic()
    assert (
        main(["data", "check", "--data", str(tmp_path / "set"), "--out", str(out)]) == 0
    )  # a tenth is accepted
    seconds = time.monotonic() - start
    rejected = list(read_jsonl(out / "rejected.jsonl"))
    assert sorted((r["id"], r["reason"]) for r in rejected) == sorted(expected.values())
    sound = load_dataset_folder(out, max_rejected=0)
    assert [e.id for e in sound.examples] == [f"q{i}" for i in range(records) if i not in expected]
    assert sound.root.samefile(tmp_path / "set")
    output = capsys.readouterr().out
    for cause in {cause for _, cause in expected.values()}:
        count = sum(c == cause for _, c in expected.values())
        assert any(
            line.split()[0] == str(count) and cause in line for line in output.splitlines()
        ), cause
    assert (
        f"{records - faults:,} of {records:,} records of set are sound, {faults:,} set aside"
        in output
    )
    print(f"{records} records with {faults} faults in {seconds:.1f} s")

    code = main(
        [
            "data",
            "check",
            "--data",
            str(tmp_path / "set"),
            "--out",
            str(out),
            "--max-rejected",
            "0.05",
        ]
    )
    assert code == 2
    assert (
        f"{faults:,} of {records:,} records cannot be used, more than --max-rejected 0.05"
        in capsys.readouterr().err
    )
    assert len(list(read_jsonl(out / "rejected.jsonl"))) == faults, (
        "what is wrong is written all the same"
    )


@pytest.mark.slow
def test_faults_of_the_everyday_size_with_other_seeds(tmp_path):
    for seed in range(1, 6):
        expected = faulty_set(tmp_path / f"{seed}/set", 500, 50, seed)
        assert (
            main(
                [
                    "data",
                    "check",
                    "--data",
                    str(tmp_path / f"{seed}/set"),
                    "--out",
                    str(tmp_path / f"{seed}/out"),
                ]
            )
            == 0
        )
        rejected = list(read_jsonl(tmp_path / f"{seed}/out/rejected.jsonl"))
        assert sorted((r["id"], r["reason"]) for r in rejected) == sorted(expected.values())


def rows_about(folder, *images):
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": f"{folder.name}-{i}", "image": image, "question": "What?", "answers": ["red"]}
        for i, image in enumerate(images)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_images_shared_with_another_set_are_found(tmp_path, capsys):
    train, test, other = (tmp_path / name for name in ("train", "test", "other"))
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
    arguments = [
        "data",
        "check",
        "--data",
        str(train),
        "--against",
        str(test),
        str(other),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    assert list(read_jsonl(tmp_path / "out/shared.jsonl")) == [
        {
            "image": "b.png",
            "ids": ["train-1", "train-2"],
            "other": "x.png",
            "dataset": "test",
            "likeness": 1.0,
        },
        {
            "image": "c.png",
            "ids": ["train-3"],
            "other": "y.bmp",
            "dataset": "test",
            "likeness": 1.0,
        },
    ]
    counts = json.loads((tmp_path / "out/check.json").read_text())
    none = {"images": 0, "questions": 0, "images_alike": 0, "questions_alike": 0}
    assert counts["shared"] == {"test": none | {"images": 2, "questions": 3}, "other": none}
    assert "2 images, of 3 questions, are in test too" in capsys.readouterr().out


def test_images_that_were_encoded_or_scaled_anew_are_found_by_their_looks(tmp_path, capsys):
    """Crops of a photograph that matplotlib ships; half of the evaluation set is those of training, as JPEG or of another size."""
    photograph = Image.open(
        matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    ).convert("RGB")
    crops = [
        photograph.crop((x, y, x + 190, y + 190))
        for y in range(0, 400, 100)
        for x in range(0, 320, 100)
    ]
    train, test = tmp_path / "train", tmp_path / "test"
    for folder in (train, test):
        folder.mkdir()
    for i, crop in enumerate(crops):
        if i % 2:
            crop.save(train / f"{i}.png")
        if i % 4 == 1:
            crop.save(test / f"{i}.jpg", quality=40)
        elif i % 4 == 3:
            crop.resize((120, 110)).save(test / f"{i}.jpg")
        else:
            crop.save(test / f"{i}.jpg")
    Image.new("RGB", (50, 50), "red").save(train / "blank.png")
    Image.new("RGB", (60, 60), "blue").save(test / "blank.png")
    rows_about(train, *(p.name for p in sorted(train.glob("*.png"))))
    rows_about(test, *(p.name for p in sorted(test.glob("*.*g"))))
    assert (
        main(
            [
                "data",
                "check",
                "--data",
                str(train),
                "--against",
                str(test),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    found = list(read_jsonl(tmp_path / "out/shared.jsonl"))
    assert {(row["image"], row["other"]) for row in found} == {
        (f"{i}.png", f"{i}.jpg") for i in range(1, len(crops), 2)
    }
    assert all(0.99 <= row["likeness"] < 1 for row in found)
    alike = len(crops) // 2
    assert (
        f"0 images, of 0 questions, are in test too, and {alike}, of {alike} questions, look like one there"
        in capsys.readouterr().out
    )


def test_splits_of_the_world_share_no_image(tmp_path, capsys):
    for split in (Split.TRAIN, Split.TEST):
        export(ExportConfig(tmp_path / split, split, 20))
    assert (
        main(
            [
                "data",
                "check",
                "--data",
                str(tmp_path / "train"),
                "--against",
                str(tmp_path / "test"),
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert (
        "0 images, of 0 questions, are in test too, and 0, of 0 questions, look like one there"
        in output
    )
    assert (
        "20 of 20 records of train are sound, 0 set aside; 20 image files with 20 different pictures"
        in output
    )


def test_a_set_with_official_files_is_checked_and_written(tmp_path, capsys):
    save(tmp_path / "images/a.png", 1)
    (tmp_path / "images/b.png").write_bytes(b"no")
    common = {"question": "What?", "answerability": 0, "alter_type": "x"}
    rows = [
        common | {"question_id": i, "image_name": name}
        for i, name in enumerate(["a.png", "b.png", "c.png"])
    ]
    (tmp_path / "val.json").write_text(json.dumps(rows))
    arguments = [
        "data",
        "check",
        "--data.format",
        "unkvqa",
        "--data.questions",
        str(tmp_path / "val.json"),
        "--data.images",
    ]
    arguments += [str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--max-rejected", "0.7"]) == 0
    assert [(r["id"], r["reason"]) for r in read_jsonl(tmp_path / "out/rejected.jsonl")] == [
        ("2", "image missing"),
        ("1", "not an image"),
    ]
    (example,) = load_dataset_folder(tmp_path / "out").examples
    assert (example.id, example.source, example.answerable) == ("0", "unkvqa", False)
    assert main(arguments) == 2
    assert "2 of 3 records cannot be used, more than --max-rejected 0.1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--images", "--data.images"])
def test_the_image_folder_of_a_file_has_two_spellings(tmp_path, option):
    save(tmp_path / "pictures/a.png", 1)
    rows_about(tmp_path / "rows", "a.png")
    arguments = [
        "--data",
        tmp_path / "rows/data.jsonl",
        option,
        tmp_path / "pictures",
        "--out",
        tmp_path / "out",
    ]
    assert main(["data", "check", *map(str, arguments)]) == 0
    assert load_dataset_folder(tmp_path / "out").root.samefile(tmp_path / "pictures")


def test_a_set_is_not_checked_into_itself(tmp_path, capsys):
    save(tmp_path / "a.png", 1)
    rows_about(tmp_path, "a.png")
    before = (tmp_path / "data.jsonl").read_bytes()
    assert main(["data", "check", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert (
        "holds a dataset that this command did not write; choose another folder"
        in capsys.readouterr().err
    )
    assert (tmp_path / "data.jsonl").read_bytes() == before
    out = tmp_path / "out"
    assert main(["data", "check", "--data", str(tmp_path), "--out", str(out)]) == main(
        ["data", "check", "--data", str(out), "--out", str(out)]
    )
    assert (
        main(
            [
                "data",
                "check",
                "--data",
                str(tmp_path),
                "--out",
                str(out),
                "--against",
                str(tmp_path),
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "--against: two sets have one name" in capsys.readouterr().err
    assert (
        main(["data", "check", "--data", str(tmp_path), "--out", str(out), "--max-rejected", "2"])
        == 2
    )
    assert "--max-rejected 2.0: a share between 0 and 1" in capsys.readouterr().err
