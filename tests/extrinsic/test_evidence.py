import numpy as np
import pytest
from extrinsic_cases import Eye, example, run_funnel
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.evidence import WINDOWS, cover


@pytest.fixture
def eye(tmp_path):
    """A witness of pictures with a red spot in the first or second corner, or none."""
    for i, corner in enumerate([(2, 2), (30, 20), None]):
        image = Image.new("RGB", (40, 40), (90, 90, 90))
        if corner:
            image.paste((255, 0, 0), (*corner, corner[0] + 5, corner[1] + 5))
        image.save(tmp_path / f"{i}.png")
    return Eye(tmp_path)


@pytest.mark.parametrize("size", [(80, 60), (7, 5), (1, 1)])
@pytest.mark.parametrize("window", WINDOWS)
def test_what_is_covered_is_gone_and_the_rest_is_there(size, window):
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    found = np.asarray(cover(Image.fromarray(pixels), window))
    left, top = round(window[0] * size[0]), round(window[1] * size[1])
    right, bottom = left + round(0.6 * size[0]), top + round(0.6 * size[1])
    assert found.shape == pixels.shape
    inside = found[top:bottom, left:right]
    assert (inside == inside[:1, :1]).all()  # one colour
    outside = np.ones(found.shape[:2], bool)
    margin = 5
    outside[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = False
    assert np.array_equal(found[outside], pixels[outside])


def test_evidence_by_occlusion(tmp_path, eye):
    examples = [example(i, answers=["red"]) for i in range(3)]  # the last one it does not know
    examples.append(example(3, image="2.png", answers=["no"]))  # and this one it knows blindly
    rows, _, set_aside = run_funnel(examples, "evidence_removed", root=tmp_path, model=eye)
    assert {r["id"]: r["removed"]["window"] for r in rows} == {
        "q0-evidence_removed": [0, 0, 0.6, 0.6],
        "q1-evidence_removed": [0.4, 0, 0.6, 0.6],
    }
    assert set_aside == {("evidence_removed", "model does not say where the evidence is"): 2}
    for row in rows:
        i = int(row["id"].removeprefix("q").split("-")[0])
        assert row["question"] == examples[i].question
        assert row["removed"]["image"] == f"{i}.png"
        assert (row["answerable"], row["answers"]) == (False, [])
        assert row["images"][0].startswith("evidence_removed/")
        assert load_image(tmp_path / row["images"][0]).size == (40, 40)
        assert eye.answer(tmp_path / row["images"][0]).text == "no"
    assert eye.asked == [4, 3 * (len(WINDOWS) + 1)]
    before = {p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()}
    again = run_funnel(examples, "evidence_removed", root=tmp_path, model=eye)
    assert again.rows == rows
    after = {p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()}
    assert after == before, "nothing else is left there"


def test_a_changed_jpeg_is_a_jpeg(tmp_path, eye):
    load_image(tmp_path / "0.png").save(tmp_path / "a.JPG", "JPEG", quality=100, subsampling=0)
    examples = [example(0, image="a.JPG")]
    ((made,), *_) = run_funnel(examples, "evidence_removed", root=tmp_path, model=eye)
    with Image.open(tmp_path / made["images"][0]) as image:
        assert image.format == "JPEG"


def test_a_folder_that_cannot_be_written(tmp_path, eye):
    (tmp_path / "evidence_removed").write_text("a file in its place")
    with pytest.raises(InbolError, match="altered images go there"):
        run_funnel([example(0)], "evidence_removed", root=tmp_path, model=eye)
