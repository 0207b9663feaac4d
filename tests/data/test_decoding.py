"""Decoding files of every kind, compared with Pillow and with the arrays that they were made from."""

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from llie.data import decoding
from llie.data.decoding import MAX_PIXELS, decode
from llie.errors import UserError
from tests.data.photographs import (
    MODES,
    ORIENTATIONS,
    as_rgb,
    camera_raw,
    encoded,
    in_mode,
    noise,
    tiff,
    turned,
)
from tests.needs import heic_only, raw_only

LOSSLESS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "WEBP": ("RGB", "RGBA"),
}


def both(decoded) -> np.ndarray:
    """Colours, and alpha where there is one, in one array."""
    return decoded.pixels if decoded.alpha is None else np.dstack([decoded.pixels, decoded.alpha])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4"])
@pytest.mark.parametrize("mode", MODES)
def test_tiff_of_every_mode(mode, compression, orientation):
    if compression == "group4" and mode != "1":
        compression = "zlib"
    image = in_mode(mode)
    expected = as_rgb(image)
    if mode == "YCbCr" and compression not in (None, "zlib"):  # libtiff converts it by itself, with other rounding
        with Image.open(io.BytesIO(encoded(image, "TIFF", compression=compression))) as again:
            expected = as_rgb(again)
    if mode == "PA":
        image = image.convert("RGBA")  # Pillow writes no TIFF of this mode
    decoded = decode(encoded(image, "TIFF", orientation, compression=compression), "a.tif")
    np.testing.assert_array_equal(both(decoded), turned(expected, orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes])
def test_lossless_formats(kind, mode, orientation):
    image = in_mode(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    orientation = orientation if kind in ("PNG", "WEBP") else 1  # the others have no EXIF data
    decoded = decode(encoded(image, kind, orientation, **options), "a")
    np.testing.assert_array_equal(both(decoded), turned(as_rgb(image), orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_lossy_formats(kind, mode, orientation):
    image = in_mode(mode, (24, 16))
    data = encoded(image if kind == "JPEG" else image.convert("RGB"), kind, orientation)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.array(stored.convert("RGB"))
        rotation = stored.getexif().get(0x0112, 1)
    assert rotation == orientation
    np.testing.assert_array_equal(decode(data, "a").pixels, turned(expected, orientation))


@pytest.mark.parametrize("transparent", [3, bytes(range(0, 240, 2))])
@pytest.mark.parametrize("mode", ["P", "L", "1", "RGB"])
def test_transparent_colours_of_png_are_alpha(mode, transparent):
    image = in_mode(mode)
    if mode != "P":
        transparent = {"L": image.getpixel((4, 5)), "1": 0, "RGB": image.getpixel((4, 5))}[mode]
    image.info["transparency"] = transparent
    data = encoded(image, "PNG", transparency=transparent)
    decoded = decode(data, "a.png")
    assert decoded.alpha is not None and decoded.alpha.min() < 255
    with Image.open(io.BytesIO(data)) as again:
        np.testing.assert_array_equal(both(decoded), np.array(again.convert("RGBA")))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_rgb_tiff(dtype, options, orientation):
    image = noise(dtype)
    decoded = decode(tiff(image, orientation, photometric="rgb", **options), "a.tif")
    assert decoded.pixels.dtype == dtype and decoded.alpha is None
    np.testing.assert_array_equal(decoded.pixels, turned(image, orientation))


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64, np.uint32])
@pytest.mark.parametrize("kind", ["grey", "white is zero", "planar", "alpha", "grey alpha", "unknown fourth"])
def test_deep_tiff_of_every_layout(kind, dtype, orientation):
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    grey, rgb, extra = noise(dtype, 7, 11, 1), noise(dtype), noise(dtype, 7, 11, 4)
    stored, options, expected = {
        "grey": (grey[..., 0], {"photometric": "minisblack"}, np.repeat(grey, 3, 2)),
        "white is zero": (
            grey[..., 0],
            {"photometric": "miniswhite"},
            np.repeat(white - grey.astype(np.float64), 3, 2),
        ),
        "planar": (np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, rgb),
        "alpha": (extra, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, extra),
        "grey alpha": (
            extra[..., :2],
            {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]},
            extra[..., [0, 0, 0, 1]],
        ),
        "unknown fourth": (extra, {"photometric": "rgb", "extrasamples": ["unspecified"]}, extra[..., :3]),
    }[kind]
    decoded = decode(tiff(stored, orientation, **options), "a.tif")
    assert decoded.pixels.dtype == (np.uint16 if dtype == np.uint16 else np.float32)
    scale = white if np.dtype(dtype) == np.uint32 else 1
    np.testing.assert_allclose(both(decoded), turned(expected, orientation) / scale, rtol=1e-6, atol=1e-7)


def test_colours_multiplied_by_alpha_are_divided_again():
    colours, alpha = noise(np.uint16), np.full((7, 11, 1), 32768, np.uint16)
    stored = np.dstack([np.rint(colours * (32768 / 65535)).astype(np.uint16), alpha])
    decoded = decode(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]), "a.tif")
    np.testing.assert_allclose(decoded.pixels, colours, atol=1.01)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_png(channels, orientation):
    image = noise(np.uint16, 7, 11, channels)
    plain = cv2.imencode(".png", image[..., [2, 1, 0, 3][:channels]] if channels > 1 else image)[1].tobytes()
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (1, 1)), "PNG", orientation))) as tagged:
        exif = tagged.info["exif"].removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + exif
    data = plain[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
    expected = np.repeat(image, 3, 2) if channels == 1 else image
    np.testing.assert_array_equal(both(decode(data, "a.png")), turned(expected, orientation))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (noise(np.float32) * 255, {"photometric": "rgb"}, "contains values from .* to 25.*must be in 0 to 1"),
        (noise(np.float32) * np.nan, {"photometric": "rgb"}, "must be in 0 to 1"),
        (noise(np.int32, 7, 11), {"photometric": "minisblack"}, "cannot read.*int32"),
        (noise(np.uint16), {"photometric": "cielab"}, "cannot read.*CIELAB"),
        (noise(np.uint16, 7, 11, 4), {"photometric": "separated"}, "cannot read.*SEPARATED"),
    ],
)
def test_deep_tiff_without_meaning_is_refused(array, options, message):
    with pytest.raises(UserError, match=rf"a\.tif.*{message}"):
        decode(tiff(array, **options), "a.tif")


def test_cmyk_goes_through_its_profile():
    """The profile is an RGB one; it is enough to test that a damaged or wrong profile is no error."""
    image = in_mode("CMYK")
    for profile in (b"no profile at all", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        decoded = decode(encoded(image, "TIFF", icc_profile=profile), "a.tif")
        assert decoded.profile is None
        np.testing.assert_array_equal(decoded.pixels, np.array(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_further_frames_are_counted_and_the_first_is_read(kind):
    first, second = in_mode("RGB", (16, 16)), Image.new("RGB", (16, 16))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(
        first.quantize(16) if kind == "GIF" else first, kind, save_all=True, append_images=[second], **options
    )
    decoded = decode(data, "a")
    assert decoded.frames == 2
    assert decoded.pixels.mean() > 50


def test_profile_and_exif_are_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        decoded = decode(encoded(in_mode("RGB", (16, 16)), kind, 3, icc_profile=profile), "a")
        assert decoded.profile == profile
    deep = decode(tiff(noise(np.uint16), photometric="rgb", iccprofile=profile), "a.tif")
    assert deep.profile == profile and deep.exif[0x0131] == "tifffile.py"


def test_too_many_pixels_are_refused_before_they_are_unpacked():
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        with pytest.raises(UserError, match=r"bomb has 30000x30000 pixels, more than .*--max-pixels 900000000"):
            decode(_bomb(kind), "bomb")
    data = encoded(in_mode("RGB"), "PNG")
    with pytest.raises(UserError, match="limit of 76"):
        decode(data, "a.png", max_pixels=76)
    assert decode(data, "a.png", max_pixels=77).pixels.shape == (7, 11, 3)
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS, "Pillow's own limit stays in force for others"


def _bomb(kind: str) -> bytes:
    """A small file that says it is 30000 pixels wide and high."""
    if kind == "TIFF":
        content = io.BytesIO(tiff(np.zeros((300, 300), np.uint8), photometric="minisblack"))
        with tifffile.TiffFile(content, mode="r+b") as file:
            for tag in (256, 257):
                file.pages[0].tags[tag].overwrite(30000)
        return content.getvalue()
    number = {"PNG": ">I", "JPEG": ">H", "BMP": "<I"}[kind]
    data = encoded(Image.new("L", (300, 300)), kind)
    data = data.replace(struct.pack(number, 300) * 2, struct.pack(number, 30000) * 2, 1)
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:] if kind == "PNG" else data


@raw_only
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("name", "dng"), [("a.dng", True), ("a.NEF", False), ("a.tif", True), ("a.tif", False)])
def test_camera_raw_is_developed_and_not_its_preview(name, dng, orientation):
    decoded = decode(camera_raw(64, 96, orientation, dng), name)
    height, width = (96, 64) if orientation in (6, 8) else (64, 96)
    assert decoded.pixels.shape == (height, width, 3) and decoded.pixels.dtype == np.uint16
    assert decoded.exif[0x010F] == "Maker"
    if not dng:  # no white balance is known
        return
    stored = turned(decoded.pixels, {1: 1, 3: 3, 6: 8, 8: 6}[orientation])
    for side, linear in ((stored[10:54, 10:40], 0.25), (stored[10:54, 56:86], 0.5)):
        expected = (1.055 * linear ** (1 / 2.4) - 0.055) * 65535  # white balanced, in sRGB's curve
        np.testing.assert_allclose(side, expected, rtol=2e-3)


@raw_only
def test_damaged_raw_is_named():
    for data in (camera_raw()[:900], b"no raw file" * 100, b"FUJIFILMCCD-RAW" + bytes(200)):
        with pytest.raises(UserError, match=r"a\.nef is a raw file that LibRaw"):
            decode(data, "a.nef")
    with pytest.raises(UserError, match="--max-pixels"):
        decode(camera_raw(), "a.nef", max_pixels=100)


@pytest.mark.parametrize(
    ("name", "data", "package"),
    [
        ("a.nef", camera_raw(), "rawpy"),
        ("a.tif", camera_raw(dng=False), "rawpy"),
        ("a.heic", b"\0\0\0\x18ftypheic", "pillow-heif"),
    ],
)
def test_missing_packages_are_named(name, data, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)  # its import fails
    with pytest.raises(UserError, match=rf"{name} is .* needs {package}: pip install 'llie\[photo\]'"):
        decode(data, name)


def test_a_jpeg_called_raw_is_a_jpeg():
    assert decode(encoded(in_mode("RGB"), "JPEG"), "a.nef").pixels.shape == (7, 11, 3)


@heic_only
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_keeps_its_depth_and_is_turned_once(bits, orientation):
    import pillow_heif

    down, right = np.mgrid[0:64, 0:96]
    ramp = np.dstack([right / 95, down / 63, right * 0 + 1.0])
    image = np.rint(ramp * (255 if bits == 8 else 65535)).astype(np.uint8 if bits == 8 else np.uint16)
    file = pillow_heif.from_bytes(mode="RGB" if bits == 8 else "RGB;16", size=(96, 64), data=image.tobytes())
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    content = io.BytesIO()
    file.save(content, quality=-1, exif=exif.tobytes())
    decoded = decode(content.getvalue(), "a.heic")
    assert decoded.pixels.dtype == image.dtype and decoded.exif[0x010F] == "Maker" and decoded.frames == 1
    white = np.iinfo(image.dtype).max
    error = np.abs(decoded.pixels / white - turned(ramp, orientation))
    assert error.mean() < 4 / 255, "chroma is halved, else it is lossless"
    assert decoded.pixels[..., 2].max() > 0.998 * white, "white stays white"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "deep", "raw"])
def test_damaged_files_are_a_user_error_or_an_image(kind):
    """Bytes changed and cut off at random: never another exception."""
    if kind == "raw":
        data = camera_raw(dng=False)
    elif kind == "deep":
        data = tiff(noise(np.uint16), photometric="rgb")
    else:
        data = encoded(in_mode("P" if kind == "GIF" else "RGB", (24, 16)), kind)
    random = np.random.default_rng(3)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(random.integers(1, 6)):
            broken[random.integers(8 if kind != "raw" else 0, len(broken))] = random.integers(256)
        broken = broken[: random.integers(1, len(broken))] if random.random() < 0.5 else broken
        try:
            assert decode(bytes(broken), "a.bin").pixels.ndim == 3
        except UserError as error:
            assert str(error).startswith("a.bin ")


def test_a_chunk_that_is_longer_than_its_file_is_not_given_to_opencv(monkeypatch):
    """OpenCV allocates what the length says before it looks how much there is."""
    data = bytearray(encoded(in_mode("RGB"), "PNG"))
    decode(bytes(data), "a.png")
    data[33:37] = (0x8D000000).to_bytes(4, "big")
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: pytest.fail("must not be called"))
    with pytest.raises(UserError, match=r"a\.png is a damaged or truncated PNG"):
        decode(bytes(data), "a.png")


def test_a_tiff_file_without_pixels_is_damaged():
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((24, 32), np.uint16))
    data = bytearray(content.getvalue())
    width = data.index(struct.pack("<HH", 256, 4))  # the tag, and its type
    data[width + 8 : width + 12] = bytes(4)
    with pytest.raises(UserError, match=r"a\.tif is a damaged or truncated TIFF"):
        decode(bytes(data), "a.tif")
