"""One image from bytes to pixels: every mode, every kind of damage, every impostor, each with its whole text."""

import json

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from fusain.data import fitting
from fusain.data.images import Conversion, decode
from fusain.data.shapes import Shape
from fusain.errors import DataError
from tests.unit.pictures import encoded, noise, png

LIMIT = 1_000_000
AGAIN = "Do: Copy or download it again, or remove it."


def refusal(content, name="img.jpg", limit=LIMIT):
    with pytest.raises(DataError) as caught:
        decode(content, name, limit)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_an_rgb_png_is_untouched():
    decoded = decode(encoded(noise()), "a.png", LIMIT)
    assert np.array_equal(decoded.pixels, noise())
    assert decoded.conversions == Conversion(0)


@pytest.mark.parametrize(
    ("kind", "part"),
    [("PNG", " (decoded {} %)"), ("TIFF", " (decoded {} %)"), ("WEBP", " ({} % of its bytes are there)"), ("GIF", "")],
)
def test_a_truncated_image_says_how_much_is_there(kind, part):
    content = encoded(noise(0, 64, 64), kind)
    text = refusal(content[: int(len(content) * 0.615)])
    share = int(text.partition("(")[2].removeprefix("decoded ").partition(" %")[0]) if part else 0
    assert not part or 58 <= share <= 62
    assert text == (
        f"E-DATA-011 'img.jpg' is cut off{part.format(share)}.\nWhere: img.jpg\n"
        f"Why: A copy or a download broke off.\n{AGAIN}"
    )


def test_a_truncated_jpeg_says_how_much_was_decoded():
    content = encoded(noise(0, 512, 64), "JPEG", quality=95)
    text = refusal(content[: int(len(content) * 0.5)])
    share = int(text.partition("decoded ")[2].partition(" %")[0])
    assert 40 <= share <= 52
    assert text == (
        f"E-DATA-011 'img.jpg' is cut off (decoded {share} %).\nWhere: img.jpg\n"
        f"Why: A copy or a download broke off.\n{AGAIN}"
    )
    progressive = encoded(noise(0, 64, 64), "JPEG", progressive=True)
    assert "E-DATA-011 'img.jpg' is cut off.\n" in refusal(progressive[: len(progressive) // 2])


def test_half_an_image_is_never_taken():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_wrong_checksum_is_damage():
    content = bytearray(encoded(noise(0, 64, 64)))
    content[content.find(b"IDAT") + 200] ^= 1
    assert refusal(bytes(content)) == (
        f"E-DATA-016 'img.jpg' is damaged: broken data stream when reading image file.\nWhere: img.jpg\n{AGAIN}"
    )


def test_an_empty_file():
    assert refusal(b"") == (
        f"E-DATA-012 'img.jpg' is empty (0 bytes).\nWhere: img.jpg\nWhy: A copy or a download broke off.\n{AGAIN}"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html><html><body>404 <svg></svg>", "an HTML page (failed download?): download it again"),
        (b"\n <html lang='en'>", "an HTML page (failed download?): download it again"),
        (json.dumps({"error": 1}).encode(), "JSON text (failed download?): download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git-LFS pointer: run: git lfs pull"),
        (b"<?xml version='1.0'?><svg xmlns=''>", "an SVG drawing: export it as PNG"),
        (b"<?xml version='1.0'?><rss>", "an XML document (failed download?): download it again"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo, which cannot be read here: convert it to JPEG or PNG"),
        (b"%PDF-1.7\n", "a PDF document: export its pages as images"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video (MP4 or QuickTime): take single frames out of it"),
        (b"\x1aE\xdf\xa3\x01", "a video (Matroska or WebM): take single frames out of it"),
        (b"RIFF\0\0\0\0AVI LIST", "a video (AVI): take single frames out of it"),
        (b"PK\x03\x04\x14", "a ZIP archive: unpack it first"),
        (b"hello", "plain text: remove it"),
        (bytes(500), "nothing but zeros (failed download or disk fault?): download it again"),
        (b"\x01\x02\x03", "not an image of a known format: convert it to PNG or JPEG, or remove it"),
    ],
)
def test_impostors_are_named(content, text):
    assert refusal(content) == f"E-DATA-013 'img.jpg' is {text}.\nWhere: img.jpg"


def test_a_bomb_is_refused_from_its_header():
    text = refusal(png(30_000, 30_000, 8, 2, b""), limit=100_000_000)
    assert text == (
        "E-DATA-014 'img.jpg' is too large: 30000 x 30000 = 900,000,000 pixels, "
        "and data.max_pixels is 100,000,000.\nWhere: img.jpg\n"
        "Why: It was put aside before it was decoded, for it could fill the memory.\n"
        "Do: Make it smaller, or set data.max_pixels higher if it is what it should be."
    )


def test_cmyk():
    decoded = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), "a.jpg", LIMIT)
    assert decoded.conversions == Conversion.CMYK
    assert np.abs(decoded.pixels[0, 0].astype(int) - (255, 0, 0)).max() <= 2


def test_sixteen_bits():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    decoded = decode(encoded(Image.fromarray(values)), "a.png", LIMIT)
    assert decoded.conversions == Conversion.DEEP | Conversion.GRAY
    assert np.array_equal(decoded.pixels[..., 0], np.rint(values / 257).astype(np.uint8))
    rows = b"".join(b"\0" + (noise()[y].astype(">u2") * 257).tobytes() for y in range(16))
    colour = decode(png(16, 16, 16, 2, rows), "b.png", LIMIT)
    assert colour.conversions == Conversion.DEEP
    assert np.array_equal(colour.pixels, noise())


def test_numbers_with_a_point():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    decoded = decode(encoded(Image.fromarray(values), "TIFF"), "a.tif", LIMIT)
    assert decoded.conversions == Conversion.DEEP | Conversion.GRAY
    assert np.array_equal(decoded.pixels[..., 0], np.rint(values * 255).astype(np.uint8))


def test_palette_gray_and_two_tones():
    red = Image.new("RGB", (8, 8), (200, 10, 10))
    assert decode(encoded(red.quantize(4)), "a.png", LIMIT).conversions == Conversion.PALETTE
    gray = decode(encoded(Image.new("L", (8, 8), 77)), "b.png", LIMIT)
    assert gray.conversions == Conversion.GRAY
    assert (gray.pixels == 77).all()
    assert (decode(encoded(Image.new("1", (8, 8), 1)), "c.png", LIMIT).pixels == 255).all()


def test_transparency_lies_over_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (255, 0, 0, 255)
    pixels[6:] = (0, 0, 0, 128)
    decoded = decode(encoded(Image.fromarray(pixels)), "a.png", LIMIT)
    assert decoded.conversions == Conversion.ALPHA
    assert decoded.pixels[[0, 5, 7], 0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    opaque = decode(encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 255))), "b.png", LIMIT)
    assert opaque.conversions == Conversion(0)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9, 8, 8, 8])
    through = decode(encoded(palette, transparency=0), "c.png", LIMIT)
    assert through.conversions == Conversion.PALETTE | Conversion.ALPHA
    assert (through.pixels == 255).all()


def test_turned_photos_stand_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(Image.fromarray(noise(0, 4, 8)), exif=exif), "a.png", LIMIT)
    assert decoded.conversions == Conversion.TURNED
    assert np.array_equal(decoded.pixels, np.rot90(noise(0, 4, 8), -1))


def test_colour_profiles_become_srgb():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode(encoded(Image.fromarray(noise()), icc_profile=srgb), "a.png", LIMIT)
    assert same.conversions == Conversion(0)
    assert np.array_equal(same.pixels, noise())
    # A profile of its own: what it calls red is green.
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    other = decode(encoded(Image.new("RGB", (4, 4), "red"), icc_profile=swapped), "b.png", LIMIT)
    assert other.conversions == Conversion.PROFILE
    assert np.abs(other.pixels[0, 0].astype(int) - (0, 255, 0)).max() <= 2
    broken = decode(encoded(Image.fromarray(noise()), icc_profile=b"nonsense"), "c.png", LIMIT)
    assert broken.conversions == Conversion.BAD_PROFILE
    assert np.array_equal(broken.pixels, noise())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_only_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    decoded = decode(content, "a", LIMIT)
    assert Conversion.FIRST_FRAME in decoded.conversions
    assert decoded.pixels[0, 0].tolist() == [255, 0, 0]


SQUARE = Shape(16, 16)


def test_the_right_size_is_untouched_and_others_have_their_shorter_side_fitted():
    assert fitting.resized(noise(), SQUARE) is not None
    assert np.array_equal(fitting.resized(noise(), SQUARE), noise())
    assert fitting.resized(noise(0, 32, 48), SQUARE).shape == (16, 24, 3)
    assert fitting.resized(noise(0, 8, 8), SQUARE).shape == (16, 16, 3)
    assert fitting.resized(noise(0, 1, 1), SQUARE).shape == (16, 16, 3)


def test_crops_reach_both_ends_and_the_middle():
    wide, room = noise(0, 16, 20), np.asarray([[0, 4]] * 2, np.int32)
    assert np.array_equal(fitting.centred(wide, SQUARE), wide[:, 2:18])
    assert fitting.corners(room).tolist() == [[0, 2]] * 2
    assert fitting.corners(room, np.asarray([0.0, 0.999])).tolist() == [[0, 0], [0, 4]]
    assert np.array_equal(fitting.cropped(wide, SQUARE, 0, 4), wide[:, 4:])
