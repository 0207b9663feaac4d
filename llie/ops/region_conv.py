"""Region convolution: every pixel is convolved with the kernel of its region.

Source: "Dynamic Region-Aware Convolution", CVPR 2021, https://arxiv.org/abs/2003.12243.

On CPUs, only the kernel of its own region is applied to a pixel. No device keeps a copy of the map for each region,
neither in the forward nor for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.exporting import exporting

# Pixels whose patches are gathered at a time, so that they stay in the cache (larger chunks are twice as slow).
_CHUNK = 1024


def region_conv(
    x: Tensor, kernels: Tensor, regions: Tensor, stride: int = 1, padding: int | None = None, check: bool = True
) -> Tensor:
    """Compute `out[b, :, p] = sum_r M[b, r, p] * (kernels[b, r] convolved with x[b])[:, p]`, with zeros around x.

    With a map of indices or a one-hot mask, a CPU computes one product per pixel, and other devices compute one region
    after the other; with a soft mask all products are computed. Differentiable in x and kernels, and in a
    mask that requires it.

    Args:
        x: (B, C, H, W).
        kernels: (B, R, C_out, C, k, k), one set per image.
        regions: at the size (h, w) of the result, either indices (B, h, w) of an integer type in 0 .. R-1, or a mask
            (B, R, h, w) or (B, R, 1, h, w) whose R values sum to one at every pixel.
        stride: of the convolution.
        padding: zeros on every side; k // 2 when None.
        check: check the values of `regions`, which waits for a GPU; not needed for the result of `argmax`, or for
            regions that were checked before.

    Returns:
        (B, C_out, h, w).

    Raises:
        UserError: shapes do not fit, an index is out of range, or a mask does not sum to one.
    """
    padding = kernels.shape[-1] // 2 if padding is None else padding
    size = _output_size(x, kernels, stride, padding)
    regions = region_map(regions, kernels.shape[1], (x.shape[0], *size), check)
    dtype = torch.promote_types(x.dtype, kernels.dtype)
    x, kernels = x.to(dtype), kernels.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        if regions.dim() == 4:
            return _all_products(x, kernels, regions.to(dtype), stride, padding)
        if exporting():
            return _as_matrices(x, kernels, regions, stride, padding)
        if x.device.type == "cpu":
            return _Gathered.apply(x, kernels, regions, stride, padding)
        return _region_by_region(x, kernels, regions, stride, padding)


def guided_region_conv(
    x: Tensor, kernels: Tensor, guide: Tensor, stride: int = 1, padding: int | None = None
) -> Tensor:
    """`region_conv` whose regions are those where each channel of a learned guide is the largest.

    The choice is hard, in training too. The gradient of the guide is that of a softmax in place of the choice:
    `p * (d - sum_r p_r d_r)` with `p = softmax(guide)` and `d_r` the product of the output's gradient with the output
    of region r's kernel.

    Args:
        x: (B, C, H, W).
        kernels: (B, R, C_out, C, k, k).
        guide: (B, R, h, w), at the size of the result.
        stride: of the convolution.
        padding: zeros on every side; k // 2 when None.

    Returns:
        (B, C_out, h, w).

    Raises:
        UserError: shapes do not fit.
    """
    padding = kernels.shape[-1] // 2 if padding is None else padding
    expected = (x.shape[0], kernels.shape[1], *_output_size(x, kernels, stride, padding))
    if guide.shape != expected:
        raise UserError(f"guided_region_conv: the guide must have shape {expected}, not {tuple(guide.shape)}")
    out = region_conv(x, kernels, guide.argmax(1), stride, padding, check=False)
    return _GuideGradient.apply(out, guide, x.detach(), kernels.detach(), stride, padding)


def region_map(regions: Tensor, count: int, size: tuple[int, int, int], check: bool = True) -> Tensor:
    """Check regions, and convert them to the form that is the cheapest to use.

    Args:
        regions: indices or mask, see `region_conv`.
        count: number of regions, R.
        size: their required size (B, h, w).
        check: check their values, too.

    Returns:
        Indices (B, h, w), int64; or the mask (B, R, h, w), if it is soft or requires a gradient.

    Raises:
        UserError: they do not fit; the message states what was expected.
    """
    batch, height, width = size
    if not isinstance(regions, Tensor):
        raise UserError(f"regions: expected a tensor of indices or a mask, not {regions!r}")
    if regions.dim() == 5 and regions.shape[2] == 1:
        regions = regions.squeeze(2)
    is_map = regions.dim() == 3
    if tuple(regions.shape) != ((batch, height, width) if is_map else (batch, count, height, width)):
        raise UserError(
            f"regions: this map needs indices of shape ({batch}, {height}, {width}), or a mask "
            f"({batch}, {count}, {height}, {width}) of {count} regions; they have the shape {tuple(regions.shape)}"
        )
    if is_map and (regions.is_floating_point() or regions.dtype == torch.bool):
        raise UserError(f"regions: indices must be integers, not {regions.dtype}; convert them with .long()")
    look = check and not torch.compiler.is_compiling() and regions.device.type != "meta"
    if is_map:
        if look and not bool(((regions >= 0) & (regions < count)).all()):
            span = " .. ".join(str(value.item()) for value in regions.aminmax())
            raise UserError(f"regions: indices of {count} regions must be in 0 .. {count - 1}; these span {span}")
        return regions.long()
    regions = regions if regions.is_floating_point() else regions.float()
    if look and not bool(((regions.sum(1) - 1).abs() <= 1e-3).all()):
        span = " .. ".join(f"{value.item():.4g}" for value in regions.sum(1).aminmax())
        raise UserError(
            f"regions: the mask must sum to one over its {count} regions at every pixel; its sums span {span} "
            "(assign pixels without a region to one of them, for instance to region 0)"
        )
    hard = look and not regions.requires_grad and bool(((regions == 0) | (regions == 1)).all())
    return regions.argmax(1) if hard else regions


class AdaptiveMean(nn.AdaptiveAvgPool2d):
    """The means of k x k parts of a map that overlap where the size is not a multiple of k."""

    def __init__(self, parts: int):
        super().__init__(parts)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """X (B, C, H, W) -> (B, C, k, k)."""
        if not exporting():
            return super().forward(x)
        rows, columns = (_shares(side, self.parts, x) for side in x.shape[-2:])
        return rows @ x @ columns.T


def _shares(size: int, parts: int, like: Tensor) -> Tensor:
    """(parts, size) matrix of means over parts of a line: from floor(i size / parts) to before ceil((i + 1) ...)."""
    position = torch.arange(size, device=like.device)
    ends = torch.arange(parts + 1, device=like.device) * (position[-1:] + 1)
    inside = (position >= ends[:-1, None] // parts) & (position < (ends[1:, None] + parts - 1) // parts)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


class RegionConv2d(nn.Module):
    """A convolution that predicts its kernels from its input, one for each region of the image.

    Drop-in for `nn.Conv2d` (without bias). Parameter names are those of the published layer.

    Args:
        in_channels: C.
        out_channels: C_out.
        kernel_size: k.
        regions: number of regions, R.
        stride: of the convolution, and of the guide.
        padding: zeros on every side; k // 2 when None.
        guide: learn the regions; otherwise they are given with the input.

    Shapes: x (B, C, H, W) -> (B, C_out, h, w), as for `nn.Conv2d`; `regions` and `check` as for `region_conv`.

    Raises:
        UserError: sizes below 1; regions that do not fit; none given without a guide, or some given with one.

    Example:
        >>> RegionConv2d(8, 12, stride=2)(torch.rand(2, 8, 9, 7)).shape
        torch.Size([2, 12, 5, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        regions: int = 5,
        stride: int = 1,
        padding: int | None = None,
        guide: bool = True,
    ):
        super().__init__()
        if min(kernel_size, regions, stride) < 1:
            given = f"{kernel_size}, {regions} and {stride}"
            raise UserError(f"RegionConv2d: kernel_size, regions and stride must be at least 1, not {given}")
        self.shape = (regions, out_channels, in_channels, kernel_size, kernel_size)
        self.stride = stride
        self.padding = kernel_size // 2 if padding is None else padding
        self.conv_kernel = nn.Sequential(
            AdaptiveMean(kernel_size),
            nn.Conv2d(in_channels, regions**2, 1),
            nn.Sigmoid(),
            nn.Conv2d(regions**2, regions * out_channels * in_channels, 1, groups=regions),
        )
        self.conv_guide = nn.Conv2d(in_channels, regions, kernel_size, stride, self.padding) if guide else None

    def kernels(self, x: Tensor) -> Tensor:
        """The kernels (B, R, C_out, C, k, k) for these images; region r uses only its own R of the R * R factors."""
        return self.conv_kernel(x).unflatten(1, self.shape[:3])

    def forward(self, x: Tensor, regions: Tensor | None = None, check: bool = True) -> Tensor:
        """See the class."""
        if self.conv_guide is not None:
            if regions is not None:
                raise UserError("RegionConv2d: this layer learns its regions; call it with the input alone")
            return guided_region_conv(x, self.kernels(x), self.conv_guide(x), self.stride, self.padding)
        if regions is None:
            raise UserError("RegionConv2d: give the regions with the input, or build it with guide=True")
        return region_conv(x, self.kernels(x), regions, self.stride, self.padding, check)


def _output_size(x: Tensor, kernels: Tensor, stride: int, padding: int) -> tuple[int, int]:
    if x.dim() != 4 or kernels.dim() != 6 or (x.shape[0], x.shape[1]) != (kernels.shape[0], kernels.shape[3]):
        raise UserError(
            "region_conv: x must be (B, C, H, W) and kernels (B, R, C_out, C, k, k), not "
            f"{tuple(x.shape)} and {tuple(kernels.shape)}"
        )
    k = kernels.shape[-1]
    height, width = ((side + 2 * padding - k) // stride + 1 for side in x.shape[-2:])
    if min(height, width) < 1:
        raise UserError(
            f"region_conv: the map ({x.shape[-2]}x{x.shape[-1]}, padding {padding}) is smaller than the {k}x{k} kernel"
        )
    return height, width


def _conv(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    """Each image (B, C, H, W) with its own kernel (B, C_out, C, k, k)."""
    grouped = F.conv2d(x.flatten(0, 1)[None], kernels.flatten(0, 1), None, stride, padding, groups=x.shape[0])
    return grouped[0].unflatten(0, kernels.shape[:2])


def _all_products(x: Tensor, kernels: Tensor, mask: Tensor, stride: int, padding: int) -> Tensor:
    terms = (mask[:, r, None] * _conv(x, kernels[:, r], stride, padding) for r in range(kernels.shape[1]))
    return sum(terms, start=next(terms))


def _region_by_region(x: Tensor, kernels: Tensor, regions: Tensor, stride: int, padding: int) -> Tensor:
    """For GPUs: gathering is slow there, and the host would have to wait for the sizes of the regions."""
    out = _conv(x, kernels[:, 0], stride, padding)
    for r in range(1, kernels.shape[1]):
        out = torch.where((regions == r)[:, None], _conv(x, kernels[:, r], stride, padding), out)
    return out


def _as_matrices(x: Tensor, kernels: Tensor, regions: Tensor, stride: int, padding: int) -> Tensor:
    """For exported graphs, whose convolutions cannot have a kernel for each image: products with all patches."""
    height, width = regions.shape[1:]
    patches = F.unfold(x, kernels.shape[-1], padding=padding, stride=stride)  # (B, C k k, h w)
    out = kernels[:, 0].flatten(2) @ patches
    for r in range(1, kernels.shape[1]):
        here = (regions == r).flatten(1)[:, None]
        out = torch.where(here, kernels[:, r].flatten(2) @ patches, out)
    return out.unflatten(2, (height, width))


class _Gathered(torch.autograd.Function):
    """Sorts pixels by region, then multiplies the patches of a chunk of them, as a matrix, by their region's kernel.

    The backward pass gathers the patches again, because storing them would take k * k copies of the map.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, regions: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, kernels, regions)
        ctx.stride, ctx.padding = stride, padding
        matrices, padded = _matrices(kernels), _padded(x, padding)
        out = x.new_empty(*regions.shape, kernels.shape[2])
        for image, chosen, matrix, result in zip(padded, regions, matrices, out.flatten(1, 2), strict=True):
            for r, pixels in _chunks(chosen, kernels.shape[1]):
                corners = _corners(pixels, chosen.shape[1], image.shape[1], stride)
                result.index_copy_(0, pixels, _patches(image, corners, kernels.shape[-1]) @ matrix[r])
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernels, regions = ctx.saved_tensors
        stride, k = ctx.stride, kernels.shape[-1]
        matrices, padded = _matrices(kernels), _padded(x, ctx.padding)
        grad_matrices, grad_padded = torch.zeros_like(matrices), torch.zeros_like(padded)
        grad = grad.permute(0, 2, 3, 1).contiguous()
        across, channels = padded.shape[2:]
        taps = (torch.arange(k)[:, None] * across + torch.arange(k)).flatten()
        with torch.autocast("cpu", enabled=False):
            for b, chosen in enumerate(regions):
                for r, pixels in _chunks(chosen, kernels.shape[1]):
                    corners = _corners(pixels, chosen.shape[1], across, stride)
                    rows = grad[b].flatten(0, 1)[pixels]
                    grad_matrices[b, r].addmm_(_patches(padded[b], corners, k).T, rows)
                    places = (corners[:, None] + taps).flatten()
                    grad_padded[b].flatten(0, 1).index_add_(0, places, (rows @ matrices[b, r].T).view(-1, channels))
        p, (height, width) = ctx.padding, x.shape[-2:]
        grad_x = grad_padded[:, p : p + height, p : p + width].permute(0, 3, 1, 2)
        grad_kernels = grad_matrices.unflatten(2, (k, k, -1)).permute(0, 1, 5, 4, 2, 3)
        return grad_x, grad_kernels, None, None, None


class _GuideGradient(torch.autograd.Function):
    """Returns its input; the backward pass gives the guide its surrogate gradient (see `guided_region_conv`)."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, guide: Tensor, x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(guide, x, kernels)
        ctx.stride, ctx.padding = stride, padding
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        guide, x, kernels = ctx.saved_tensors
        x, kernels, p = x.to(grad.dtype), kernels.to(grad.dtype), guide.softmax(1)
        with torch.autocast(grad.device.type, enabled=False):
            # The outputs are recomputed for one region at a time: all together are R copies of the map.
            products = (grad * _conv(x, own, ctx.stride, ctx.padding) for own in kernels.unbind(1))
            d = torch.stack([product.sum(1) for product in products], dim=1)
        grad_guide = p * (d - (p * d).sum(1, keepdim=True))
        return grad, grad_guide.to(guide.dtype), None, None, None, None


def _matrices(kernels: Tensor) -> Tensor:
    """(B, R, C_out, C, k, k) -> (B, R, k * k * C, C_out), the order of a patch in channels-last memory."""
    return kernels.permute(0, 1, 4, 5, 3, 2).flatten(2, 4)


def _padded(x: Tensor, padding: int) -> Tensor:
    """(B, C, H, W) -> (B, H', W', C) with zeros around, contiguous."""
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding)).contiguous()


def _chunks(regions: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """The pixels (h, w) by region: pairs of a region and the flat positions of at most `_CHUNK` of its pixels."""
    flat = regions.flatten()
    sizes = flat.bincount(minlength=count).tolist()
    for r, pixels in enumerate(flat.argsort(stable=True).split(sizes)):
        for chunk in pixels.split(_CHUNK) if len(pixels) else ():
            yield r, chunk


def _corners(pixels: Tensor, width: int, padded_width: int, stride: int) -> Tensor:
    """Flat positions in the padded image where the patches of these pixels of a result (of that width) begin."""
    return pixels.div(width, rounding_mode="floor") * (stride * padded_width) + pixels % width * stride


def _patches(image: Tensor, corners: Tensor, k: int) -> Tensor:
    """Patches (n, k * k * C) of a padded image (H', W', C)."""
    height, width, channels = image.shape
    # k horizontal neighbours are adjacent in memory, so a patch needs k reads instead of k * k.
    runs = image.as_strided((height * width - k + 1, k * channels), (channels, 1))
    return runs.index_select(0, (corners[:, None] + torch.arange(k) * width).flatten()).view(len(corners), -1)
