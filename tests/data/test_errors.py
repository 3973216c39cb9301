"""What is refused, with the message that names the mend."""

import json

import datasets
import pytest
from sample_sets import picture, stored, write_hub, write_images

from inbol_jax.data.config import CheckConfig, ImportConfig
from inbol_jax.errors import InbolError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no dataset is named: give --id, or --format"),
        ({"format": "unkvqa"}, "no dataset is named"),
        ({"format": "coco", "id": "x"}, "--format coco: choose one of columns, vqav2"),
        ({"format": "vqav2", "id": "q.json"}, "--format vqav2 needs --annotations"),
        ({"format": "gqa", "id": "q.json", "annotations": "a"}, "gqa has its own answers"),
        ({"format": "gqa", "id": "q.json"}, "--id q.json: no such file"),
        ({"format": "unkvqa", "id": "x", "split": "val"}, "reads the set's own file: give it by"),
        ({"id": "x"}, "--split is needed"),
        (
            {"id": "x", "annotations": "a", "split": "val"},
            "--annotations goes with an official file",
        ),
        ({"id": "x", "split": "val", "limit": 0}, "--limit 0"),
        ({"id": "x", "split": "val", "metric": "bleu"}, "'bleu' is not known"),
        ({"id": "x", "split": "val", "images": "nowhere"}, "--images nowhere: no such folder"),
    ],
)
def test_options_that_do_not_go_together(read, options, message):
    with pytest.raises(InbolError, match=message):
        read(**options)


@pytest.mark.parametrize("config", [ImportConfig, CheckConfig])
def test_the_share_that_may_be_set_aside_is_a_share(tmp_path, config):
    paths = [tmp_path] if config is ImportConfig else [tmp_path, tmp_path / "out"]
    with pytest.raises(InbolError, match=r"--max-rejected 2: at least 0 and at most 1 is needed"):
        config(*paths, max_rejected=2)


def rows(image, **columns):
    return [{"question": "What?", "answers": "x", "image": image} | columns for _ in range(2)]


# (rows of rows.json, options, message); pictures/0.png is there.
REFUSED = [
    ([[1, 2], [3, 4]], {}, "2 not a JSON object"),
    ([1, 2], {}, "2 not a JSON object"),
    (rows(0), {}, r"2 image not a picture or path \(--image-template makes"),
    (rows(True), {"images": "pictures"}, r"2 image not a picture or path \("),
    (rows("0.png"), {}, r"2 image missing \(first: line 1, looked for /.*/0.png\)"),
    (rows("1.png"), {"images": "pictures"}, r"2 image missing .*looked for /.*/pictures/1.png"),
    (rows("0"), {"images": "pictures"}, ".*; --image-column names .* --image-template paths"),
    (rows(None), {}, r"2 image missing \(first: line 1, the row has question, answers, image\)"),
    (rows("link/0.png"), {"images": "pictures"}, r"2 image outside .*elsewhere/0.png\).*; --im"),
    (rows("0.png"), {"image_column": "photo"}, r"2 image missing .*the row has question, "),
    (rows("pictures/0.png"), {"question_column": "q"}, "2 Object missing required field `q"),
    (rows([["0.png"]]), {"images": "pictures"}, "2 image not a picture or path"),
    (rows(["0.png", None]), {"images": "pictures"}, "2 image missing"),
    (rows({"path": "0.png"}), {}, r"2 image missing .*looked for"),
    (rows("a0"), {"image_template": "pictures/{:02d}.png"}, "--image-template pict.*: 'a0'"),
    *(([], {"image_template": t}, "--image-template .*: one {} is needed")
      for t in ("images/x.jpg", "{}{}", "{0.real}", "{", "{id}")),
    ([], {"id": "nowhere.csv"}, "--id nowhere.csv: no such file"),
    ([], {"id": "elsewhere/0.bin"}, "--id elsewhere/0.bin: a file must end with one of .csv"),
    ([], {"id": "hub", "split": "val"}, "--id hub: give --split, one of train"),
    ([], {"id": "broken"}, "--id broken: no set that `datasets` can load"),
    ([], {"id": "nobody/nothing", "split": "val"}, "--id nobody/nothing: no set that"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "options", "message"), REFUSED)
def test_what_cannot_be_read_says_what_helps(tmp_path, read, monkeypatch, found, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_images(tmp_path / "pictures", "0.png")
    write_images(tmp_path / "elsewhere", "0.png", "0.bin")
    (tmp_path / "pictures/link").symlink_to("../elsewhere")
    (tmp_path / "rows.json").write_text(json.dumps(found))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.parquet").write_bytes(b"PAR1 broken")
    if options.get("id") == "hub":
        write_hub(tmp_path / "hub", "train", [{"image": stored(picture(0)), "question": "What?"}])
    with pytest.raises(InbolError, match=message):
        read(**{"id": "rows.json"} | options)
