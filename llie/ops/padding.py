"""Any image size for networks that need multiples of some number: all padding and resizing for them is here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.exporting import exporting


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad `x` at the right and bottom by reflection until both sizes are multiples of `multiple`.

    Images smaller than the padding are reflected several times; a single row or column is repeated.

    Args:
        x: (..., H, W), any type.
        multiple: divisor of the sizes of the result.

    Returns:
        (..., H', W') with H <= H' < H + multiple, W likewise; `x` itself if no padding is needed.
    """
    for dim in (-2, -1):
        size = x.shape[dim]
        padded = (size + multiple - 1) // multiple * multiple
        if exporting() or padded > size:  # an exported graph pads whatever size it meets, by nothing if need be
            x = x.index_select(dim, reflected(torch.arange(padded, device=x.device), size))
    return x


def reflected(positions: Tensor, size: int) -> Tensor:
    """Any integer positions, reflected into a line of `size` pixels: ... 1 0 1 2 1 0 1 2 ..."""
    last = torch.arange(size, device=positions.device)[-1:]  # a tensor: an exported graph cannot divide by its sizes
    period = (2 * last).clamp(min=1)
    positions = positions % period
    return torch.minimum(torch.minimum(positions, period - positions), last)


def any_size(multiple: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a `forward(self, x, ...)` that needs sizes divisible by `multiple`: pad before, crop after.

    Tensor arguments with the height and width of the image (maps of a control, masks) are padded, too. In the result (a
    tensor, or a dict, tuple or list of tensors), every tensor with the padded height and width is cropped.

    Example:
        >>> class Halve(torch.nn.Module):
        ...     @any_size(2)
        ...     def forward(self, x):
        ...         return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 2), scale_factor=2)
        >>> Halve()(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 5, 7])
    """
    return _elsewhere(
        lambda image: pad_to_multiple(image, multiple), lambda image, size: image[..., : size[0], : size[1]]
    )


def at_size(size: Sequence[int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator like `any_size` that resizes instead, bilinearly: the image and its maps to (height, width), and back.

    Resizing loses sharpness, but some published protocols require it.

    Raises:
        UserError: the size is not two numbers of pixels.
    """
    if not isinstance(size, Sequence) or len(size) != 2 or min(size) < 1:
        raise UserError(f"size must be a height and a width, for instance [400, 608], not {size!r}")

    def resize(image: Tensor, to: Sequence[int] = size) -> Tensor:
        return image if image.shape[-2:] == tuple(to) else F.interpolate(image, tuple(to), mode="bilinear")

    return _elsewhere(resize, resize)


def _elsewhere(
    there: Callable[[Tensor], Tensor], back: Callable[[Tensor, torch.Size], Tensor]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: run at another size, and convert all results of that size back."""

    def decorate(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def forward_elsewhere(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            size, moved = x.shape[-2:], there(x)
            if moved is x:
                return forward(self, x, *args, **kwargs)

            def take_there(tensor: Tensor) -> Tensor:
                return there(tensor) if tensor.shape[-2:] == size else tensor

            def take_back(tensor: Tensor) -> Tensor:
                return back(tensor, size) if tensor.shape[-2:] == moved.shape[-2:] else tensor

            outputs = forward(self, moved, *_map(take_there, args), **_map(take_there, kwargs))
            return _map(take_back, outputs)

        return forward_elsewhere

    return decorate


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_map(function, item) for item in value)
    return value
