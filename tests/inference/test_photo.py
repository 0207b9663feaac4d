"""What goes in comes out: pixels, depth, transparency, colours and EXIF data, from and to every format."""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from llie.data.decoding import TooManyPixels
from llie.errors import UserError
from llie.inference.photo import WRITTEN_SUFFIXES, Photo, decode_photo, open_photo
from llie.inference.profiles import SRGB, ColourSpace
from tests.data import icc
from tests.data.photographs import MODES, ORIENTATIONS, as_rgb, camera_raw, encoded, in_mode, noise, tiff, turned
from tests.needs import heic_only, raw_only

LOSSLESS = (".tif", ".png", ".webp")  # WebP is only so for what is read


def through(tmp_path, data: bytes, source: str, target: str) -> Photo:
    """Save a file's photograph as another file, as a network that changes nothing would."""
    (tmp_path / source).write_bytes(data)
    photo = open_photo(tmp_path / source)
    photo.save(photo.pixels, tmp_path / target)
    return photo


def by_pillow(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.getexif().get(0x0112, 1) == 1, "upright already"
        return np.array(image)


def by_opencv(path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image[..., [2, 1, 0, 3][: image.shape[2]]]


def by_llie(path) -> np.ndarray:
    photo = open_photo(path)
    return photo.pixels if photo.decoded.alpha is None else np.dstack([photo.pixels, photo.decoded.alpha])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("target", ["b.tif", "b.png"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "PA"])
def test_8_bit_tiff_of_every_mode(tmp_path, mode, compression, target, orientation):
    if compression == "group4" and mode != "1":
        compression = "jpeg" if mode in ("L", "RGB") else "zlib"
    image = in_mode(mode, (32, 16))
    data = encoded(image, "TIFF", orientation, compression=compression)
    if mode == "YCbCr" and compression in (None, "zlib"):  # not compressed; Pillow 12 does not read that
        expected = turned(as_rgb(image), orientation)
    else:
        expected = as_rgb(Image.open(io.BytesIO(data)))  # Pillow turns TIFF files upright by itself
    if orientation in (1, 6) and compression != "jpeg" and not (mode == "YCbCr" and compression):
        np.testing.assert_array_equal(expected, turned(as_rgb(image), orientation))
    through(tmp_path, data, "a.tif", target)
    np.testing.assert_array_equal(by_pillow(tmp_path / target), expected)
    np.testing.assert_array_equal(by_llie(tmp_path / target), expected)
    if expected.shape[2] == 3 or target == "b.png":  # OpenCV multiplies colours by alpha in TIFF
        np.testing.assert_array_equal(by_opencv(tmp_path / target), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("target", ["b.tif", "b.png"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_8_bit_files_into_lossless_ones(tmp_path, mode, kind, target, orientation):
    if kind != "JPEG" and mode == "CMYK":
        mode = "LA" if kind == "PNG" else "RGB"
    if kind == "JPEG" and mode == "RGBA":
        mode = "YCbCr"
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(in_mode(mode, (32, 16)), kind, orientation, **options)
    expected = turned(as_rgb(Image.open(io.BytesIO(data))), orientation)
    through(tmp_path, data, "a", target)
    np.testing.assert_array_equal(by_pillow(tmp_path / target), expected)
    np.testing.assert_array_equal(by_llie(tmp_path / target), expected)
    if expected.shape[2] == 3 or target == "b.png":
        np.testing.assert_array_equal(by_opencv(tmp_path / target), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("target", ["b.tif", "b.png"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_kept(tmp_path, channels, target, orientation):
    image = noise(np.uint16, 16, 32, channels)
    options = {1: {"photometric": "minisblack"}, 3: {"photometric": "rgb"}}.get(
        channels, {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    )
    stored = image[..., 0] if channels == 1 else image
    through(tmp_path, tiff(stored, orientation, **options), "a.tif", target)
    expected = turned(np.repeat(image, 3, 2) if channels == 1 else image, orientation)
    np.testing.assert_array_equal(by_opencv(tmp_path / target), expected)
    np.testing.assert_array_equal(by_llie(tmp_path / target), expected)
    eight = by_pillow(tmp_path / target)  # Pillow has no more than 8 bits for colours
    np.testing.assert_allclose(eight, expected / 257, atol=1)


def test_floating_point_is_kept_in_tiff_and_as_deep_as_possible_elsewhere(tmp_path):
    image = noise(np.float32, 16, 32, 3)
    through(tmp_path, tiff(image, 6, photometric="rgb"), "a.tif", "b.tif")
    expected = turned(image, 6)
    np.testing.assert_array_equal(by_llie(tmp_path / "b.tif"), expected)
    np.testing.assert_array_equal(by_opencv(tmp_path / "b.tif"), expected)
    through(tmp_path, tiff(image, 6, photometric="rgb"), "a.tif", "b.png")
    assert by_llie(tmp_path / "b.png").dtype == np.uint16
    np.testing.assert_allclose(by_llie(tmp_path / "b.png") / 65535, expected, atol=1e-5)


@pytest.mark.parametrize(
    "suffix", [pytest.param(suffix, marks=heic_only if suffix[1] == "h" else ()) for suffix in sorted(WRITTEN_SUFFIXES)]
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_every_format_is_written_and_read(tmp_path, suffix, depth):
    down, right = np.mgrid[0:48, 0:64] / 64
    image = np.rint(np.dstack([down, right, (down + right) / 2]) * np.iinfo(depth).max).astype(depth)
    through(tmp_path, tiff(image, 8, photometric="rgb"), "a.tif", f"b{suffix}")
    found = by_llie(tmp_path / f"b{suffix}")
    deep = depth == np.uint16 and suffix in (".png", ".tif", ".tiff")
    assert found.dtype == (np.uint16 if deep else np.uint8)
    white = np.iinfo(found.dtype).max
    np.testing.assert_allclose(found / white, turned(image, 8) / np.iinfo(depth).max, atol=0.03)


@pytest.mark.parametrize("target", ["b.png", "b.tif", "b.webp", "b.avif", pytest.param("b.heic", marks=heic_only)])
def test_transparency_passes_through(tmp_path, target):
    image = in_mode("RGBA", (32, 32))
    assert (
        through(tmp_path, encoded(image, "PNG"), "a.png", target).save(np.array(image)[..., :3], tmp_path / target)
        == ()
    )
    alpha = open_photo(tmp_path / target).decoded.alpha
    np.testing.assert_allclose(alpha, np.array(image)[..., 3], atol=40 if target in ("b.avif", "b.heic") else 0)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(image))


@pytest.mark.parametrize("target", ["b.jpg", "b.bmp"])
def test_transparency_that_a_format_has_not_is_reported(tmp_path, target):
    image = in_mode("RGBA")
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG"))
    photo = open_photo(tmp_path / "a.png")
    (note,) = photo.save(photo.pixels, tmp_path / target)
    assert "transparency was dropped" in note and "format png" in note
    image.putalpha(255)  # nothing is lost with this one
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG"))
    photo = open_photo(tmp_path / "a.png")
    assert photo.save(photo.pixels, tmp_path / target) == ()


def annotated(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F], exif[0x0110], exif[0x8298] = "Maker", "Model", "(c) somebody"
    exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 300.0, 2
    exif[0x4746] = 4  # stars
    exif[0x9C9B] = "Nacht\0".encode("utf-16le")
    # What must not be copied: size, bits, compression, colours, strips, further directories, tiles, colour map.
    exif[0x0100], exif[0x0101], exif[0x0102], exif[0x0106], exif[0x0111] = 999, 999, 1, 3, 77
    exif[0x014A], exif[0x0140], exif[0x0153], exif[0xC612] = 8, 1, 3, b"\1\4\0\0"
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    camera.update({0x9000: b"0232", 0x9003: "2024:12:24 18:00:00", 0x829A: IFDRational(1, 30), 0x8827: 6400})
    camera.update({0x9204: IFDRational(-2, 3), 0x927C: b"notes " * 20, 0xA001: 65535, 0xA002: 999, 0xA003: 999})
    where = exif.get_ifd(ExifTags.IFD.GPSInfo)
    where.update({0: b"\2\3\0\0", 1: "N", 2: (IFDRational(48), IFDRational(8), IFDRational(15, 4)), 5: b"\1"})
    return exif


@pytest.mark.parametrize(
    "target", ["b.jpg", "b.png", "b.tif", "b.webp", "b.avif", pytest.param("b.heic", marks=heic_only)]
)
@pytest.mark.parametrize("source", ["JPEG", "TIFF", "PNG"])
def test_tags_that_describe_the_photograph_are_kept(tmp_path, source, target):
    content = io.BytesIO()
    in_mode("RGB", (32, 16)).save(content, "PNG" if source == "PNG" else "JPEG", exif=annotated())
    through(tmp_path, content.getvalue(), "a", target)
    if source == "TIFF":  # Pillow writes no further directories into TIFF; we do
        through(tmp_path, content.getvalue(), "a", "a.tif")
        through(tmp_path, (tmp_path / "a.tif").read_bytes(), "a", target)
    with Image.open(tmp_path / target) as result:
        assert result.size == (16, 32)
        exif = result.getexif()
        camera, where = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert exif.get(0x0112, 1) == 1
    assert (exif[0x010F], exif[0x0110], exif[0x8298]) == ("Maker", "Model", "(c) somebody")
    assert (exif[0x011A], exif[0x4746]) == (300, 4)
    assert camera[0x9000] == b"0232" and camera[0x9003] == "2024:12:24 18:00:00" and camera[0x8827] == 6400
    assert camera[0x829A] == pytest.approx(1 / 30) and camera[0x9204] == pytest.approx(-2 / 3)
    assert camera[0x927C] == b"notes " * 20
    assert (camera[0xA002], camera[0xA003], camera[0xA001]) == (16, 32, 1), "of the result, which is sRGB"
    assert where[1] == "N" and where[2] == pytest.approx((48, 8, 3.75)) and where[5] == b"\1"
    assert not {0x014A, 0x0140, 0xC612} & set(exif), "nothing about the layout of the source"
    by_llie(tmp_path / target)


def test_text_keeps_its_bytes(tmp_path):
    data = bytearray(encoded(in_mode("RGB"), "JPEG"))
    artist = "Jörg".encode()
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x3b\1\2\0\6\0\0\0\x1a\0\0\0\0\0\0\0" + artist + b"\0"
    at = data.index(b"\xff\xe1")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    data[at : at + 2 + length] = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    for target in ("b.jpg", "b.tif", "b.png"):
        through(tmp_path, bytes(data), "a.jpg", target)
        assert artist in (tmp_path / target).read_bytes()


def test_malformed_exif_never_costs_a_photograph(tmp_path):
    """EXIF data with bytes changed at random: the result is there, with the right pixels."""
    content = io.BytesIO()
    in_mode("RGB", (32, 16)).save(content, "PNG", exif=annotated(1))
    data = content.getvalue()
    start = data.index(b"eXIf") + 4
    random = np.random.default_rng(2)
    for _ in range(150):
        broken = bytearray(data)
        for at in random.integers(start, start + 500, 6):
            broken[at] = random.integers(256)
        end = start + int.from_bytes(broken[start - 8 : start - 4], "big")
        broken[end : end + 4] = zlib.crc32(bytes(broken[start - 4 : end])).to_bytes(4, "big")
        photo = through(tmp_path, bytes(broken), "a.png", "b.tif")
        np.testing.assert_array_equal(by_llie(tmp_path / "b.tif"), photo.pixels)
        photo.save(photo.pixels, tmp_path / "b.jpg")


def test_too_much_exif_for_jpeg_loses_the_makers_notes_only(tmp_path):
    exif = annotated()
    exif.get_ifd(ExifTags.IFD.Exif)[0x927C] = bytes(70000)
    content = io.BytesIO()
    in_mode("RGB").save(content, "PNG", exif=exif)
    through(tmp_path, content.getvalue(), "a.png", "b.jpg")
    camera = Image.open(tmp_path / "b.jpg").getexif().get_ifd(ExifTags.IFD.Exif)
    assert 0x927C not in camera and camera[0x8827] == 6400


@pytest.mark.parametrize(
    "target", ["b.png", "b.tif", "b.jpg", "b.webp", "b.avif", pytest.param("b.heic", marks=heic_only)]
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", icc.PRIMARIES)
def test_wide_gamut_photographs_keep_their_look(tmp_path, name, depth, target):
    """The network sees sRGB, the file is in the colours it was in."""
    profile = icc.rgb_profile(name, icc.gamma(2.2))
    muted = np.full((32, 48, 3), (110, 130, 120), np.uint8)
    image = muted if depth == np.uint8 else muted.astype(np.uint16) * 257
    (tmp_path / "a.tif").write_bytes(tiff(image, photometric="rgb", iccprofile=profile))
    photo = open_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint16
    np.testing.assert_array_equal(photo.pixels, ColourSpace(profile).to_srgb(image))
    assert np.abs(photo.pixels / 257 - muted).max() > 1.5, "it is another space"
    photo.save(photo.pixels, tmp_path / target)
    again = open_photo(tmp_path / target)
    assert again.decoded.profile == profile
    kept = again.decoded.pixels
    assert kept.dtype == (depth if target in ("b.png", "b.tif") else np.uint8)
    lossless = target in ("b.png", "b.tif")
    np.testing.assert_allclose(kept / np.iinfo(kept.dtype).max, muted / 255, atol=5e-5 if lossless else 0.03)


def test_formats_without_profiles_get_srgb(tmp_path):
    profile = icc.rgb_profile("Adobe RGB", icc.gamma(2.2))
    photo = through(tmp_path, encoded(in_mode("RGB"), "PNG", icc_profile=profile), "a.png", "b.bmp")
    np.testing.assert_allclose(by_llie(tmp_path / "b.bmp"), photo.pixels / 257, atol=0.51)


def test_grey_and_cmyk_with_a_profile_become_srgb(tmp_path):
    grey = encoded(in_mode("L"), "PNG", icc_profile=icc.grey_profile(icc.gamma(1.8)))
    photo = through(tmp_path, grey, "a.png", "b.png")
    again = open_photo(tmp_path / "b.png")
    assert again.decoded.profile == SRGB and again.space is None
    np.testing.assert_allclose(again.pixels, photo.pixels / 257, atol=0.51)
    assert np.abs(again.pixels.astype(int) - photo.decoded.pixels).max() > 5


def test_a_profile_of_srgb_stays_as_it_is_and_changes_nothing(tmp_path):
    photo = through(tmp_path, encoded(in_mode("RGB"), "PNG", icc_profile=SRGB), "a.png", "b.png")
    assert photo.space is None and photo.pixels.dtype == np.uint8
    assert open_photo(tmp_path / "b.png").decoded.profile == SRGB
    np.testing.assert_array_equal(by_llie(tmp_path / "b.png"), np.array(in_mode("RGB")))


def test_an_unusable_profile_is_reported_and_survived(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(in_mode("RGB"), "PNG", icc_profile=b"nonsense" * 30))
    photo = open_photo(tmp_path / "a.png")
    assert "profile is unusable" in photo.notes[0]
    photo.save(photo.pixels, tmp_path / "b.png")
    np.testing.assert_array_equal(by_llie(tmp_path / "b.png"), np.array(in_mode("RGB")))


def test_a_profile_that_leads_only_one_way_becomes_srgb(tmp_path, monkeypatch):
    profile = icc.rgb_profile("Adobe RGB", icc.gamma(2.2))
    (tmp_path / "a.png").write_bytes(encoded(in_mode("RGB"), "PNG", icc_profile=profile))
    photo = open_photo(tmp_path / "a.png")

    def refuse(self, image):
        raise ValueError("no way back")

    monkeypatch.setattr(ColourSpace, "from_srgb", refuse)
    photo.save(photo.pixels, tmp_path / "b.png")
    again = open_photo(tmp_path / "b.png")
    assert again.decoded.profile == SRGB
    np.testing.assert_allclose(again.pixels, photo.pixels / 257, atol=0.51)


@raw_only
@pytest.mark.parametrize("target", ["b.tif", "b.png", "b.jpg"])
def test_camera_raw_into_ordinary_files(tmp_path, target):
    photo = through(tmp_path, camera_raw(orientation=6), "a.nef", target)
    found = by_llie(tmp_path / target)
    assert found.shape == (96, 64, 3)
    assert found.dtype == (np.uint8 if target == "b.jpg" else np.uint16)
    np.testing.assert_allclose(found / np.iinfo(found.dtype).max, photo.pixels / 65535, atol=0.08)
    with Image.open(tmp_path / target) as image:
        assert image.getexif()[0x010F] == "Maker" and 0xC612 not in image.getexif()


def test_quality_is_passed_on(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(in_mode("RGB", (64, 64)), "PNG"))
    photo = open_photo(tmp_path / "a.png")
    for suffix in (".jpg", ".webp", ".avif"):
        sizes = []
        for quality in (20, 95):
            photo.save(photo.pixels, tmp_path / f"b{suffix}", quality)
            sizes.append((tmp_path / f"b{suffix}").stat().st_size)
        assert sizes[0] < 0.7 * sizes[1]


def test_formats_that_are_not_written(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(in_mode("RGB"), "PNG"))
    photo = open_photo(tmp_path / "a.png")
    for name in ("b.gif", "b.nef", "b.xyz", "b"):
        with pytest.raises(UserError, match="not an image format that llie writes"):
            photo.save(photo.pixels, tmp_path / name)
    with pytest.raises(UserError, match=r"Did you mean '\.jpg'"):
        photo.save(photo.pixels, tmp_path / "b.jpgg")
    with pytest.raises(UserError, match="cannot write"):  # WebP is at most 16383 pixels wide
        photo.save(np.zeros((1, 20000, 3), np.uint8), tmp_path / "b.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_bytes_give_what_files_give(tmp_path):
    """For those who have no file: the same reading and writing."""
    data = encoded(in_mode("RGBA"), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    read, opened = decode_photo(data, "a.png"), open_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, opened.pixels)
    np.testing.assert_array_equal(read.decoded.alpha, opened.decoded.alpha)
    notes = opened.save(opened.pixels, tmp_path / "b.jpg", 80)
    assert read.encode(read.pixels, Path("b.jpg"), 80) == ((tmp_path / "b.jpg").read_bytes(), notes)
    with pytest.raises(TooManyPixels, match=r"^upload has \d+x\d+ pixels"):
        decode_photo(data, "upload", max_pixels=1)
