"""`llie data check`: output, errors, and the leaks that it finds."""

import numpy as np
import pytest

from llie.data.check import check, correlation, thumbnail
from llie.data.readers import read_image, write_image
from llie.errors import UserError


@pytest.fixture
def scene():
    """A large picture with structure at all scales, from which views can be cut."""
    import cv2

    random = np.random.default_rng(0)
    layers = [cv2.resize(random.random((n, n, 3)), (300, 300), interpolation=cv2.INTER_CUBIC) / n for n in (6, 20, 60)]
    total = sum(layers)
    return np.rint(255 * (total - total.min()) / (total.max() - total.min())).astype(np.uint8)


def paired(root, **options):
    return {"type": "PairedImageDataset", "dataroot": str(root), **options}


def add(root, name, image):
    write_image(root / "high" / name, image)
    write_image(root / "low" / name, image // 8)


def test_report(tmp_path, put, capsys):
    put(tmp_path, "low/1.png", "high/1.png", "low/2.png", "high/2.png", "DICM/3.bmp")
    unpaired = {"type": "UnpairedImageDataset", "dataroot_lq": str(tmp_path / "DICM")}
    assert check({"datasets": {"val": paired(tmp_path), "test_1": unpaired}}) == 0
    out = capsys.readouterr().out
    assert "val: 2 pairs, 32x24 uint8 (4)" in out and "low/1.png -> " in out
    assert "test_1: 1 images without reference" in out


def test_everything_wrong_is_listed_at_once(tmp_path, put, picture):
    put(tmp_path, *(f"a/{side}/{n}.png" for side in ("low", "high") for n in (1, 2, 3, 4)))
    write_image(tmp_path / "a/low/1.png", picture(1, 20, 20))
    (tmp_path / "a/high/2.png").write_bytes((tmp_path / "a/high/2.png").read_bytes()[:50])
    write_image(tmp_path / "a/low/3.jpg", picture(3))
    (tmp_path / "a/low/3.jpg").replace(tmp_path / "a/low/3.png")
    (tmp_path / "a/high/4.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    put(tmp_path, "b/low/1.png", "b/high/1.png", "b/high/2.png")
    (tmp_path / "c" / "low").mkdir(parents=True)
    (tmp_path / "c" / "high").mkdir()
    sets = {"train": paired(tmp_path / "a"), "val": paired(tmp_path / "b"), "test": paired(tmp_path / "c")}
    with pytest.raises(UserError) as caught:
        check({"datasets": sets})
    message = str(caught.value)
    for part in (
        "the data has 6 problems",
        "a/low/1.png is 20x20, but its reference",
        "a/high/2.png is a damaged or truncated PNG",
        "a/low/3.png is mislabelled: its content is JPEG",
        "a/high/4.png is mislabelled: its content is HEIC",
        "b/high/2.png",
        "c/low contains no images",
    ):
        assert part in message


def test_a_batch_that_cannot_be_filled(tmp_path, put):
    put(tmp_path, "low/1.png", "high/1.png")
    with pytest.raises(UserError, match="data set train: a batch of 4 cannot be filled"):
        check({"datasets": {"train": paired(tmp_path, batch_size_per_gpu=4)}})


def test_identical_pixels_are_a_leak_whatever_the_name(tmp_path, put, picture, capsys):
    for n in (1, 2, 3):
        add(tmp_path / "train", f"{n}.png", picture(n, 60, 80))
    for name, n in (("low00690.png", 2), ("low00700.png", 9)):
        write_image(tmp_path / "test" / "low" / name, picture(n, 60, 80) // 8)
        write_image(tmp_path / "test" / "high" / name.replace("low", "normal"), picture(n, 60, 80))
    assert check({"datasets": {"train": paired(tmp_path / "train"), "val": paired(tmp_path / "test")}}) == 1
    out = capsys.readouterr().out
    assert "LEAK: images of val that are also in train, pixel for pixel: 2" in out
    assert "low00690.png" in out.split("LEAK")[1] and "00700" not in out.split("LEAK")[1]


def test_a_shifted_view_is_reported_but_no_failure(tmp_path, scene, capsys):
    add(tmp_path / "train", "1.png", scene[:250, :250])
    add(tmp_path / "train", "2.png", scene[::-1, :, ::-1][:250, :250])
    noise = np.random.default_rng(0).normal(0, 3, (250, 250, 3))
    add(tmp_path / "test", "7.png", np.clip(scene[15:265, 12:262] + noise, 0, 255).astype(np.uint8))
    assert check({"datasets": {"train": paired(tmp_path / "train"), "test": paired(tmp_path / "test")}}) == 0
    note = capsys.readouterr().out.split("note: images of test that show the same view as one of train: 1")[1]
    assert "test/high/7.png" in note and "train/high/1.png" in note


def test_different_and_flat_views_are_not_reported(tmp_path, scene, capsys):
    add(tmp_path / "train", "1.png", scene[:120, :120])
    add(tmp_path / "train", "2.png", np.full((120, 120, 3), 90, np.uint8))
    add(tmp_path / "test", "3.png", scene[150:270, 150:270])
    add(tmp_path / "test", "4.png", np.full((120, 120, 3), 120, np.uint8))
    assert check({"datasets": {"train": paired(tmp_path / "train"), "test": paired(tmp_path / "test")}}) == 0
    assert "note" not in capsys.readouterr().out


def test_a_set_that_trains_and_tests_on_one_folder_leaks(tmp_path, put):
    put(tmp_path, "low/1.png", "high/1.png")
    assert check({"datasets": {"train": paired(tmp_path), "val": paired(tmp_path)}}) == 1


def test_lolv1_training_images_in_lolv2_real_test(real, tmp_path, capsys):
    """86 of LOLv2-real's test pairs are LOLv1 training pairs under names such as low00690.png."""
    source = real / "lolv1_our485"
    for number in ("691", "704"):
        for side, prefix, folder in (("low", "low", "Low"), ("high", "normal", "Normal")):
            target = tmp_path / "LOLv2" / "Real_captured" / "Test" / folder / f"{prefix}00{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / side / f"{number}.png").read_bytes())
    few = tmp_path / "few"
    for number in ("691", "704", "470"):
        for side in ("low", "high"):
            (few / side).mkdir(parents=True, exist_ok=True)
            (few / side / f"{number}.png").symlink_to(source / side / f"{number}.png")
    assert check({"datasets": {"train": paired(few), "val": paired(tmp_path / "LOLv2")}}) == 1
    assert "normal00704.png" in capsys.readouterr().out.split("LEAK")[1]


def test_real_scenes_correlate_only_with_themselves(real):
    """Files 70 and 74, and 50 and 52, show one scene each."""
    views = {n: thumbnail(read_image(real / "lolv1_our485" / "high" / f"{n}.png")) for n in (50, 52, 70, 74, 100)}
    pairs = {(a, b): correlation(views[a], views[b]) for a in views for b in views if a < b}
    assert {pair for pair, value in pairs.items() if value > 0.96} == {(50, 52), (70, 74)}


def test_an_input_that_is_its_own_reference_is_refused(tmp_path, scene):
    add(tmp_path, "1.png", scene)
    sides = {"dataroot_lq": str(tmp_path / "high"), "dataroot_gt": str(tmp_path / "high")}
    with pytest.raises(UserError, match=r"their own references.*high/1\.png"):
        check({"datasets": {"val": {"type": "PairedImageDataset", **sides}}})
