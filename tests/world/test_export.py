import datasets
import numpy as np
import pytest
from PIL import Image
from world_oracle import EXPORTED

from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.world.config import ExportConfig, Split
from inbol_jax.world.export import examples, export


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("split", EXPORTED)
def test_export_is_the_same_bytes_from_the_same_seed(split, tmp_path, capsys):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        export(ExportConfig(tmp_path / name, split, 6, seed=seed))
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert first["data.jsonl"] != other["data.jsonl"]
    a, b = ({data for name, data in f.items() if name.endswith(".png")} for f in (first, other))
    assert len(a) == len(b) == 6
    assert not a & b


def test_more_questions_leave_the_first_ones_as_they_are():
    few, many = (list(examples(Split.TRAIN, n, 3)) for n in (5, 9))
    assert [e for e, _ in few] == [e for e, _ in many[:5]]
    assert all((a == b).all() for (_, a), (_, b) in zip(few, many, strict=False))


def test_an_export_is_an_ordinary_dataset(tmp_path, capsys):
    export(ExportConfig(tmp_path / "test", Split.TEST, 30))
    names = {p.name for p in (tmp_path / "test").iterdir()}
    assert names == {"data.jsonl", "data.jsonl.meta.json", "images"}
    datasets.disable_progress_bars()
    lines, cache = str(tmp_path / "test/data.jsonl"), str(tmp_path / "cache")
    table = datasets.load_dataset("json", data_files=lines, split="train", cache_dir=cache)
    assert table.num_rows == 30
    columns = {"id", "images", "question", "answers", "answerable", "kind", "objects"}
    assert columns <= set(table.column_names)
    assert sum(table["answerable"]) == 20
    dataset = load_dataset_folder(tmp_path / "test")
    assert (len(dataset.examples), dataset.rejected, dataset.name) == (30, [], "test")
    assert [e.id for e in dataset.examples] == table["id"][:]
    with Image.open(dataset.root / dataset.examples[0].image) as image:
        assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "PNG")
    drawn = [picture for _, picture in examples(Split.TEST, 30, 0)]
    stored = [np.asarray(Image.open(dataset.root / e.image)) for e in dataset.examples]
    assert all((a == b).all() for a, b in zip(drawn, stored, strict=True))


def test_an_export_that_is_killed_is_made_by_the_same_command(tmp_path, kills):
    export(ExportConfig(tmp_path / "whole", Split.TRAIN, 3))
    assert kills(lambda: export(ExportConfig(tmp_path / "out", Split.TRAIN, 3))) == 6
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_export_does_nothing_twice_and_overwrites_nothing(tmp_path, capsys):
    config = ExportConfig(tmp_path / "set", Split.TRAIN, 5)
    export(config)
    before = {p: p.stat().st_mtime_ns for p in config.out.rglob("*")}
    export(config)
    assert {p: p.stat().st_mtime_ns for p in config.out.rglob("*")} == before
    for other in (
        ExportConfig(config.out, Split.TRAIN, 6),
        ExportConfig(config.out, Split.TEST, 5),
        ExportConfig(config.out, Split.TRAIN, 5, seed=1),
    ):
        with pytest.raises(InbolError, match=r"was made with --.*, and now --"):
            export(other)
    assert {p: p.stat().st_mtime_ns for p in config.out.rglob("*")} == before
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "data.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(InbolError, match="was not made by `inbol world export`"):
        export(ExportConfig(foreign, Split.TRAIN, 5))
    assert (foreign / "data.jsonl").read_text() == '{"id": "1"}\n'


def test_an_export_that_cannot_be(tmp_path):
    with pytest.raises(InbolError, match="--n 0"):
        ExportConfig(tmp_path, n=0)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_an_export_has_as_many_questions_as_are_asked_for(n, tmp_path):
    """Of Type 3 the share of the split."""
    for split in EXPORTED:
        export(ExportConfig(tmp_path / split, split, n))
        dataset = load_dataset_folder(tmp_path / split)
        assert (len(dataset.examples), dataset.rejected) == (n, [])
        type3 = sum(e.answerable is False for e in dataset.examples)
        assert type3 == n - (0 if split is Split.OOD_KINDS else round(n / (1 + split.type3)))
