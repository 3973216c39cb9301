import numpy as np
import pytest
from extrinsic_cases import THINGS, Eye, example, run_funnel
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic import evidence
from inbol_jax.extrinsic.evidence import evidence_boxes, remove


def pictures(folder, n, size=(40, 30)):
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(
            folder / f"{i}.png"
        )
    return folder


def test_boxes_of_a_record():
    assert evidence_boxes(example(0, evidence=[[1, 2, 3, 4.5]])) == [(1, 2, 3, 4.5)]
    assert evidence_boxes(example(0)) is None


BAD = [
    "1 2 3 4",
    [],
    [[1, 2, 3]],
    [[1, 2, 3, "4"]],
    [[1, 2, float("inf"), 4]],
    [[1, 2, 0, 4]],
    [{}],
]


@pytest.mark.parametrize("bad", [*BAD, [None]])
def test_boxes_that_are_none(bad):
    with pytest.raises(InbolError, match="evidence "):
        evidence_boxes(example(0, evidence=bad))


@pytest.mark.parametrize("how", ["mask", "crop"])
def test_what_is_removed_is_gone_and_the_rest_is_there(how):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    pixels[20:30, 10:26] = (255, 0, 0)
    pixels[20:30, 14:16] = (0, 255, 0)
    result, done = remove(Image.fromarray(pixels), [(10, 20, 16, 10)], how)
    found = np.asarray(result)
    assert done == how
    if how == "crop":
        assert np.array_equal(found, pixels[:, 27:])  # what is right of the box is the largest part
        return
    changed = (found != pixels).any(axis=2)
    assert changed[20:30, 10:26].all()
    outside = changed.copy()
    outside[19:31, 9:27] = False
    assert not outside.any()
    inside = found[20:30, 10:26]
    assert (inside == inside[0, 0]).all()  # one colour


def test_boxes_at_the_borders():
    image = Image.new("RGB", (20, 10), "red")
    assert remove(image, [(-5, -5, 100, 100)], "crop")[1] == "mask"  # nothing would be left
    assert remove(image, [(15, 5, 50, 50), (900, 0, 5, 5)], "mask")[1] == "mask"
    for box in ((20, 0, 5, 5), (-9, 0, 5, 5), (0, 10, 5, 5)):
        with pytest.raises(InbolError, match="evidence outside the image"):
            remove(image, [box], "mask")


def test_evidence_by_boxes(tmp_path):
    examples = [
        example(i, f"What is the {THINGS[i % 8]} doing?", evidence=[[4, 4, 8, 8]])
        for i in range(12)
    ]
    odd = [[100, 100, 5, 5]], "here", [[1, 1, 5, 5]]
    examples += [*(example(i, evidence=e) for i, e in enumerate(odd, 12)), example(15)]
    pictures(tmp_path, 14)
    (tmp_path / "14.png").write_bytes(b"no picture")
    rows, _, set_aside, _ = run_funnel(examples, "evidence_removed", root=tmp_path)
    assert len(rows) == 12
    assert set_aside == {
        ("evidence_removed", "evidence outside the image"): 1,
        ("evidence_removed", "evidence is no list of [left, top, width, height]"): 1,
        ("evidence_removed", "not an image"): 1,
        ("evidence_removed", "neither record nor model says where"): 1,
    }
    assert {r["removed"]["how"] for r in rows} == {"mask", "crop"}
    for row in rows:
        i = int(row["id"].removeprefix("q").split("-")[0])
        assert row["question"] == examples[i].question
        assert row["removed"] | {"how": ""} == {
            "image": f"{i}.png",
            "how": "",
            "by": "boxes",
            "boxes": [[4, 4, 8, 8]],
        }
        assert not row["answerable"]
        assert row["answers"] == []
        assert row["images"][0].startswith("evidence_removed/")
        whole, changed = load_image(tmp_path / f"{i}.png"), load_image(tmp_path / row["images"][0])
        assert (changed.size != whole.size) == (row["removed"]["how"] == "crop")
    assert len({r["images"][0] for r in rows}) == 12
    before = {p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()}
    assert run_funnel(examples, "evidence_removed", root=tmp_path).rows == rows
    after = {p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()}
    assert after == before, "nothing else is left there"


def test_a_changed_jpeg_is_a_jpeg(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.JPG", "JPEG")
    examples = [example(0, image="a.JPG", evidence=[[4, 4, 8, 8]])]
    ((made,), *_) = run_funnel(examples, "evidence_removed", root=tmp_path)
    with Image.open(tmp_path / made["images"][0]) as image:
        assert image.format == "JPEG"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "evidence_removed").write_text("a file in its place")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "0.png")
    with pytest.raises(InbolError, match="altered images go there"):
        run_funnel([example(0, evidence=[[4, 4, 8, 8]])], "evidence_removed", root=tmp_path)


def test_evidence_by_occlusion(tmp_path):
    for i, corner in enumerate([(2, 2), (30, 20), None]):
        image = Image.new("RGB", (40, 40), (90, 90, 90))
        if corner:
            image.paste((255, 0, 0), (*corner, corner[0] + 5, corner[1] + 5))
        image.save(tmp_path / f"{i}.png")
    eye = Eye(tmp_path)
    examples = [example(i, answers=["red"]) for i in range(3)]  # the last one it does not know
    examples.append(example(3, image="2.png", answers=["no"]))  # and this one it knows blindly
    rows, _, set_aside, _ = run_funnel(examples, "evidence_removed", root=tmp_path, model=eye)
    assert {r["id"]: r["removed"]["boxes"] for r in rows} == {
        "q0-evidence_removed": [[0, 0, 24, 24]],
        "q1-evidence_removed": [[16, 0, 24, 24]],
    }
    assert {r["removed"]["by"] for r in rows} == {"occlusion"}
    assert set_aside == {("evidence_removed", "neither record nor model says where"): 2}
    for row in rows:
        assert eye.answer(tmp_path / row["images"][0]).text == "no"
    assert eye.asked == [4, 3 * (len(evidence.WINDOWS) + 1)]
