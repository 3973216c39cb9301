"""What `--data.id` reads from the disk: every kind of file and folder that its help names."""

import io
import json
import tarfile

import datasets
import pytest
from sample_sets import picture, stored, write_images

from inbol_jax.data.config import FILES
from inbol_jax.errors import InbolError

ROWS = [
    {"id": f"q{i}", "question": f"What is {i}?", "answers": f"thing {i}", "image": f"pics/{i}.png"}
    for i in range(2)
]


def write_tar(file):
    """A webdataset: per sample a picture and its JSON, which have one key."""
    with tarfile.open(file, "w") as archive:
        for i, row in enumerate(ROWS):
            about = {name: row[name] for name in ("question", "answers")}
            for suffix, data in (("png", picture(i)), ("json", json.dumps(about).encode())):
                info = tarfile.TarInfo(f"q{i}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("suffix", FILES)
def test_every_kind_of_file(tmp_path, read, suffix):
    write_images(tmp_path / "pics", "0.png", "1.png")
    file = tmp_path / f"rows{suffix}"
    table = datasets.Dataset.from_list(ROWS)
    if suffix == ".json":
        file.write_text(json.dumps({"data": ROWS}))
    elif suffix == ".tar":
        write_tar(file)
    elif suffix == ".arrow":
        table.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).rename(file)
    else:
        options = {"sep": "\t"} if suffix == ".tsv" else {}
        writers = {".jsonl": table.to_json, ".parquet": table.to_parquet}
        writers.get(suffix, table.to_csv)(file, **options)
    dataset = read(id=str(file))
    assert dataset.name == "rows"
    assert [(e.id, e.question, e.answers) for e in dataset.examples] == [
        (row["id"], row["question"], (row["answers"],)) for row in ROWS
    ]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)


@pytest.mark.parametrize("kind", ["images", "saved", "saved splits", "tars", "tsv"])
def test_every_kind_of_folder(tmp_path, read, kind):
    folder = tmp_path / "set"
    rows = [row | {"image": stored(picture(i))} for i, row in enumerate(ROWS)]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    if kind == "images":
        write_images(folder, "0.png", "1.png")
        about = [{**row, "file_name": f"{i}.png"} for i, row in enumerate(ROWS)]
        lines = ({name: v for name, v in row.items() if name != "image"} for row in about)
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    elif kind == "saved":
        table.save_to_disk(folder)
    elif kind == "saved splits":
        datasets.DatasetDict({"train": table}).save_to_disk(folder)
    elif kind == "tars":
        folder.mkdir()
        write_tar(folder / "train-0.tar")
    else:
        write_images(folder / "pics", "0.png", "1.png")
        datasets.Dataset.from_list(ROWS).to_csv(folder / "train.tsv", sep="\t")
    dataset = read(id=str(folder), split="train")
    assert [e.answers for e in dataset.examples] == [(row["answers"],) for row in ROWS]
    assert (dataset.root / dataset.examples[1].image).read_bytes() == picture(1)


def test_pictures_in_lists(tmp_path, read):
    """Columns of lists of pictures, as the library stores them."""
    pictures = [stored(picture(0)), stored(picture(1))]
    rows = [ROWS[0] | {"image": pictures}, ROWS[1] | {"image": []}]
    table = datasets.Dataset.from_list(rows)
    table.cast_column("image", datasets.List(datasets.Image())).to_parquet(tmp_path / "a.parquet")
    two, none = read(id=str(tmp_path / "a.parquet")).examples
    assert (len(two.images), none.images) == (2, ())


def rows_with(image):
    return [row | {"image": image(i)} for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "images", "message"),
    [
        ([[1, 2], [3, 4]], False, "2 a list, not an object whose keys name columns"),
        ([1, 2], False, "2 not a JSON object"),
        (rows_with(lambda i: i), True, "2 image a number .--data.image-template makes a path"),
        (rows_with(lambda i: i), False, "2 image a number .--data.image-template makes a path"),
        (
            rows_with(lambda i: f"{i}.png"),
            False,
            r"2 image missing .first: q0, looked for /.*/0\.png.*; --data\.images names",
        ),
        (rows_with(lambda i: [[f"{i}.png"]]), True, "2 image a list of lists"),
        (rows_with(lambda i: ["0.png", None]), True, "2 image missing in a list of pictures"),
        (rows_with(lambda i: ["0.png", ""]), True, "2 image missing in a list of pictures"),
        (
            rows_with(lambda i: {"path": f"{i}.png"}),
            False,
            r"2 image missing .*--data\.image-template makes paths of ids",
        ),
        (rows_with(lambda i: True), True, "2 image a number"),
    ],
)
def test_what_cannot_be_read_says_why_and_which_option_helps(tmp_path, read, rows, images, message):
    folder = write_images(tmp_path / "elsewhere", "0.png", "1.png")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(InbolError, match=message):
        read(id=str(file), **({"images": folder} if images else {}))


def test_pictures_by_their_ids(tmp_path, read):
    write_images(tmp_path / "set/images", "000000.jpg", "000001.jpg")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows_with(lambda i: float(i) if i else "0")))  # CSV has texts
    options = {"id": str(file), "image_template": "images/{:06d}.jpg"}
    dataset = read(**options, images=tmp_path / "set")
    assert [e.image for e in dataset.examples] == ["images/000000.jpg", "images/000001.jpg"]
    (tmp_path / "set/images").rename(tmp_path / "images")
    written = read(**options, name="written")  # beside the file itself
    assert (written.root / written.examples[1].image).read_bytes() == picture(1)
    file.write_text(json.dumps(rows_with(lambda i: f"a{i}")))
    with pytest.raises(InbolError, match=r"--data\.image-template images/.*: 'a0'"):
        read(**options, name="texts")


@pytest.mark.parametrize("template", ["images/x.jpg", "{}{}", "{0.real}", "{", "{id}"])
def test_templates_that_are_none(read, template):
    with pytest.raises(InbolError, match=r"--data\.image-template .*: one \{\} is needed"):
        read(id="rows.json", image_template=template)


def test_a_file_that_is_not_there(read):
    with pytest.raises(InbolError, match=r"--data.id nowhere.csv: no such file"):
        read(id="nowhere.csv")
