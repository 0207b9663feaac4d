import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llie.errors import UserError
from llie.ops import RegionConv2d
from llie.ops.region_conv import _region_by_region, guided_region_conv, region_conv
from tests.golden.compare import assert_near


def draw(batch=2, channels=3, outputs=4, regions=5, size=(7, 9), k=3, stride=1, dtype=torch.float64):
    """Input, kernels, indices and soft mask, the last two at the size of the result."""
    generator = torch.Generator().manual_seed(0)
    out = [(side + 2 * (k // 2) - k) // stride + 1 for side in size]
    x = torch.randn(batch, channels, *size, generator=generator, dtype=dtype)
    kernels = torch.randn(batch, regions, outputs, channels, k, k, generator=generator, dtype=dtype)
    indices = torch.randint(regions, (batch, *out), generator=generator)
    mask = torch.randn(batch, regions, *out, generator=generator, dtype=dtype).softmax(1)
    return x, kernels, indices, mask


def by_definition(x, kernels, mask, stride=1):
    """Every image and region by itself, times the mask."""
    results = []
    for image, own, weights in zip(x, kernels, mask, strict=True):
        each = [F.conv2d(image[None], kernel, padding=kernel.shape[-1] // 2, stride=stride)[0] for kernel in own]
        results.append(sum(weight * one for weight, one in zip(weights, each, strict=True)))
    return torch.stack(results)


def one_hot(indices, count, dtype=torch.float64):
    return F.one_hot(indices, count).permute(0, 3, 1, 2).to(dtype)


@pytest.mark.parametrize("case", range(5))
def test_golden(golden, case):
    vector, prefix = golden("hdm_drconv"), f"case{case}."
    facts = vector.meta["cases"][case]
    guide = facts["cls"] == "guide"
    layer = RegionConv2d(
        facts["in_channels"], facts["out_channels"], facts["kernel_size"], facts["region_num"], guide=guide
    )
    layer.load_state_dict({k.removeprefix(prefix): v for k, v in vector.state_dict().items() if k.startswith(prefix)})
    x = vector[f"case{case}_input"].requires_grad_()
    kernels = layer.kernels(x)
    out = layer(x) if guide else layer(x, vector[f"case{case}_regions"])
    expected = vector[f"case{case}_kernel"]
    assert_near(kernels[:, :, : expected.shape[2]], expected)
    if guide:
        assert_near(layer.conv_guide(x), vector[f"case{case}_guide"])
    assert_near(out, vector[f"case{case}_output"])
    (out * vector[f"case{case}_probe"]).sum().backward()
    compared = 0
    for name, tensor in {"input": x, **dict(layer.named_parameters())}.items():
        key = f"case{case}_grad_{name.replace('.', '_')}"
        if key in vector:
            assert_near(tensor.grad, vector[key], of=key)
            compared += 1
    assert compared == sum(key.startswith(f"case{case}_grad_") for key in vector.arrays)


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"regions": 1},
        {"regions": 16, "size": (5, 6)},
        {"stride": 2},
        {"stride": 2, "size": (8, 10), "k": 5},
        {"k": 1},
        {"size": (1, 1)},
        {"size": (45, 50), "regions": 2},  # more pixels of a region than are gathered at once
    ],
)
@pytest.mark.parametrize("form", ["indices", "one-hot", "published one-hot", "soft", "region by region"])
def test_equals_the_definition(geometry, form):
    x, kernels, indices, mask = draw(**geometry)
    stride, count = geometry.get("stride", 1), kernels.shape[1]
    hot = one_hot(indices, count)
    if form == "region by region":  # what other devices than CPUs do
        out = _region_by_region(x, kernels, indices, stride, kernels.shape[-1] // 2)
    else:
        regions = {"indices": indices.byte(), "one-hot": hot, "published one-hot": hot[:, :, None], "soft": mask}[form]
        out = region_conv(x, kernels, regions, stride)
    torch.testing.assert_close(out, by_definition(x, kernels, mask if form == "soft" else hot, stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("present", [(0, 1, 2), (0, 2), (1,)])  # all regions, an empty one, only one
def test_gradcheck(stride, present):
    x, kernels, indices, _ = draw(2, 2, 2, 3, (4, 5), stride=stride)
    indices = torch.tensor(present)[indices % len(present)]
    x.requires_grad_(), kernels.requires_grad_()
    assert gradcheck(lambda x, kernels: region_conv(x, kernels, indices, stride), (x, kernels))


def test_gradcheck_of_a_soft_mask():
    x, kernels, _, mask = draw(1, 2, 2, 3, (4, 5))
    tensors = tuple(tensor.requires_grad_() for tensor in (x, kernels, mask))
    assert gradcheck(lambda x, kernels, mask: region_conv(x, kernels, mask / mask.sum(1, keepdim=True)), tensors)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_guide_gets_the_gradient_of_a_softmax(stride):
    x, kernels, _, guide = draw(stride=stride)
    probe = torch.randn_like(by_definition(x, kernels, guide, stride))
    guide.requires_grad_(), x.requires_grad_()
    out = guided_region_conv(x, kernels, guide, stride)
    hard = one_hot(guide.argmax(1), 5)
    torch.testing.assert_close(out, by_definition(x, kernels, hard, stride))
    grad_guide, grad_x = torch.autograd.grad((out * probe).sum(), (guide, x))
    soft = (by_definition(x, kernels, guide.softmax(1), stride) * probe).sum()
    torch.testing.assert_close(grad_guide, torch.autograd.grad(soft, guide)[0])
    chosen = (by_definition(x, kernels, hard, stride) * probe).sum()
    torch.testing.assert_close(grad_x, torch.autograd.grad(chosen, x)[0])


class Largest(TorchDispatchMode):
    """The largest tensor that any operator makes."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("form", ["given", "guide", "soft", "region by region"])
def test_no_copy_of_the_map_for_each_region(form):
    regions, size = 8, 64
    x, kernels, indices, mask = draw(1, 16, 16, regions, (size, size), dtype=torch.float32)
    x.requires_grad_(), kernels.requires_grad_()
    saved = []

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with Largest() as seen, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if form == "guide":
            out = guided_region_conv(x, kernels, mask.requires_grad_())
        elif form == "region by region":
            out = _region_by_region(x, kernels, indices, 1, 1)
        else:
            out = region_conv(x, kernels, indices if form == "given" else mask)
        out.sum().backward()
    copy_each = regions * x.numel()
    assert seen.numel < copy_each / 2
    kept = {tensor.data_ptr(): tensor.numel() * tensor.element_size() / 4 for tensor in saved}
    assert sum(kept.values()) < copy_each / 2


def test_drop_in_for_conv2d():
    x = torch.rand(2, 6, 9, 7)
    for settings in ({}, {"stride": 2}, {"kernel_size": 5}, {"padding": 0}):
        layer = RegionConv2d(6, 10, regions=3, **settings)
        like = torch.nn.Conv2d(6, 10, **{"kernel_size": 3, "padding": layer.padding, **settings})
        assert layer(x).shape == like(x).shape
        layer(x).sum().backward()
        assert all(p.grad is not None for p in layer.parameters())


def test_autocast_gives_what_float32_gives():
    torch.manual_seed(0)
    layer, x = RegionConv2d(8, 8, guide=False), torch.rand(1, 8, 12, 12)
    indices = torch.randint(5, (1, 12, 12))
    expected = layer(x, indices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(x, indices)
        rounded.sum().backward()
    assert (rounded - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (torch.zeros(2, 8, 9, dtype=torch.long), "shape"),
        (torch.zeros(2, 4, 7, 9), "5 regions"),
        (torch.zeros(2, 5, 7, 9), "sum to one"),
        (torch.full((2, 5, 7, 9), 0.3), "sums span 1.5 .. 1.5"),
        (torch.full((2, 7, 9), 5), r"0 \.\. 4; these span 5 \.\. 5"),
        (torch.full((2, 7, 9), -1), "these span -1"),
        (torch.zeros(2, 7, 9), "must be integers"),
        (3.0, "a tensor"),
    ],
)
def test_regions_that_do_not_fit(regions, message):
    x, kernels, _, _ = draw()
    with pytest.raises(UserError, match=message):
        region_conv(x, kernels, regions)


def test_other_mistakes():
    x, kernels, indices, mask = draw()
    with pytest.raises(UserError, match="smaller than the 3x3 kernel"):
        region_conv(x[:, :, :2, :2], kernels, indices, padding=0)
    with pytest.raises(UserError, match="kernels"):
        region_conv(x[:, :2], kernels, indices)
    with pytest.raises(UserError, match="the guide must have shape"):
        guided_region_conv(x, kernels, mask[:, :, 1:])
    with pytest.raises(UserError, match="at least 1, not 3, 0 and 1"):
        RegionConv2d(3, 4, regions=0)
    with pytest.raises(UserError, match="give the regions"):
        RegionConv2d(3, 4, guide=False)(x.float())
    with pytest.raises(UserError, match="learns its regions"):
        RegionConv2d(3, 4)(x.float(), indices)
