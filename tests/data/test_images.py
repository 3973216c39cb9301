import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, PngImagePlugin

from inbol_jax.data.images import ImageError, image_size, image_suffix, load_image
from inbol_jax.errors import InbolError

# 4 wide, 3 high, every pixel of another colour, so that each orientation differs.
CHANNELS = np.broadcast_arrays(np.arange(4) * 60, np.arange(3)[:, None] * 90, 200)
PIXELS = np.stack(CHANNELS, -1).astype(np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def pixels(path):
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *chunks):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp", "a.jpg"])
def test_formats(tmp_path, name):
    quality = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100, "subsampling": 0}}
    path = save(tmp_path / name, PIXELS, **quality.get(name, {}))
    tolerance = 4 if name == "a.jpg" else 0
    np.testing.assert_allclose(pixels(path).astype(int), PIXELS, atol=tolerance)


def test_postscript_is_never_run_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, "EPS")
    with pytest.raises(ImageError, match=r"a\.png: not an image in one of the formats JPEG"):
        load_image(path)
    with pytest.raises(ImageError):
        image_suffix(path.read_bytes())


# What is stored under each orientation, given what is to be seen.
STORED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.swapaxes(0, 1),
    6: np.rot90(PIXELS),
    7: np.rot90(PIXELS, 2).swapaxes(0, 1),
    8: np.rot90(PIXELS, -1),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    stored = np.ascontiguousarray(STORED[orientation])
    path = save(tmp_path / f"a.{suffix}", stored, exif=exif, **options.get(suffix, {}))
    difference = np.abs(pixels(path).astype(int) - PIXELS)
    assert difference.max() <= (4 if suffix == "jpg" else 0)
    assert load_image(path).getexif().get(0x0112, 1) == 1
    assert image_size(path) == load_image(path).size


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_orientation_in_xmp_turns_the_size_as_well(tmp_path, suffix):
    said = '<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", said)
    options = {"tif": {"tiffinfo": {700: said.encode()}}, "png": {"pnginfo": text}}
    stored = np.ascontiguousarray(STORED[6])
    path = save(tmp_path / f"a.{suffix}", stored, **options.get(suffix, {"xmp": said.encode()}))
    assert image_size(path) == load_image(path).size == PIXELS.shape[1::-1]


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    wide = np.array([[0, 255, 256, 0x1234], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], np.uint16)
    expected = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, -1)
    np.testing.assert_array_equal(pixels(save(tmp_path / "a.png", wide)), expected)
    np.testing.assert_array_equal(pixels(save(tmp_path / "a.tif", wide)), expected)
    np.testing.assert_array_equal(pixels(save(tmp_path / "big.tif", wide.astype(">u2"))), expected)
    white_is_0 = save(tmp_path / "negative.tif", 0xFFFF - wide, tiffinfo={262: 0})
    np.testing.assert_array_equal(pixels(white_is_0), expected)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 2 65535\n" + wide.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(tmp_path / "a.pgm"), expected)
    rows = [row.astype(">u2").tobytes() for row in wide]
    (tmp_path / "key.png").write_bytes(png(4, 2, 16, 0, rows, chunk(b"tRNS", b"\x12\x34")))
    expected[0, 3] = 255
    np.testing.assert_array_equal(pixels(tmp_path / "key.png"), expected)


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    assert pixels(save(tmp_path / "rgba.png", rgba)).tolist() == expected
    la = np.array([[[10, 255], [10, 0], [0, 51]]], np.uint8)
    (tmp_path / "la.png").write_bytes(png(3, 1, 8, 4, [la.tobytes()]))
    assert pixels(tmp_path / "la.png").tolist() == [[[10] * 3, [255] * 3, [204] * 3]]
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    alpha = chunk(b"tRNS", bytes([255, 0]))
    (tmp_path / "p.png").write_bytes(png(3, 1, 8, 3, [bytes([0, 1, 2])], palette, alpha))
    assert pixels(tmp_path / "p.png").tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    (tmp_path / "key.png").write_bytes(png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], key))
    assert pixels(tmp_path / "key.png").tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_palette_grey_bilevel_and_cmyk(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.putdata([1, 0])
    image.save(tmp_path / "p.gif")
    assert pixels(tmp_path / "p.gif").tolist() == [[[4, 5, 6], [1, 2, 3]]]
    grey = save(tmp_path / "l.png", np.array([[7, 200]], np.uint8))
    assert pixels(grey).tolist() == [[[7] * 3, [200] * 3]]
    bilevel = save(tmp_path / "1.png", np.array([[0, 255]], np.uint8), "1")
    assert pixels(bilevel).tolist() == [[[0] * 3, [255] * 3]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert abs(pixels(tmp_path / "c.jpg").astype(int) - [255, 0, 0]).max() <= 4


def noise(path):
    return save(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.ppm", "a.tif"])
def test_truncated_files(tmp_path, name):
    path = noise(tmp_path / name)
    assert pixels(path).shape == (64, 64, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InbolError, match=rf"^{path}: .+"):
        load_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tif"])
def test_damaged_files_load_or_are_named(tmp_path, name):
    path = noise(tmp_path / name)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    named = 0
    for _ in range(100):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, 200, 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes())
        try:
            assert load_image(path).mode == "RGB"
        except InbolError as error:
            named += str(error).startswith(f"{path}: ")
    assert named > 10


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InbolError, match=r"a\.png: not an image in one of the formats JPEG"):
        load_image(tmp_path / "a.png")
    with pytest.raises(InbolError, match=r"b\.png: cannot be read as an image \(No such file"):
        load_image(tmp_path / "b.png")
    with pytest.raises(InbolError, match="cannot be read as an image"):
        load_image(tmp_path)
    # Whatever is made of them is black or white. The last one is signed, of 8 bits.
    for dtype, signed in ((np.float32, {}), (np.int32, {}), (np.uint32, {}), (np.uint8, {339: 2})):
        save(tmp_path / "f.tif", np.arange(4, dtype=dtype).reshape(2, 2), tiffinfo=signed)
        for read in (load_image, image_size):
            with pytest.raises(ImageError, match=r"f\.tif: .*\(its pixels have no defined range"):
                read(tmp_path / "f.tif")


# Above our limit, above the size at which Pillow warns, above the one at which it raises.
@pytest.mark.parametrize(("width", "height"), [(8000, 5001), (10_000, 10_000), (20_000, 20_000)])
def test_size_is_checked_before_decoding(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height, 8, 2, [b"no such row"]))
    with pytest.raises(InbolError, match=r"bomb\.png: .*pixels, the limit is 40,000,000"):
        load_image(tmp_path / "bomb.png")


def test_no_global_state_changes(tmp_path):
    def state():
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    before = state()
    load_image(save(tmp_path / "a.png", PIXELS))
    with pytest.raises(InbolError):
        load_image(tmp_path / "missing.png")
    assert state() == before
