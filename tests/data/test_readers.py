"""Every format and depth is read as RGB; every error names the file."""

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from llie.data.formats import image_format, mislabelled
from llie.data.readers import read_image, to_tensor, write_image
from llie.errors import UserError


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".bmp", np.uint8), *((suffix, dtype) for suffix in (".png", ".tif", ".PNG") for dtype in (np.uint8, np.uint16))],
)
def test_write_then_read_gives_the_same_pixels(tmp_path, picture, suffix, dtype):
    image = picture(1, dtype=dtype)
    path = tmp_path / "новая папка" / f"bild ä{suffix}"
    write_image(path, image)
    again = read_image(path)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, image)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_red_is_the_first_channel(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    np.testing.assert_array_equal(read_image(tmp_path / "red.png"), red)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_grey_palette_and_alpha_become_rgb(tmp_path, mode):
    grey = np.linspace(0, 255, 30).reshape(5, 6).astype(np.uint8)
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (5, 6, 3)
    assert image.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    Image.fromarray(picture(2, 16, 32)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (32, 16, 3)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.float32, 1 / 255), (np.float64, 1 / 255)])
def test_npy_holds_bgr_in_0_to_255(tmp_path, picture, dtype, scale):
    image = picture(3)
    np.save(tmp_path / "f.npy", image[..., ::-1].astype(dtype))
    np.testing.assert_allclose(read_image(tmp_path / "f.npy"), image * scale, rtol=1e-6)


def test_npy_that_is_no_image(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(UserError, match=r"f\.npy contains an array of shape \(2, 3, 4, 5\)"):
        read_image(tmp_path / "f.npy")


def test_npy_with_pickled_objects_is_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"f\.npy"):
        read_image(tmp_path / "f.npy")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", ".webp"])
@pytest.mark.parametrize("kept", [0, 3, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path, picture, suffix, kept):
    path = tmp_path / f"half{suffix}"
    image = picture(4, 120, 160)
    np.save(path, image) if suffix == ".npy" else write_image(path, image)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=f"half{suffix}"):
        read_image(path)


def test_damaged_png_is_named(tmp_path, picture):
    path = tmp_path / "bad.png"
    write_image(path, picture(5, 60, 80))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"bad\.png is a damaged"):
        read_image(path)


def test_heic_called_png_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x00\x00\x00\x24ftypheic" + bytes(100))
    assert mislabelled(path) == "HEIC"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"photo\.png is a HEIC image.*pip install"):
        read_image(path)


def test_jpeg_called_png_is_read_but_counts_as_mislabelled(tmp_path, picture):
    write_image(tmp_path / "a.jpg", picture(6))
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (24, 32, 3)
    assert mislabelled(tmp_path / "a.png") == "JPEG"


def test_text_missing_and_folder(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "b.png").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        with pytest.raises(UserError, match=name):
            read_image(tmp_path / name)


def test_unknown_ending_cannot_be_written(tmp_path, picture):
    with pytest.raises(UserError, match="xyz is not an image format"):
        write_image(tmp_path / "a.xyz", picture(0))
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path, picture):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / "file" / "a.png", picture(0))


def test_floats_are_rounded_to_8_bit(tmp_path):
    write_image(tmp_path / "a.png", np.full((2, 2, 3), 0.5004, np.float32))
    assert (read_image(tmp_path / "a.png") == 128).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tensor_spans_0_to_1(dtype):
    image = np.zeros((2, 5, 3), dtype)
    image[0, 1, 2] = np.iinfo(dtype).max
    tensor = to_tensor(image)
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 2, 5) and tensor.is_contiguous()
    assert tensor[2, 0, 1] == 1 and tensor.sum() == 1


def test_signatures(picture):
    for suffix, name in ((".png", "PNG"), (".jpg", "JPEG"), (".bmp", "BMP"), (".tif", "TIFF"), (".webp", "WebP")):
        assert image_format(cv2.imencode(suffix, picture(1))[1].tobytes()) == name
    assert image_format(b"") is None and image_format(b"RIFF1234WAVE") is None
