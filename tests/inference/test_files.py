"""Files and folders: nothing is lost, nothing is overwritten, one bad file does not stop the rest."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from llie.data.readers import read_image
from llie.errors import UserError
from llie.inference.files import enhance_files


def brighten(image: np.ndarray) -> np.ndarray:
    return np.minimum(image.astype(np.uint32) * 2, np.iinfo(image.dtype).max).astype(image.dtype)


def picture(dtype=np.uint8, height=6, width=9) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max // 2, (height, width, 3)).astype(dtype)


def save(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def test_folder_is_mirrored_and_types_are_kept(tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    images = {
        "a.png": picture(),
        "deep/er/b.tif": picture(np.uint16),
        "deep/c.PNG": picture(np.uint16),
        "d.bmp": picture(),
    }
    for name, image in images.items():
        save(source / name, image)
    (source / "notes.txt").write_text("no image", encoding="utf-8")
    assert enhance_files(brighten, source, output, progress=False) == {}
    written = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
    assert written == set(images)
    for name, image in images.items():
        result = read_image(output / name)
        assert result.dtype == image.dtype
        assert np.array_equal(result, brighten(image))


def test_bad_files_are_reported_and_the_rest_is_done(tmp_path):
    source = tmp_path / "in"
    for name in ("a.png", "z.png"):
        save(source / name, picture())
    (source / "broken.png").write_bytes((source / "a.png").read_bytes()[:60])
    (source / "text.jpg").write_text("hello", encoding="utf-8")
    failures = enhance_files(brighten, source, tmp_path / "out", progress=False)
    assert {path.name for path in failures} == {"broken.png", "text.jpg"}
    assert all(path.name in reason for path, reason in failures.items())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "z.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_result_looks_upright_as_the_photograph_does(tmp_path, orientation):
    stored = Image.fromarray(picture(height=16, width=24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    stored.save(tmp_path / "photo.png", exif=exif)
    enhance_files(brighten, tmp_path / "photo.png", tmp_path / "out", progress=False)
    with Image.open(tmp_path / "photo.png") as before, Image.open(tmp_path / "out" / "photo.png") as after:
        assert after.getexif().get(0x0112, 1) == 1
        assert after.getexif()[0x010F] == "maker"
        upright = np.asarray(ImageOps.exif_transpose(before))
        assert np.array_equal(np.asarray(after), brighten(upright))


def test_colour_profile_stays(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "photo.jpg", icc_profile=profile)
    enhance_files(brighten, tmp_path / "photo.jpg", tmp_path / "out", progress=False)
    with Image.open(tmp_path / "out" / "photo.jpg") as after:
        assert after.info["icc_profile"] == profile


def test_single_image_to_a_file_or_into_a_folder(tmp_path):
    save(tmp_path / "a.png", picture(np.uint16))
    enhance_files(brighten, tmp_path / "a.png", tmp_path / "b.jpg", progress=False)
    enhance_files(brighten, tmp_path / "a.png", tmp_path / "folder", progress=False)
    assert read_image(tmp_path / "b.jpg").dtype == np.uint8
    assert np.array_equal(read_image(tmp_path / "folder" / "a.png"), brighten(picture(np.uint16)))


def test_npy_becomes_a_picture(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "0001.npy", picture()[..., ::-1])
    enhance_files(brighten, tmp_path / "in", tmp_path / "out", progress=False)
    assert np.array_equal(read_image(tmp_path / "out" / "0001.png"), brighten(picture()))


def test_inputs_are_never_overwritten(tmp_path):
    save(tmp_path / "in" / "a.png", picture())
    before = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for source, output in [("in", "in"), ("in", "link"), ("in/a.png", "in"), ("in/a.png", "in/a.png")]:
        with pytest.raises(UserError, match="overwrite"):
            enhance_files(brighten, tmp_path / source, tmp_path / output, progress=False)
    assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_output_inside_the_input_is_not_enhanced_again(tmp_path):
    save(tmp_path / "a.png", picture())
    for _ in range(2):
        enhance_files(brighten, tmp_path, tmp_path / "out", progress=False)
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["a.png"]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        enhance_files(brighten, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in"):
        enhance_files(brighten, tmp_path / "empty", tmp_path / "out")
    save(tmp_path / "in" / "a.png", picture())
    with pytest.raises(UserError, match="must be one too"):
        enhance_files(brighten, tmp_path / "in", tmp_path / "out.png")
    np.save(tmp_path / "in" / "a.npy", picture())
    with pytest.raises(UserError, match="would both become"):
        enhance_files(brighten, tmp_path / "in", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_named(tmp_path):
    save(tmp_path / "a.png", picture())
    (tmp_path / "out").mkdir(mode=0o500)
    failures = enhance_files(brighten, tmp_path / "a.png", tmp_path / "out", progress=False)
    assert "cannot write" in failures[tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_a_file_where_the_output_folder_should_be_is_named(tmp_path, name):
    save(tmp_path / name, picture())
    (tmp_path / "out").write_text("", encoding="utf-8")
    failures = enhance_files(brighten, tmp_path / name, tmp_path / "out", progress=False)
    assert "cannot write" in failures[tmp_path / name]
