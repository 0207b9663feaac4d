"""Files and folders: nothing is lost, nothing is overwritten, one bad file does not stop the rest."""

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from llie.data import readers
from llie.data.readers import read_image
from llie.errors import UserError
from llie.inference.files import about, carry_out, enhance_files
from llie.inference.plan import make_plan
from tests.data.photographs import camera_raw, encoded, in_mode
from tests.needs import raw_only


def brighten(image: np.ndarray) -> np.ndarray:
    return np.minimum(image.astype(np.uint32) * 2, np.iinfo(image.dtype).max).astype(image.dtype)


def picture(dtype=np.uint8, height=6, width=9) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max // 2, (height, width, 3)).astype(dtype)


def save(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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
    outcome = enhance_files(brighten, source, output, progress=False)
    assert not outcome.failures and len(outcome.done) == 4
    assert set(files_in(output)) == set(images)
    for name, image in images.items():
        result = read_image(output / name)
        assert result.dtype == image.dtype
        assert np.array_equal(result, brighten(image))


def test_bad_files_are_reported_when_they_fail_and_the_rest_is_done(tmp_path):
    source = tmp_path / "in"
    for name in ("a.png", "z.png"):
        save(source / name, picture())
    (source / "broken.png").write_bytes((source / "a.png").read_bytes()[:60])
    (source / "text.jpg").write_text("hello", encoding="utf-8")
    (source / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (source / "large.png").write_bytes(encoded(in_mode("L", (100, 100)), "PNG"))
    lines = []
    outcome = carry_out(
        make_plan(source, tmp_path / "out"), brighten, max_pixels=9999, progress=False, report=lines.append
    )
    bad = ["broken.png", "gone.png", "large.png", "text.jpg"]
    assert [path.name for path in outcome.failures] == bad
    assert all(name in line and line.startswith("failed: ") for name, line in zip(bad, lines, strict=True))
    assert "--max-pixels 10000" in lines[2]
    assert files_in(tmp_path / "out") == ["a.png", "z.png"]


def test_an_interrupted_folder_continues(tmp_path):
    for n in range(4):
        save(tmp_path / "in" / f"{n}.png", picture())
    seen = []

    def interrupted(image):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return brighten(image)

    with pytest.raises(KeyboardInterrupt):
        enhance_files(interrupted, tmp_path / "in", tmp_path / "out", progress=False)
    assert files_in(tmp_path / "out") == ["0.png", "1.png"]
    before = (tmp_path / "out" / "0.png").stat().st_mtime_ns
    outcome = enhance_files(brighten, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in outcome.skipped] == ["0.png", "1.png"]
    assert [path.name for path in outcome.done] == ["2.png", "3.png"]
    assert (tmp_path / "out" / "0.png").stat().st_mtime_ns == before
    outcome = enhance_files(lambda x: x, tmp_path / "in", tmp_path / "out", overwrite=True, progress=False)
    assert len(outcome.done) == 4 and not outcome.skipped
    assert np.array_equal(read_image(tmp_path / "out" / "0.png"), picture())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, monkeypatch, number):
    for n in range(4):
        save(tmp_path / "in" / f"{n}.png", picture())
    enhance_files(brighten, tmp_path / "in" / "0.png", tmp_path / "out", progress=False)
    kept = (tmp_path / "out" / "0.png").read_bytes()
    written = Path.write_bytes

    def full(path, content):
        written(path, content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(readers.Path, "write_bytes", full)
    lines = []
    plan = make_plan(tmp_path / "in", tmp_path / "out")
    outcome = carry_out(plan, brighten, progress=False, report=lines.append)
    assert len(lines) == len(outcome.failures) == 1 and os.strerror(number) in lines[0]
    assert outcome.stopped
    assert files_in(tmp_path / "out") == ["0.png"], "no half files, no temporary files"
    assert (tmp_path / "out" / "0.png").read_bytes() == kept
    monkeypatch.undo()
    assert len(enhance_files(brighten, tmp_path / "in", tmp_path / "out", progress=False).done) == 3


def test_too_little_memory_is_a_failure_of_one_image(tmp_path):
    for n in range(3):
        save(tmp_path / f"{n}.png", picture(height=6 + n))

    def hungry(image):
        if len(image) == 6:
            raise MemoryError
        if len(image) == 7:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return image

    outcome = enhance_files(hungry, tmp_path, tmp_path / "out", progress=False)
    assert [path.name for path in outcome.failures] == ["0.png", "1.png"]
    assert all("--memory" in reason for reason in outcome.failures.values())


def test_a_fault_of_ours_does_not_look_like_one_of_the_image(tmp_path):
    save(tmp_path / "a.png", picture())

    def faulty(image):
        raise RuntimeError("sizes do not fit")

    with pytest.raises(RuntimeError, match="sizes do not fit"):
        enhance_files(faulty, tmp_path / "a.png", progress=False)


def test_single_image_to_a_file_into_a_folder_or_beside(tmp_path):
    save(tmp_path / "a.png", picture(np.uint16))
    for output in (tmp_path / "b.jpg", tmp_path / "folder", None):
        enhance_files(brighten, tmp_path / "a.png", output, progress=False)
    assert read_image(tmp_path / "b.jpg").dtype == np.uint8
    for result in ("folder/a.png", "a_enhanced.png"):
        assert np.array_equal(read_image(tmp_path / result), brighten(picture(np.uint16)))


def test_npy_becomes_a_picture(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "0001.npy", picture()[..., ::-1])
    enhance_files(brighten, tmp_path / "in", tmp_path / "out", progress=False)
    assert np.array_equal(read_image(tmp_path / "out" / "0001.png"), brighten(picture()))


def test_comparisons_show_both(tmp_path):
    save(tmp_path / "wide.png", np.full((60, 2400, 3), 60, np.uint8))
    save(tmp_path / "deep.png", np.full((20, 30, 3), 60 * 257, np.uint16))
    enhance_files(brighten, [tmp_path / "wide.png", tmp_path / "deep.png"], compare=True, progress=False)
    wide, deep = (cv2.imread(str(tmp_path / f"{name}_enhanced_compare.jpg")) for name in ("wide", "deep"))
    for sheet, left, right in ((wide, 1000, 2600), (deep, 15, -15)):
        row = sheet[-16]
        assert abs(row[left].astype(int) - 60).max() < 4 and abs(row[right].astype(int) - 120).max() < 4
    assert wide.shape[1] < 3300, "made smaller"


def test_notes_name_the_images(tmp_path):
    frames = [in_mode("RGB", (8, 8)).quantize(9), Image.new("P", (8, 8))]
    (tmp_path / "moving.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(encoded(in_mode("RGBA"), "PNG"))
    outcome = enhance_files(brighten, tmp_path, tmp_path / "out", format="jpg", progress=False)
    assert list(about(outcome.notes)) == [
        "transparency was dropped, .jpg has none (the format png keeps it): 0.png, 1.png, 2.png and 2 more",
        "only the first of 2 pictures was used: moving.gif",
    ]


@raw_only
def test_camera_raw_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dng").write_bytes(camera_raw())
    save(tmp_path / "in" / "a.jpg", picture())
    assert not enhance_files(brighten, tmp_path / "in", tmp_path / "out", progress=False).failures
    assert read_image(tmp_path / "out" / "a_dng.jpg").shape == (64, 96, 3)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        enhance_files(brighten, tmp_path / "nowhere", tmp_path / "out")
    save(tmp_path / "in" / "a.png", picture())
    with pytest.raises(UserError, match="need a folder"):
        enhance_files(brighten, tmp_path / "in", tmp_path / "out.png")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_a_folder_where_the_result_should_be_is_a_failure(tmp_path, name):
    save(tmp_path / name, picture())
    plan = make_plan(tmp_path / name, tmp_path / "out")
    (tmp_path / "out").write_text("", encoding="utf-8")  # since then
    outcome = carry_out(plan, brighten, progress=False)
    assert "cannot write" in outcome.failures[tmp_path / name]
