"""The order of the data, the shapes of batches, and images that are missing."""

import itertools
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from store_lines import LINES, UNCAPPED, built, store

from inbol_jax.artifacts import (
    file_fingerprint,
    meta_path,
    read_meta,
    write_json,
    write_jsonl,
)
from inbol_jax.errors import InbolError
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.records import Instruction, Preference
from inbol_jax.training.config import SftConfig
from inbol_jax.training.dataset import (
    MAX_BUCKETS,
    MAX_WASTE,
    WINDOW,
    DataFile,
    PackedDataset,
    bucket_shapes,
    read_batch,
    read_data,
    stream_batches,
    training_order,
)


def batches_of(n, size, epochs, seed, start, *, lengths=None, mine=None):
    """Batches of rows that are their own numbers."""
    order = training_order(lengths or [1] * n, size, epochs, seed, grouped=lengths is not None)
    mine = np.arange(size) if mine is None else mine
    read = lambda i: read_batch(lambda row: {"i": np.int32(row)}, order(i), mine)  # noqa: E731
    return list(stream_batches(read, start, -(-n * epochs // size)))


def rows_of(batches):
    """The numbers of the rows that are valid, batch by batch."""
    return [batch["i"][batch["valid"]].tolist() for batch in batches]


def test_every_row_once_an_epoch():
    n, size, epochs = 10, 4, 3
    batches = batches_of(n, size, epochs, seed=0, start=0)
    assert len(batches) == -(-n * epochs // size)
    assert all(len(b["i"]) == size for b in batches)
    rows = np.concatenate(rows_of(batches))
    passes = rows.reshape(epochs, n)
    assert [sorted(p) for p in passes.tolist()] == [list(range(n))] * epochs
    assert len({tuple(p) for p in passes.tolist()}) == epochs, "each pass has an order of its own"
    again = batches_of(n, size, epochs, seed=0, start=5)
    jax.tree.map(np.testing.assert_array_equal, again, batches[5:])
    other = np.concatenate(rows_of(batches_of(n, size, epochs, seed=1, start=0)))
    assert rows.tolist() != other.tolist()


def test_each_process_makes_its_own_rows():
    """Together they make the batches of one process; where one has no row left in the last batch,
    none of what it makes counts.
    """
    whole = batches_of(9, 8, 1, seed=0, start=0)
    halves = np.split(np.arange(8), 2)
    shares = [batches_of(9, 8, 1, seed=0, start=0, mine=mine) for mine in halves]
    for batch, *parts in zip(whole, *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate([p["valid"] for p in parts]), batch["valid"])
        assert list(itertools.chain(*rows_of(parts))) == rows_of([batch])[0]
    assert whole[-1]["valid"].tolist() == [True] + [False] * 7


@pytest.mark.parametrize(("n", "size", "epochs"), [(200, 4, 2), (5, 4, 1), (130, 8, 3), (64, 4, 1)])
def test_rows_of_like_length_come_together(n, size, epochs):
    lengths = np.random.default_rng(1).integers(1, 100, n).tolist()
    batches = batches_of(n, size, epochs, seed=0, start=0, lengths=lengths)
    found = rows_of(batches)
    assert [len(rows) for rows in found[:-1]] == [size] * (len(found) - 1)
    counts = np.bincount(np.concatenate(found), minlength=n)
    assert counts.tolist() == [epochs] * n
    later = len(batches) // 2
    again = batches_of(n, size, epochs, seed=0, start=later, lengths=lengths)
    assert rows_of(again)[0] == found[later]

    def padding(batches):
        sizes = [np.array(lengths)[rows] for rows in batches]
        return np.mean([1 - x.mean() / x.max() for x in sizes])

    plain = rows_of(batches_of(n, size, epochs, seed=0, start=0))
    if len(found) > WINDOW:
        assert padding(found) < padding(plain) / 3
        rising = sorted(found[:WINDOW], key=lambda rows: lengths[rows[0]])
        assert found[:WINDOW] != rising, "long and short batches alternate"


def test_as_few_shapes_as_waste_little():
    """Beside what rounding makes. Rows of one rounded length have one shape, and their order."""
    random = np.random.default_rng(0)
    for spread, few in ((0, [1]), (0.3, [1, 2]), (1.0, range(3, MAX_BUCKETS + 1))):
        sizes = 600 + np.clip(random.lognormal(np.log(30), spread, 500), 5, 300).astype(int)
        rows = [([1] * n, [Branch([5, 6])]) for n in sizes]
        rounded = -(-(sizes + 2) // 8) * 8

        def waste(shapes, sizes=sizes, rounded=rounded):
            ends = np.array([s.tokens for s in shapes])
            return 1 - rounded.sum() / ends[np.searchsorted(ends, sizes + 2)].sum()

        shapes = bucket_shapes(rows)
        assert len(shapes) in few
        assert waste(shapes) < MAX_WASTE
        assert all(waste(bucket_shapes(rows, n)) >= MAX_WASTE for n in range(1, len(shapes)))


def test_shapes_that_rows_are_padded_to(micro):
    """Each batch has the shortest that holds its rows; what is learnt from a row does not depend on
    it.
    """
    packed = [([1] * n, [Branch([5, 6, 7][: 1 + n % 3])]) for n in (30, 9, 17, 12, 28, 10)]
    shapes = bucket_shapes(packed, 3)
    assert [s.tokens for s in shapes] == [16, 24, 32]
    assert [s.tokens for s in bucket_shapes(packed, 2)] == [16, 32], "the least padding"
    assert bucket_shapes(packed, 1) == [RowShape.fitting(packed)]
    assert len(bucket_shapes(packed[:1], 8)) == 1
    rows = PackedDataset(micro, DataFile([], []), packed, [()] * len(packed), shapes)
    object.__setattr__(rows, "pack", lambda i, shape, tiles: pack_row(*packed[i], shape))
    for indices, tokens in (([1, 5], 16), ([2, 1], 24), ([1, 0], 32)):
        batch = rows.batch(np.array(indices), np.arange(2))
        assert batch["input_ids"].shape == (2, tokens)


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "{}/secret.png", "a\0b", "a" * 5000])
def test_images_outside_their_folder_are_refused(tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")  # can be read, and must not be
    folder, data = tmp_path / "images", tmp_path / "instructions.jsonl"
    folder.mkdir()

    def read(*images):
        row = {"question": "What is this?", "response": "Red."}
        write_jsonl(data, [row | {"images": [image]} for image in images], {"images": "images"})
        return read_data(SftConfig(data=data, out=tmp_path), Instruction.from_json, "instruction")

    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (found,) = read("a.png", "./a.png")
    assert [path.name for (path,) in found.images] == ["a.png", "a.png"]
    assert found.fingerprint == file_fingerprint(data)
    with pytest.raises(InbolError, match=r"instructions\.jsonl: 1 of its images cannot be used"):
        read("a.png", name.format(tmp_path), "a.png")
    write_json(meta_path(data), {"images": 7})
    with pytest.raises(InbolError, match=r"Expected .str., got .int. - at ..\.images"):
        read_data(SftConfig(data=data, out=tmp_path), Instruction.from_json, "instruction")


@pytest.mark.parametrize(
    ("file", "change", "warning"),
    [
        ("train.jsonl", lambda data: data.replace(b"red", b"blue"), "answers or questions changed"),
        ("x.png", lambda data: data[::-1], "pictures changed"),
    ],
)
def test_what_changed_since_the_build_is_said(tmp_path, capsys, file, change, warning):
    """Not that all of it lies elsewhere now."""
    store(tmp_path / "run", "train", LINES)
    built(tmp_path / "run", **UNCAPPED)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("data", "run"):
        (tmp_path / name).rename(moved / name)
    changed = moved / "data" / file
    for warnings in (0, 1):
        capsys.readouterr()
        for name, kind in (("instructions", Instruction), ("preferences", Preference)):
            config = SftConfig(data=moved / f"run/{name}.jsonl", out=tmp_path / "idk_it")
            read_data(config, kind.from_json, "line")
        assert capsys.readouterr().out.count(f"{warning} after") == 2 * warnings
        changed.write_bytes(change(changed.read_bytes()))


def test_what_is_hashed_is_what_was_read(data, tmp_path):
    """A file that another one replaces while it is read is neither trained on nor recorded as that
    one."""
    file, other = tmp_path / "instructions.jsonl", tmp_path / "other.jsonl"
    file.write_bytes((data / "instructions.jsonl").read_bytes())
    before = file_fingerprint(file)
    other.write_text(file.read_text().replace('"response": "', '"response": "not '))

    def parse(row):
        if other.exists():
            other.replace(file)
        return Instruction.from_json(row)

    images = Path(data / read_meta(data / "instructions.jsonl")["images"])
    config = SftConfig(data=file, out=tmp_path, images=images)
    (found,) = read_data(config, parse, "instruction")
    assert found.fingerprint == before != file_fingerprint(file)
    assert not any(line.response.startswith("not ") for line in found.lines)


@pytest.mark.parametrize("change", [lambda lines: lines[:3], lambda lines: lines + lines[:1]])
def test_a_file_of_other_lines_than_its_header_counts_is_refused(data, micro, tmp_path, change):
    """It was cut, or something was appended; without a header it is a user's own."""
    lines = (data / "instructions.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "instructions.jsonl"
    file.write_text("".join(change(lines)))
    images = json.loads(meta_path(data / "instructions.jsonl").read_bytes())["images"]
    folder = os.path.normpath(data / images)
    write_json(meta_path(file), {"images": os.path.relpath(folder, tmp_path), "rows": 16})
    config = SftConfig(data=file, out=tmp_path)
    count = len(change(lines))
    message = rf"jsonl holds {count} lines, and by its header 16; delete it and give its command"
    with pytest.raises(InbolError, match=message):
        read_data(config, Instruction.from_json, "instruction")
    write_json(meta_path(file), {})
    with pytest.raises(InbolError, match="jsonl: it was not written to its end"):
        read_data(config, Instruction.from_json, "instruction")
    meta_path(file).unlink()
    config = SftConfig(data=file, out=tmp_path, images=Path(folder))
    (found,) = read_data(config, Instruction.from_json, "instruction")
    assert len(found.lines) == count
