"""A trained network as a function of images: arrays or tensors in, the same kind, type and size out."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from llie.archs import card_of, check_controls
from llie.engine import allocator
from llie.errors import UserError
from llie.inference.fast import Fast
from llie.inference.tiles import smaller_on_failure, split
from llie.ops.bilateral_grid import make_thumbnail
from llie.ops.fusion import fuse
from llie.ops.srgb import linear_to_srgb, srgb_to_linear
from llie.strips import InMemory
from llie.strips.memory import memory_budget

Image = TypeVar("Image", np.ndarray, Tensor)

_WHITE = {torch.uint8: 255, torch.uint16: 65535}
BYTES_PER_PIXEL = 400  # memory of the network per pixel of a piece; measured 280 to 340 for Dawn
LARGEST_TILE = 2_000_000  # pixels; larger pieces are not faster and need more memory
_ARRAY_TYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64)


class Enhancer:
    """Brightens images of any size with a trained network.

    Args:
        network: a registered network, or any module that maps (B, 3, H, W) in [0, 1] to the same.
        device: device to run on; None: a GPU if there is one.
        controls: arguments of the network's `forward` besides the image, for instance `alpha_s` of the HVI family.
        strength: 0 returns the image exactly, 1 the network's result; values between blend in linear light.
        exposure: change of the result's exposure, in EV, without clipping highlights.
        memory: memory limit for one image ("4GB", "512MiB", or bytes); None: half of the free memory. What would need
            more is enhanced in pieces or strips, with the same result.
        fast: compute with fewer digits where that is faster on this machine and loses little, see
            `llie.inference.fast`; one line says what was decided at the first image. What needs strips keeps maps
            in float32.

    Raises:
        UserError: the device does not exist, the network has no such control, or a value is out of range.

    Example:
        >>> enhance = Enhancer(torch.nn.Identity(), device="cpu")
        >>> enhance(np.zeros((5, 7, 3), np.uint8)).shape
        (5, 7, 3)
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device | None = None,
        controls: Mapping[str, float | Sequence[int]] | None = None,
        strength: float = 1.0,
        exposure: float = 0.0,
        memory: str | float | None = None,
        fast: bool = False,
    ):
        self.device = pick_device(device)
        self.fast = Fast(self.device) if fast else None
        self.network = fuse(network.to(self.device).eval())
        self.halo = card_of(network).halo
        if self.halo is not None:  # a third faster for small convolutions at full resolution
            self.network.to(memory_format=torch.channels_last)
        self._set(controls or {}, strength, exposure)
        self.memory = None if memory is None else memory_budget(memory, self.device)
        self.in_memory = InMemory(self.network, self.memory)
        self._tile_pixels: int | None = None  # number of pixels that fitted into a GPU's memory

    def _set(self, controls: Mapping[str, float | Sequence[int]], strength: float, exposure: float) -> None:
        check_controls(self.network, controls)
        if not 0 <= strength <= 1:
            raise UserError(f"strength: {strength} is not between 0 (the image as it is) and 1 (the full effect)")
        if not -10 <= exposure <= 10:
            raise UserError(f"exposure: {exposure} is not between -10 and 10 EV")
        self.controls, self.strength, self.exposure = dict(controls), strength, exposure

    def adjusted(self, strength: float = 1.0, exposure: float = 0.0, **controls: float | Sequence[int]) -> Enhancer:
        """The same network with other settings; it shares the weights and needs no further memory.

        Args:
            strength: see `Enhancer`.
            exposure: see `Enhancer`.
            **controls: see `Enhancer`; all others have their defaults.

        Raises:
            UserError: the network has no such control, or a value is out of range.
        """
        other = copy.copy(self)
        other._set(controls, strength, exposure)
        return other

    def __call__(self, image: Image, decision: Tensor | None = None) -> Image:
        """Enhance one image or a batch.

        Args:
            image: array (H, W, 3), RGB; or tensor (3, H, W) or (B, 3, H, W). Integers use the whole range of their
                type (uint8, uint16), floats are in [0, 1].
            decision: global decision of the network (see `decide`) to use instead of that for this image.

        Returns:
            The same kind, type, size and device; integers are rounded, all values are clipped to their range.

        Raises:
            UserError: it is not an RGB image, or values are out of range.
        """
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3:
                raise UserError(f"an image is an array (height, width, 3); this one has the shape {image.shape}")
            if image.dtype.type not in _ARRAY_TYPES:
                raise UserError(f"an image is uint8, uint16 or float; this one is {image.dtype}")
            tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return np.ascontiguousarray(self._run(tensor[None], decision)[0].permute(1, 2, 0).numpy())
        if not isinstance(image, Tensor) or image.ndim not in (3, 4) or image.shape[-3] != 3:
            what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise UserError(f"an image is an array (H, W, 3), a tensor (3, H, W) or (B, 3, H, W); this is {what}")
        return self._run(image if image.ndim == 4 else image[None], decision).reshape(image.shape)

    @property
    def decides(self) -> bool:
        """Whether the network decides globally first (see `decide`)."""
        return self.halo is not None

    def decide(self, image: Tensor) -> Tensor:
        """The network's global decision for an image: a small tensor, which is averaged over time for videos.

        Args:
            image: (3, H, W) or (B, 3, H, W), see `__call__`.
        """
        network: Any = self.network
        batch = image if image.ndim == 4 else image[None]
        with torch.inference_mode():
            return network.decide(make_thumbnail(batch, white=_WHITE.get(image.dtype, 1)).to(self.device))

    def _run(self, image: Tensor, decision: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) of any type -> the same type, on the same device."""
        if image.numel() == 0:
            raise UserError(f"the image is empty (shape {tuple(image.shape)})")
        if not image.is_floating_point() and image.dtype not in _WHITE:
            raise UserError(f"an image is uint8, uint16 or float; this one is {image.dtype}")
        if image.is_floating_point():
            low, high = (value.item() for value in image.aminmax())
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails
                raise UserError(
                    f"float images must be in [0, 1]; this one has values from {low:.4g} to {high:.4g} "
                    "(divide it by 255, or give uint8)"
                )
        if self.strength == 0 and self.exposure == 0:
            return image.clone()
        allocator.suit(pixels=image.numel() // 3)
        with torch.inference_mode():
            if self.fast is not None:
                self.fast.choose(lambda x: self.network(x, **self.controls), _unit(image[:1], self.device))
            if self.halo is not None:
                return self._in_pieces(image, self.halo, decision)
            strips = self.in_memory.too_large(image.shape, self.device)
            result = None if strips else self._whole(image)
            if result is None:
                result = self._in_strips(image)
            if result is None and strips:
                result = self._whole(image)
        if result is None:
            raise UserError(
                f"{image.numel() / 3e6:.1f} megapixels do not fit into the GPU's memory with "
                f"{type(self.network).__name__}, which cannot work in pieces; use the device cpu, or the network that "
                "ships with llie"
            )
        return result

    def _whole(self, image: Tensor) -> Tensor | None:
        """The result of a network that sees the whole image at once; None if that does not fit into a GPU's memory."""
        try:
            x = _unit(image, self.device)
            with self._precision():
                output = self.network(x, **self.controls)
            return self._finished(output, x, image)
        except torch.OutOfMemoryError:
            return None

    def _in_strips(self, image: Tensor) -> Tensor | None:
        """The result of a network that must see the whole image, within the memory; None if it cannot be had so."""
        result = torch.empty_like(image)
        for source, place in zip(image.split(1), result.split(1), strict=True):

            def read(first: int, stop: int, source: Tensor = source) -> Tensor:
                return _unit(source[:, :, first:stop], self.device)

            def write(first: int, stop: int, rows: Tensor, source: Tensor = source, place: Tensor = place) -> None:
                x = _unit(source[:, :, first:stop], self.device)
                place[:, :, first:stop] = self._finished(rows, x, source)

            with contextlib.nullcontext() if self.fast is None else self.fast.in_strips():
                if not self.in_memory.in_strips(tuple(source.shape), read, write, self.controls, self.device):
                    return None
        return result

    def _in_pieces(self, image: Tensor, halo: int, decision: Tensor | None) -> Tensor:
        """The result of a network that decides on a thumbnail and then works locally: exact in pieces of any size."""
        network: Any = self.network
        decision = self.decide(image) if decision is None else decision
        height, width = image.shape[-2:]
        result = torch.empty_like(image)

        def run(pixels: int) -> None:
            for tile in split(height, width, halo, max(1, pixels // len(image))):
                (top, bottom), (left, right) = tile.outer_rows, tile.outer_columns
                x = _unit(image[..., top:bottom, left:right], self.device)
                region = x.new_tensor([[top / height, bottom / height, left / width, right / width]])
                with self._precision():
                    output = network.render(x, decision, region, **self.controls)[0]
                rows = slice(tile.rows[0] - top, tile.rows[1] - top)
                columns = slice(tile.columns[0] - left, tile.columns[1] - left)
                part = (..., slice(*tile.rows), slice(*tile.columns))
                result[part] = self._finished(output[..., rows, columns], x[..., rows, columns], image)

        budget = self.memory or memory_budget(None, self.device)
        pixels = self._tile_pixels or min(budget // BYTES_PER_PIXEL, LARGEST_TILE)
        worked = smaller_on_failure(run, pixels, lambda message: print(message, file=sys.stderr))
        self._tile_pixels = worked if worked < pixels else self._tile_pixels
        return result

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.fast is None else self.fast.precision()

    def _finished(self, output: Tensor, x: Tensor, image: Tensor) -> Tensor:
        """Apply strength and exposure to the network's output, and convert it to the type and device of `image`."""
        output = output.float()
        if not output.isfinite().all():
            raise UserError(f"{type(self.network).__name__} gave values that are not finite for this image")
        output = adjust(output.clamp(0, 1), x, self.strength, self.exposure).to(image.device)
        white = _WHITE.get(image.dtype, 1)
        return ((output * white).round_() if white > 1 else output).to(image.dtype)


def adjust(result: Tensor, x: Tensor, strength: float = 1.0, exposure: float = 0.0) -> Tensor:
    """Blend a result with its input and change its exposure, both in linear light.

    Args:
        result: (..., 3, H, W) in [0, 1], sRGB.
        x: the input, likewise.
        strength: share of the result; the rest is the input.
        exposure: in EV; v -> k v / (1 + (k - 1) v) with k = 2^exposure, which multiplies dark values by k and does not
            change white.
    """
    if strength == 1 and exposure == 0:
        return result
    light = torch.lerp(srgb_to_linear(x), srgb_to_linear(result), strength)
    if exposure:
        k = 2.0**exposure
        light = k * light / (1 + (k - 1) * light)
    return linear_to_srgb(light)


def _unit(image: Tensor, device: torch.device) -> Tensor:
    """Integers or floats as float32 in [0, 1] on the device."""
    return image.to(device).float() / _WHITE.get(image.dtype, 1)


def pick_device(device: str | torch.device | None) -> torch.device:
    """The requested device, if it exists; None: a GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise UserError(f"no device {device!r}; it is cpu, cuda, or cuda:NUMBER") from None
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise UserError(f"no GPU {device}: this machine shows {torch.cuda.device_count()}; use the device cpu")
    return picked
