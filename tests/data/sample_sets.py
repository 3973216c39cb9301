"""Small sets in the layouts of official files and of repositories on the hub."""

import base64
import io
import json

import datasets
import numpy as np
from PIL import Image

ANSWERS = ["net", "net", "net", "netting", "net", "mesh", "net", "net", "net", "a net"]
AS_OBJECTS = [
    {"answer": answer, "answer_confidence": "yes", "answer_id": i + 1}
    for i, answer in enumerate(ANSWERS)
]


def picture(number, format="PNG"):
    """The bytes of a small image, another one for each number."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def stored(data):
    """A picture as a column of the `datasets` library stores it."""
    return {"bytes": data, "path": None}


def encoded(number):
    """A picture as official tables hold it."""
    return base64.b64encode(picture(number)).decode()


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    return folder


def write_json(file, value):
    file.write_text(json.dumps(value))
    return file


def write_hub(folder, split, rows, subset=None, pictures=("image",)):
    """A copy of a hub repository: parquet with the library's Image columns, a folder per subset."""
    table = datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})
    for column in pictures:
        table = table.cast_column(column, datasets.Image())
    where = folder / (subset or "data")
    where.mkdir(parents=True, exist_ok=True)
    table.to_parquet(where / f"{split}-00000-of-00001.parquet")
    return folder


def dataset_row(**changes):
    """A row of `data.jsonl`; a column that is changed to ... is left out."""
    values = {"id": "q1", "images": ["images/a.png"], "question": "What colour?"}
    values |= {"answers": ["red", "red", "blue"], "answerable": True} | changes
    return {column: value for column, value in values.items() if value is not ...}


def write_rows(folder, *rows, name="data.jsonl"):
    """Rows as JSON lines (bytes as they are), beside one image."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/a.png").write_bytes(b"image")
    with (folder / name).open("wb") as file:
        for row in rows:
            line = row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()
            file.write(line + b"\n")
    return folder / name
