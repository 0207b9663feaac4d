"""Photographs for Dawn: what a camera records, and crops that agree with their thumbnail and region."""

import cv2
import numpy as np
import pytest
import torch

from llie.data import build_dataset
from llie.data.lowlight import Camera, srgb_to_linear
from llie.errors import UserError


def photograph(height=90, width=120, seed=0):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 6)
    image = (image - image.min()) / (image.max() - image.min())
    return np.rint(255 * image).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    for name, seeds in (("photos", (1, 2)), ("pairs/our485/high", (3, 4)), ("pairs/our485/low", (3, 4))):
        (tmp_path / name).mkdir(parents=True)
        for seed in seeds:
            image = photograph(seed=seed) // (8 if name.endswith("low") else 1)
            cv2.imwrite(str(tmp_path / name / f"{seed}.png"), image[..., ::-1])
    return tmp_path


def make(folders, **options):
    section = {
        "type": "PhotographDataset",
        "dataroot_gt": str(folders / "photos"),
        "dataroot": str(folders / "pairs"),
        **{"gt_size": 32, "variants": 4, "pair_copies": 2, "pair_blends": 1, "long_side": (60, 100)},
        **options,
    }
    return build_dataset(section, "train")


def test_exposure_is_in_stops_of_linear_light():
    image = photograph()
    exact = Camera((-2, -2), untouched=0, uneven=0, cast=0, gamma=(1, 1), shot=(1e-9, 1e-9), read=(1e-9, 1e-9), jpeg=0)
    dark = exact(image, np.random.default_rng(0))
    light = srgb_to_linear(image.astype(np.float32) / 255)
    np.testing.assert_allclose(srgb_to_linear(dark.astype(np.float32) / 255), light / 4, atol=2e-3)
    same = Camera(untouched=1)(image, np.random.default_rng(0))
    assert np.array_equal(same, image)


def test_records_are_pure_functions_of_their_stream_and_differ_between_streams():
    image = photograph()
    first, again, other = (Camera(untouched=0)(image, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_uneven_light_is_never_darker_than_the_exposure_nor_brighter_than_the_photograph():
    light = srgb_to_linear(photograph().astype(np.float32) / 255)
    for seed in range(30):
        stops = Camera(exposure=(-4, -4), uneven=1).stops(light, np.random.default_rng(seed))
        assert stops.shape == light.shape[:2] and -4 - 1e-5 <= stops.min() <= stops.max() <= 0


@pytest.mark.parametrize(
    "wrong", [{"exposure": (0, -1)}, {"untouched": 1.5}, {"jpeg": -0.1}, {"shot": (1, 0.1)}, {"cast": -1}]
)
def test_ranges_are_validated(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Camera(**wrong)


def test_items_are_crops_that_fit_their_thumbnail_and_place(folders):
    dataset = make(folders, jpeg=0.0)
    assert len(dataset) == 2 * 4 + 2 * (2 + 1 + 1)
    for index in range(len(dataset)):
        item = dataset[3, index]
        assert item["lq"].shape == item["gt"].shape == (3, 32, 32) and item["thumbnail"].shape == (3, 128, 128)
        top, bottom, left, right = item["region"].tolist()
        assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
        rows, columns = (slice(round(a * 128), round(b * 128)) for a, b in ((top, bottom), (left, right)))
        seen = item["thumbnail"][:, rows, columns].mean((1, 2))
        assert (seen - item["lq"].mean((1, 2))).abs().max() < 0.1  # the place in the thumbnail shows the crop


def test_items_depend_on_seed_epoch_and_index_alone(folders):
    one, two = make(folders), make(folders)
    for key in ((0, 0), (2, 7), (5, 11)):
        assert all(torch.equal(one[key][name], two[key][name]) for name in ("lq", "gt", "thumbnail", "region"))
    assert not torch.equal(one[0, 3]["lq"], one[1, 3]["lq"])


def test_real_pairs_are_cut_alike_and_keep_their_input(folders):
    dataset = make(folders, dataroot_gt=None, pair_copies=1, pair_blends=0, variants=0, jitter=0.0)
    assert len(dataset) == 2
    high = torch.from_numpy(photograph(seed=3)).permute(2, 0, 1)
    for epoch in range(6):
        item = dataset[epoch, 0]
        crops = [torch.cat([high // 8, high])]
        crops += [crops[0].flip(-1), crops[0].flip(-2), crops[0].flip(-1, -2)]
        crops += [crop.mT for crop in crops]
        wanted = (torch.cat([item["lq"], item["gt"]]) * 255).round().to(torch.uint8)
        places = [crop.unfold(1, 32, 1).unfold(2, 32, 1) for crop in crops]
        assert any((place == wanted[:, None, None]).all(-1).all(-1).all(0).any() for place in places)


def test_jitter_changes_crop_and_thumbnail_of_real_pairs_alike(folders):
    still, moved = (make(folders, dataroot_gt=None, variants=0, jitter=jitter) for jitter in (0.0, 1.0))
    factors = []
    for epoch in range(10):
        one, other = still[epoch, 0], moved[epoch, 0]
        assert torch.equal(one["gt"], other["gt"])
        factor = (other["thumbnail"].mean((1, 2)) / one["thumbnail"].mean((1, 2))).numpy()
        crop = (other["lq"].mean((1, 2)) / one["lq"].mean((1, 2))).numpy()
        np.testing.assert_allclose(crop, factor, rtol=0.1)
        factors.append(factor.mean())
    assert min(factors) < 0.8 and max(factors) > 1.25


def test_mistakes(folders):
    with pytest.raises(UserError, match="dataroot_gt to folders of well-lit photographs, dataroot to folders of pairs"):
        make(folders, dataroot=None, dataroot_gt=None)
    with pytest.raises(UserError, match="long_side"):
        make(folders, long_side=(16, 100))
    cv2.imwrite(str(folders / "pairs/our485/low/3.png"), np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(UserError, match=r"3\.png and .*3\.png differ in size"):
        make(folders).load()
