"""Pictures that rows hold or refer to."""

import zlib

import datasets
import pytest
from sample_sets import picture, stored, write_hub, write_images

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_local_file_with_paths_of_images(tmp_path, read, suffix):
    write_images(tmp_path / "set/pictures", "0.png", "1.png")
    (tmp_path / "secret.png").write_bytes(picture(9))
    rows = [
        {"id": f"q{i}", "image": image, "question": "What?", "answers": "red"}
        for i, image in enumerate(["pictures/0.png", "pictures/1.png", "../secret.png", "x.png"])
    ]
    table = datasets.Dataset.from_list(rows)
    file = tmp_path / f"set/rows.{suffix}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[suffix](file)
    options = {"id": str(file), "split": "train", "max_rejected": 0.5}
    dataset = read(**options)
    assert [(e.id, e.answers) for e in dataset.examples] == [("q0", ("red",)), ("q1", ("red",))]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)
    faults = {f["id"]: f["reason"] for f in read_jsonl(dataset.root / "rejected.jsonl")}
    assert faults == {"q2": "image outside the set's files", "q3": "image missing"}

    dataset = read(**options, images=tmp_path / "set", name="in place")
    assert [e.image for e in dataset.examples] == ["pictures/0.png", "pictures/1.png"]
    rejected = read_jsonl(tmp_path / "out/data/in-place/rejected.jsonl")
    faults = {f["id"]: f["reason"] for f in rejected}
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
        read(max_rejected=0.1, **options)
