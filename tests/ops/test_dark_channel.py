import pytest
import torch

from llie.errors import UserError
from llie.ops import haze_regions
from llie.ops.dark_channel import dark_channel, filtered_dark_channel, guided_filter, reduced8
from llie.ops.padding import pad_to_multiple

CASES = range(7)


def image_of(vector, case):
    return vector[f"case{case}_image"].permute(2, 0, 1)[None], vector.meta["cases"][case]


@pytest.mark.parametrize("case", CASES)
def test_golden(golden, case):
    vector = golden("hdm_dcp")
    image, facts = image_of(vector, case)
    small = reduced8(image.double(), None)[0]
    assert torch.equal(small.permute(1, 2, 0).byte(), vector[f"case{case}_small"])
    if facts["gamma"]:
        small = reduced8(image.double(), facts["gamma"])[0]
        assert torch.equal(small.permute(1, 2, 0).byte(), vector[f"case{case}_small_gamma"])
    torch.testing.assert_close(
        dark_channel(small[None] / 255)[0], vector[f"case{case}_dark"].double(), atol=1e-7, rtol=0
    )
    q = filtered_dark_channel(image, facts["gamma"])[0]
    torch.testing.assert_close(q, vector[f"case{case}_filtered"], atol=1e-6, rtol=0)
    torch.testing.assert_close((q.max() - q) / (q.max() - q.min()), vector[f"case{case}_t_norm"], atol=1e-6, rtol=0)
    assert torch.equal(haze_regions(image, facts["regions"], facts["gamma"])[0], vector[f"case{case}_regions"].long())


def test_floats_give_the_regions_of_the_eight_bit_image_they_came_from(golden):
    image, facts = image_of(golden("hdm_dcp"), 2)
    expected = haze_regions(image, gamma=facts["gamma"])
    for tensor in (image.float() / 255, image.double() / 255):
        assert torch.equal(haze_regions(tensor, gamma=facts["gamma"]), expected)


def test_a_flat_dark_channel_is_one_region(golden):
    flat = golden("hdm_dcp")["flat_image"].permute(2, 0, 1)
    assert haze_regions(flat).shape == (8, 12)
    assert not haze_regions(flat).any()


def test_each_image_of_a_batch_has_regions_of_its_own():
    images = torch.rand(3, 3, 40, 52, generator=torch.Generator().manual_seed(0))
    images[1] *= 0.1
    together = haze_regions(images)
    assert together.dtype == torch.int64
    for image, regions in zip(images, together, strict=True):
        assert torch.equal(haze_regions(image), regions)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (4, 37), (7, 9)])
def test_small_images(size):
    regions = haze_regions(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert regions.shape == (1, size[0] // 4, size[1] // 4)
    assert regions.min() >= 0 and regions.max() <= 4


def test_region_zero_is_the_clearest():
    # Haze that thickens to the right.
    scene = torch.rand(1, 3, 64, 256, generator=torch.Generator().manual_seed(0)) * 0.5
    haze = torch.linspace(0, 0.9, 256)
    regions = haze_regions(scene * (1 - haze) + haze)[0]
    assert regions[:, 0].eq(0).all() and regions[:, -1].eq(4).all()
    assert (regions.float().mean(0).diff() >= 0).float().mean() > 0.95


def test_dark_channel_is_the_smallest_value_in_the_window():
    image = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    result = dark_channel(image, window=5)
    for y, x in ((0, 0), (4, 6), (8, 10)):
        window = image[:, :, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        assert torch.equal(result[:, y, x], window.amin((1, 2, 3)))


def test_guided_filter_keeps_constants_and_is_linear_in_the_image():
    generator = torch.Generator().manual_seed(0)
    guide, image = (torch.rand(12, 17, generator=generator, dtype=torch.float64) for _ in range(2))
    ones = torch.ones_like(guide)
    torch.testing.assert_close(guided_filter(guide, ones), ones)
    torch.testing.assert_close(
        guided_filter(guide, 3 * image + 2 * ones), 3 * guided_filter(guide, image) + 2 * ones, atol=1e-9, rtol=0
    )


def test_regions_of_an_autocast_step_are_those_without():
    image = pad_to_multiple(torch.rand(1, 3, 33, 42, generator=torch.Generator().manual_seed(0)), 4)
    expected = haze_regions(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(haze_regions(image), expected)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 3, 8), (8, 8)])
def test_arguments_that_are_not_images(shape):
    with pytest.raises(UserError, match="at least 4x4"):
        haze_regions(torch.zeros(shape))


def test_no_classes():
    with pytest.raises(UserError, match="classes must be at least 1, not 0"):
        haze_regions(torch.zeros(1, 3, 8, 8), classes=0)
