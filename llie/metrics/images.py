"""Images of any kind as float64 arrays (H, W, C) on the 0..255 scale, for metrics; 8-bit values are exact."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from llie.errors import UserError

Image: TypeAlias = "torch.Tensor | NDArray"
Pixels: TypeAlias = "NDArray"


def to_pixels(image: Image, what: str = "image", input_order: str = "HWC") -> list[Pixels]:
    """The images in a tensor or array, each as a float64 array (H, W, C) on the 0..255 scale.

    Args:
        image: tensor (C, H, W) or (B, C, H, W), floating point in [0, 1]; or array (H, W), (H, W, C) or (B, H, W, C)
            of uint8, uint16 or floating point in [0, 1]. Colour is RGB. Values out of range are kept.
        what: its name in messages.
        input_order: order of axes of an *array*: `HWC` or `CHW`; tensors are always CHW.

    Raises:
        UserError: not finite, an unknown shape or type, or floating point that is obviously on the 0..255 scale.
    """
    if input_order not in ("HWC", "CHW"):
        raise UserError(f"input_order must be HWC or CHW, not {input_order!r}")
    if isinstance(image, torch.Tensor):
        tensor = image.detach().cpu()
        array = (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()
        input_order = "CHW"
    else:
        array = np.asarray(image)
    if input_order == "CHW" and array.ndim in (3, 4):
        array = np.moveaxis(array, -3, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3) or array.size == 0:
        raise UserError(
            f"the {what} has shape {tuple(image.shape)}; expected a tensor (3, H, W) or (B, 3, H, W), "
            f"or an array (H, W, 3)"
        )
    pixels = np.ascontiguousarray(_to_255(array, what))  # OpenCV would copy a transposed view at every call
    return list(pixels if pixels.ndim == 4 else pixels[None])


def cut(image: Pixels, border: int) -> Pixels:
    """Cut off `border` pixels on each side."""
    if border < 0 or min(image.shape[:2]) <= 2 * border:
        raise UserError(f"a border of {border} leaves nothing of an image of {image.shape[1]}x{image.shape[0]} pixels")
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def _to_255(array: NDArray, what: str) -> Pixels:
    if array.dtype == np.uint8:
        return array.astype(np.float64)
    if array.dtype == np.uint16:
        return array / 257.0  # 65535 / 257 = 255
    if array.dtype.kind != "f":
        raise UserError(f"the {what} has the type {array.dtype}; expected uint8, uint16 or floating point in [0, 1]")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise UserError(f"the {what} is broken: {bad} of its {array.size} values are NaN or infinite")
    if 2 * np.count_nonzero(array > 2) > array.size:
        raise UserError(f"the {what} is floating point on the 0..255 scale; divide it by 255 (expected [0, 1])")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    # In the precision of the input: k/255 in float32 times 255 is exactly k, which matters for truncation.
    return (array * array.dtype.type(255)).astype(np.float64)
