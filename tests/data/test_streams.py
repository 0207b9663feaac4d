"""Data streams besides the pairs: pictures in an item, reproducibility, and errors."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from llie.data import build_train_loader, build_train_set
from llie.data.check import check
from llie.data.readers import read_image, write_image
from llie.errors import UserError

CROP = {"gt_size": 16, "use_hflip": True, "use_vflip": True, "use_rot": True}


@pytest.fixture
def sections(tmp_path, put):
    put(tmp_path, *(f"pairs/{side}/{n}.png" for side in ("low", "high") for n in range(5)))
    put(tmp_path, *(f"dark/{n}.png" for n in range(20, 23)), *(f"good/{n}.png" for n in range(40, 47)))
    return {
        "train": {"type": "PairedImageDataset", "dataroot": str(tmp_path / "pairs"), **CROP},
        "train_lq_real": {"type": "UnpairedImageDataset", "dataroot": str(tmp_path / "dark"), **CROP},
        "train_hq": {"type": "UnpairedImageDataset", "dataroot": str(tmp_path / "good"), **CROP},
        "val": {"type": "PairedImageDataset", "dataroot": str(tmp_path / "pairs")},
    }


def batches(sections, first, count, seed=3, batch_size=2, **more):
    options = {"batch_size_per_gpu": batch_size, "num_worker_per_gpu": 0}
    stream = build_train_loader(build_train_set(sections), options, seed, **more).batches(first)
    return [next(stream) for _ in range(count)]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(v, other[k]) if torch.is_tensor(v) else v == other[k] for k, v in one.items())


def test_a_picture_of_every_stream_joins_each_item(sections):
    (batch,) = batches(sections, 0, 1)
    assert {name: tuple(batch[name].shape) for name in ("lq", "gt", "lq_real", "hq")} == dict.fromkeys(
        ("lq", "gt", "lq_real", "hq"), (2, 3, 16, 16)
    )
    assert all(Path(path).parent.name == "dark" for path in batch["lq_real_path"])
    assert all(Path(path).parent.name == "good" for path in batch["hq_path"])
    assert len(build_train_set(sections)) == 5  # an epoch is one of the pairs


def test_without_streams_it_is_the_data_set_alone(sections):
    only = {name: section for name, section in sections.items() if not name.startswith("train_")}
    for plain, streamed in zip(batches(only, 0, 4), batches(sections, 0, 4), strict=True):
        assert torch.equal(plain["lq"], streamed["lq"]) and plain["lq_path"] == streamed["lq_path"]
        assert "hq" not in plain


def test_resumes_anywhere_and_repeats_with_the_seed_alone(sections):
    whole = batches(sections, 0, 9)
    assert_equal(whole[4:], batches(sections, 4, 5))
    assert any(not torch.equal(a["hq"], b["hq"]) for a, b in zip(whole, batches(sections, 0, 9, seed=4), strict=True))


def test_two_processes_share_out_what_one_would_read(sections):
    [whole] = batches(sections, 1, 1, batch_size=4)
    halves = [batches(sections, 1, 1, rank=rank, world_size=2)[0] for rank in (0, 1)]
    assert torch.equal(whole["lq_real"], torch.cat([half["lq_real"] for half in halves]))


def test_streams_follow_neither_the_pairs_nor_each_other(sections):
    seen = Counter()
    crops = {}
    for batch in batches(sections, 0, 300):
        for pair, real, image in zip(batch["lq_path"], batch["lq_real_path"], batch["lq_real"], strict=True):
            seen[Path(pair).stem, Path(real).stem] += 1
            crops.setdefault(real, set()).add(image.numpy().tobytes())
    assert len(seen) == 5 * 3  # every photograph meets every pair
    assert min(seen.values()) > 20 and max(seen.values()) < 65  # 40 each on average
    assert min(len(different) for different in crops.values()) > 150  # cropped and flipped anew each time


def test_equal_streams_with_other_names_draw_differently(sections):
    drawn = batches(sections | {"train_hq": sections["train_lq_real"]}, 0, 20)
    assert any(batch["hq_path"] != batch["lq_real_path"] for batch in drawn)


@pytest.mark.parametrize("wrong", ["missing", "empty"])
def test_a_folder_without_images_is_named(sections, tmp_path, wrong):
    folder = tmp_path / wrong
    if wrong == "empty":
        folder.mkdir()
    sections["train_hq"]["dataroot"] = str(folder)
    with pytest.raises(UserError, match=f"train_hq: .*{wrong}"):
        build_train_set(sections)


def test_pairs_are_no_stream(sections):
    """Of pairs, "pictures of high quality" would be the dark ones."""
    sections["train_hq"] = sections["train"]
    with pytest.raises(UserError, match=r"datasets\.train_hq contains pairs, .*UnpairedImageDataset"):
        batches(sections, 0, 1)


def test_a_picture_smaller_than_the_crop_is_named(sections, tmp_path):
    write_image(tmp_path / "good" / "small.png", np.zeros((10, 40, 3), np.uint8))
    with pytest.raises(UserError, match=r"small\.png is 40x10, less than gt_size 16"):
        batches(sections, 0, 50)


def test_pictures_of_different_sizes_in_one_batch_are_named(sections, tmp_path):
    write_image(tmp_path / "good" / "other.png", np.zeros((30, 40, 3), np.uint8))
    sections["train_hq"] = {"type": "UnpairedImageDataset", "dataroot": str(tmp_path / "good")}
    with pytest.raises(UserError, match=r"differ in size: .*other\.png \(40x30\).*set gt_size"):
        batches(sections, 0, 50)


def test_data_check_reads_the_streams(sections, tmp_path, capsys):
    """Test inputs among dark photographs are only reported; test references among good pictures are a failure."""
    held_out = tmp_path / "held_out"
    sections["val"]["dataroot"] = str(held_out)
    for path in (tmp_path / "dark").iterdir():
        image = read_image(path)
        write_image(held_out / "low" / path.name, image)
        write_image(held_out / "high" / path.name, image[::-1] // 2 + 100)
    assert check({"datasets": sections}) == 0
    told = capsys.readouterr().out
    assert "train_hq: 7 images without reference" in told
    assert "TRANSDUCTIVE, train_lq_real holds inputs of val, without references: 3" in told and "LEAK" not in told
    write_image(tmp_path / "good" / "leak.png", read_image(held_out / "high" / "20.png"))
    assert check({"datasets": sections}) == 1
    assert "LEAK: images of val that are also in train_hq, pixel for pixel: 1" in capsys.readouterr().out
