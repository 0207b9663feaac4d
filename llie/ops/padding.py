"""Any image size for networks that work on multiples of some number: the only place where images are padded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect `x` beyond its right and bottom edge until both sizes are multiples of `multiple`.

    The reflection goes back and forth where the image is smaller than the padding, and repeats a single row or column.

    Args:
        x: (..., H, W), any type.
        multiple: what the sizes of the result are multiples of.

    Returns:
        (..., H', W') with H <= H' < H + multiple and W likewise; `x` itself where nothing is to be added.
    """
    for dim in (-2, -1):
        size = x.shape[dim]
        missing = -size % multiple
        if missing:
            x = x.index_select(dim, reflected(torch.arange(size + missing, device=x.device), size))
    return x


def reflected(positions: Tensor, size: int) -> Tensor:
    """Where to read along `size` pixels at any integer positions, walking back and forth: ... 1 0 1 2 1 0 1 2 ..."""
    period = max(2 * (size - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions).clamp(max=size - 1)


def any_size(multiple: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a `forward(self, x, ...)` that needs sizes divisible by `multiple`: pad before, crop after.

    Tensor arguments of the image's height and width (maps of a control, masks) are padded with it. In the result, a
    tensor or a dict, tuple or list of tensors, whatever has the padded height and width is cropped back.

    Example:
        >>> class Halve(torch.nn.Module):
        ...     @any_size(2)
        ...     def forward(self, x):
        ...         return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 2), scale_factor=2)
        >>> Halve()(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 5, 7])
    """

    def decorate(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def padded_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            size = x.shape[-2:]
            if size[0] % multiple == 0 and size[1] % multiple == 0:
                return forward(self, x, *args, **kwargs)

            def pad(tensor: Tensor) -> Tensor:
                return pad_to_multiple(tensor, multiple) if tensor.shape[-2:] == size else tensor

            padded = pad_to_multiple(x, multiple)

            def crop(tensor: Tensor) -> Tensor:
                return tensor[..., : size[0], : size[1]] if tensor.shape[-2:] == padded.shape[-2:] else tensor

            return _map(crop, forward(self, padded, *_map(pad, args), **_map(pad, kwargs)))

        return padded_forward

    return decorate


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_map(function, item) for item in value)
    return value
