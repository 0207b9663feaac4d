"""Augmentation: crops and flips of a pair (NumPy, per item), mixup and random gamma (PyTorch, per batch).

No function here uses a global generator or changes its input: all random numbers come from the given generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llie.errors import UserError

Batch = dict[str, Any]


def generator(seed: int, epoch: int, index: int, *more: int) -> np.random.Generator:
    """The random stream of one item, which depends only on (seed, epoch, index), in any process and order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, index, *more))))


def check_range(option: str, values: Sequence[float], least: float = 0.0, most: float = math.inf) -> None:
    """Raise a `UserError` unless `values` are the ends, in order, of a range within [least, most]."""
    low, high = values
    if not least <= low <= high <= most:
        within = f"at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
        raise UserError(f"{option}: [{low:g}, {high:g}] is not a range of numbers {within}, the smaller one first")


def check_size(size: Sequence[int] | None) -> None:
    """Raise a `UserError` unless `size` is a width and a height, or None."""
    if size is not None and min(size) < 1:
        raise UserError(f"train_size: {list(size)} is not a width and height; give pixels, for instance [600, 400]")


def resize_lanczos(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize an image (H, W, 3) to (width, height) by Pillow's antialiased Lanczos filter; its type is kept."""
    width, height = size
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    channels = (Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[2]))
    resized = np.stack([np.asarray(c.resize((width, height), Image.Resampling.LANCZOS)) for c in channels], axis=-1)
    if np.issubdtype(image.dtype, np.integer):
        return np.rint(resized).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return resized.clip(0, 1).astype(image.dtype)


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of a training pair: resizing, a random square crop, then flips, each with probability 1/2.

    Attributes:
        crop: side of the crop; None keeps the whole image.
        hflip: flip left to right.
        vflip: flip upside down.
        transpose: swap height and width; with both flips, all eight orientations occur.
        size: (width, height) that the whole image is resized to first; None keeps its size.
    """

    crop: int | None = None
    hflip: bool = False
    vflip: bool = False
    transpose: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 0:
            raise UserError(f"gt_size: {self.crop} is not the size of a crop; give pixels, or null for whole images")
        check_size(self.size)

    def __call__(self, images: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
        """Apply the same augmentation to images (H, W, 3) of the same size; the given arrays do not change."""
        if self.size is not None:
            images = [cv2.resize(image, tuple(self.size), interpolation=cv2.INTER_LINEAR) for image in images]
        if self.crop:
            images = _enlarge(images, self.crop)
            height, width = images[0].shape[:2]
            top = int(random.integers(height - self.crop + 1))
            left = int(random.integers(width - self.crop + 1))
            images = [image[top : top + self.crop, left : left + self.crop] for image in images]
        if self.hflip and random.random() < 0.5:
            images = [image[:, ::-1] for image in images]
        if self.vflip and random.random() < 0.5:
            images = [image[::-1] for image in images]
        if self.transpose and random.random() < 0.5:
            images = [image.transpose(1, 0, 2) for image in images]
        return images


def _enlarge(images: list[np.ndarray], side: int) -> list[np.ndarray]:
    """Enlarge images smaller than the crop, keeping their aspect ratio, until the crop fits (as in HVI-SMM)."""
    height, width = images[0].shape[:2]
    if min(height, width) >= side:
        return images
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in images]


@dataclass(frozen=True)
class Mixup:
    """Blend each pair of a batch with another one: `lam * v + (1 - lam) * v[permutation]`, both input and target.

    One `lam ~ Beta(beta, beta)` and one permutation per batch, as in the Retinexformer family (used by MambaLLIE).

    Attributes:
        beta: both parameters of the Beta distribution.
        use_identity: do not change a batch with probability 1/2.
    """

    beta: float = 1.2
    use_identity: bool = False

    def __call__(self, batch: Batch, random: torch.Generator) -> Batch:
        """The blended batch; `lq` and `gt` are (B, 3, H, W)."""
        if self.use_identity and torch.rand((), generator=random) < 0.5:
            return batch
        # torch's Beta distribution has no generator argument; NumPy's has one, which ours seeds.
        lam = np.random.default_rng(int(torch.randint(2**62, (), generator=random))).beta(self.beta, self.beta)
        permutation = torch.randperm(len(batch["lq"]), generator=random)
        return batch | {key: mix(batch[key], permutation, lam) for key in ("lq", "gt") if key in batch}


def mix(images: Tensor, permutation: Tensor, lam: float) -> Tensor:
    """`lam * images + (1 - lam) * images[permutation]` along the batch dimension."""
    return lam * images + (1 - lam) * images[permutation.to(images.device)]


@dataclass(frozen=True)
class RandomGamma:
    """Raise the inputs of a batch to one random power, in steps of 0.01, but not the targets (HVI-CIDNet).

    Attributes:
        low: smallest exponent.
        high: largest exponent, included.
    """

    low: float = 0.6
    high: float = 1.2

    def __call__(self, batch: Batch, random: torch.Generator) -> Batch:
        """The batch with `lq ** gamma`; `lq` is (B, 3, H, W) in [0, 1]."""
        percent = torch.randint(round(100 * self.low), round(100 * self.high) + 1, (), generator=random)
        return batch | {"lq": batch["lq"].clamp(0, 1) ** (float(percent) / 100)}


def build_batch_transform(train_options: Mapping[str, Any]) -> Callable[[Batch, torch.Generator], Batch] | None:
    """The transform of `random_gamma` and `mixing_augs` in a training section; None if both are off."""
    transforms: list[Callable[[Batch, torch.Generator], Batch]] = []
    if train_options.get("random_gamma"):
        transforms.append(RandomGamma(*train_options["random_gamma"]))
    mixing = train_options.get("mixing_augs") or {}
    if mixing.get("mixup"):
        transforms.append(Mixup(mixing.get("mixup_beta", 1.2), mixing.get("use_identity", False)))
    if not transforms:
        return None

    def apply(batch: Batch, random: torch.Generator) -> Batch:
        for transform in transforms:
            batch = transform(batch, random)
        return batch

    return apply
