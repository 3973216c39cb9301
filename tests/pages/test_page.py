import struct

import pytest
from PIL import Image

from inbol_jax.pages.page import MAX_TEXT, embed, short


def test_embedded_images_are_small_pngs_of_pixels_alone(tmp_path):
    Image.new("RGB", (16, 12), "red").save(tmp_path / "0.png")
    Image.new("RGB", (900, 400), "blue").save(tmp_path / "1.png")
    tiny, large = embed(tmp_path, "0.png"), embed(tmp_path, "1.png")
    assert tiny.small
    assert not large.small
    assert tiny.uri.startswith("data:image/png;base64,")
    assert len(large.uri) < 4000


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "link.png",
        "/etc/passwd",
        "",
        "nul\0.png",
        "folder",
        "missing.png",
        "broken.png",
        "huge.png",
    ],
)
def test_images_that_cannot_be_shown_say_why(name, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")  # can be read, and must not be
    folder = tmp_path / "images"
    (folder / "folder").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    # a header that claims 20,000 x 20,000 pixels: refused without being decoded
    Image.new("1", (8, 8)).save(folder / "huge.png")
    data = bytearray((folder / "huge.png").read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    (folder / "huge.png").write_bytes(data)
    result = embed(folder, name)
    assert result.uri == ""
    assert result.note


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_can_be_embedded(mode, tmp_path):
    name = "x.jpg" if mode == "CMYK" else "x.png"
    Image.new(mode, (20, 30)).save(tmp_path / name)
    assert embed(tmp_path, name).uri


def test_long_texts_are_cut():
    assert short("a" * MAX_TEXT) == "a" * MAX_TEXT
    assert short("a" * MAX_TEXT + "b") == "a" * MAX_TEXT + "…"
