"""The forms that operators take in exported graphs compute what their usual forms do."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llie.archs.snr_aware import of_size, whole_patches
from llie.export.program import ProgramNetwork
from llie.export.write import export
from llie.ops.bilateral_grid import make_thumbnail
from llie.ops.dark_channel import haze_regions
from llie.ops.deform_conv import DeformConv2d
from llie.ops.exporting import exporting, for_export
from llie.ops.padding import pad_to_multiple
from llie.ops.region_conv import RegionConv2d
from llie.ops.ss2d import ss2d
from tests.needs import record_only


class Scans(nn.Module):
    """The four scans of an image, with results around 0.5."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        shapes = ((4, 1 + 2 * 3, 3), (4, 3, 1), (4, 3), (4, 3, 3), (4, 3))
        self.given = nn.ParameterList(torch.randn(shape, generator=random) * 0.3 for shape in shapes)

    def forward(self, x):
        return 0.5 + 0.05 * ss2d(x.permute(0, 2, 3, 1).contiguous(), *self.given).permute(0, 3, 1, 2)


class Regions(nn.Module):
    """A region convolution that finds its regions in the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = RegionConv2d(3, 4, regions=3, guide=False)

    def forward(self, x):
        return self.conv(x, (3 * x.amax(1)).long().clamp(max=2), check=False)


def moving() -> nn.Module:
    torch.manual_seed(0)
    layer = DeformConv2d(3, 4)
    nn.init.normal_(layer.conv_offset_mask.weight, std=0.5)
    return layer


@pytest.mark.parametrize("size", [(1, 13, 17), (2, 40, 21), (1, 3, 2), (1, 1, 9)])
@pytest.mark.parametrize(
    "operator",
    [Scans(), Regions(), moving(), make_thumbnail, lambda x: pad_to_multiple(x, 8), whole_patches],
    ids=["scan", "region convolution", "deformable convolution", "thumbnail", "padding", "patches"],
)
def test_forms_for_export_equal_the_usual_ones(operator, size):
    x = torch.rand(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = operator(x)
        with for_export():
            assert exporting()
            result = operator(x)
    assert not exporting()
    assert torch.allclose(result, expected, atol=1e-5)


@record_only
def test_the_scan_in_onnx(tmp_path):
    found = export(Scans().eval(), tmp_path / "scan.onnx", report=lambda line: None)
    assert max(difference.largest for difference in found) < 1e-5


@record_only
def test_images_that_are_smaller_than_a_patch(tmp_path):
    """Recorded with larger ones, whose last rows and columns are left out."""

    class Patches(nn.Module):
        """What SNR-Aware does around its attention."""

        def forward(self, x):
            return of_size(2 * whole_patches(x), *x.shape[-2:])

    export(Patches(), tmp_path / "patches.pt2", report=lambda line: None)
    written = ProgramNetwork(tmp_path / "patches.pt2")
    for size in ((1, 1), (3, 2), (3, 6), (9, 3), (4, 5), (8, 8)):
        x = torch.rand(1, 3, *size) * 0.2
        result = written(x)
        kept = [max(4, side - side % 4) for side in size]
        assert torch.equal(result[..., : kept[0], : kept[1]], 2 * x[..., : kept[0], : kept[1]])
        assert result.shape == x.shape and not result[..., kept[0] :, :].any() and not result[..., kept[1] :].any()


@record_only
def test_regions_of_haze_for_any_batch(tmp_path):
    class Hazy(nn.Module):
        """Adds a hundredth of each pixel's region, as HDM finds it."""

        def forward(self, x):
            regions = haze_regions(pad_to_multiple(x, 4)).float()[:, None]
            return x + 0.01 * F.interpolate(regions, scale_factor=4)[..., : x.shape[-2], : x.shape[-1]]

    found = export(Hazy(), tmp_path / "hazy.pt2", report=lambda line: None)
    assert {difference.size[0] for difference in found} == {1, 2}
