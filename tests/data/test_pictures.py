"""Pictures that rows hold or refer to, and what cannot be used of them."""

import zlib

import datasets
import pytest
from sample_sets import picture, stored, write_hub, write_images, write_json

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError


def test_a_local_file_with_paths_of_images(tmp_path, read):
    write_images(tmp_path / "set/pictures", "0.png", "1.png")
    (tmp_path / "secret.png").write_bytes(picture(9))
    rows = [
        {"id": f"q{i}", "image": image, "question": "What?", "answers": "red"}
        for i, image in enumerate(["pictures/0.png", "pictures/1.png", "../secret.png", "x.png"])
    ]
    file = tmp_path / "set/rows.csv"
    datasets.Dataset.from_list(rows).to_csv(file)
    options = {"id": str(file), "max_rejected": 0.5}
    dataset = read(**options)
    assert [(e.id, e.answers) for e in dataset.examples] == [("q0", ("red",)), ("q1", ("red",))]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)
    faults = {f["id"]: f["reason"] for f in read_jsonl(dataset.root / "rejected.jsonl")}
    assert faults == {"q2": "image outside the set's files", "q3": "image missing"}

    dataset = read(**options, images=tmp_path / "set", name="in place")
    assert [e.image for e in dataset.examples] == ["pictures/0.png", "pictures/1.png"]
    faults = {r.id: r.reason for r in dataset.rejected}
    assert faults == {"q2": "image outside the folder", "q3": "image missing"}


def test_pictures_in_rows_that_cannot_be_used(tmp_path, read):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(9))
    png = picture(0)  # its header lies between bytes 12 and 29, with a checksum behind it
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + png[24:29]
    bomb = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    outside = "image outside the set's files"
    faults = {
        "no image": (stored(b"<html>"), "not an image"),
        "zero byte": (stored(b""), "image empty"),
        "bomb": (stored(bomb), "image too large"),
        "missing": (None, "image missing"),
        "not there": ({"bytes": None, "path": "nowhere.png"}, "image missing"),
        "climbs out": ({"bytes": None, "path": "../secret.png"}, outside),
        "absolute": ({"bytes": None, "path": str(secret)}, outside),
        "sound": (stored(picture(1)), None),
    }
    rows = [
        {"id": id, "image": value, "question": "What?", "answers": "red"}
        for id, (value, _) in faults.items()
    ]
    # Without Image columns: the library would look for the paths as it writes.
    options = {"id": str(write_hub(tmp_path / "set", "train", rows, pictures=())), "split": "train"}
    dataset = read(max_rejected=1.0, **options)
    assert [e.id for e in dataset.examples] == ["sound"]
    expected = {id: cause for id, (_, cause) in faults.items() if cause}
    assert {r.id: r.reason for r in dataset.rejected} == expected
    with pytest.raises(InbolError, match=r"7 of 8 set aside: .*; at most 10% may be"):
        read(max_rejected=0.1, name="again", **options)


def test_lists_of_pictures(tmp_path, read):
    """None is a question about text alone, two have their order."""
    same = {"question": "Which?", "choices": ["x", "y"], "answers": "x"}
    images = [["0.png", "1.png"], [], "1.png", None, [["0.png"]]]
    rows = [same | {"id": i, "images": image} for i, image in enumerate(images)]
    pictures = write_images(tmp_path / "pictures", "0.png", "1.png")
    file = write_json(tmp_path / "rows.json", rows)
    dataset = read(id=file, images=pictures, max_rejected=0.5)
    assert [e.images for e in dataset.examples] == [("0.png", "1.png"), (), ("1.png",)]
    faults = [(r.id, r.reason) for r in dataset.rejected]
    assert faults == [("3", "image missing"), ("4", "image not a picture or path")]
    table = datasets.Dataset.from_list(
        [same | {"image": [stored(picture(0)), stored(picture(1))]}, same | {"image": []}]
    )
    table.cast_column("image", datasets.List(datasets.Image())).to_parquet(tmp_path / "a.parquet")
    two, none = read(id=str(tmp_path / "a.parquet")).examples
    assert (len(two.images), none.images) == (2, ())


def test_pictures_by_their_ids(tmp_path, read):
    write_images(tmp_path / "set/images", "000000.jpg", "000001.jpg")
    same = {"question": "What?", "answers": "red"}
    rows = [same | {"image": image} for image in ("0", 1.0)]  # CSV has texts, pandas floats
    options = {
        "id": write_json(tmp_path / "rows.json", rows),
        "image_template": "images/{:06d}.jpg",
    }
    dataset = read(**options, images=tmp_path / "set")
    assert [e.image for e in dataset.examples] == ["images/000000.jpg", "images/000001.jpg"]
    (tmp_path / "set/images").rename(tmp_path / "images")
    written = read(**options, name="written")  # beside the file itself
    assert (written.root / written.examples[1].image).read_bytes() == picture(1)
