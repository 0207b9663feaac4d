"""The base class of data sets of image pairs: read, cache, check, augment. Layouts are in `datasets.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from torch.utils.data import Dataset

from llie.data.cache import ImageCache
from llie.data.packing import read_any
from llie.data.pairing import Pair
from llie.data.readers import to_tensor
from llie.data.transforms import Augmentation, generator
from llie.errors import UserError

Item = dict[str, Any]


class PairDataset(Dataset[Item]):
    """Items `{"lq": (3, H, W) float32 in [0, 1], "gt": same, "lq_path": str, "gt_path": str}`.

    `dataset[index]` is the item of epoch 0, `dataset[epoch, index]` that of any epoch: a pure function of
    (seed, epoch, index), in every process. Items without reference lack `gt` and `gt_path`.

    Attributes:
        pairs: the paths of each item.
        augment: augmentation of a pair in training; None in evaluation.
        seed: the run's seed; the training loader sets it.
        has_reference: whether items have a `gt`.
    """

    has_reference = True

    def __init__(
        self,
        pairs: list[Pair],
        augment: Augmentation | None = None,
        npy_size: tuple[int, int] | None = None,
        gt_border: int = 0,
        crop_below: int = 0,
        cache: Literal["none", "ram"] = "none",
        seed: int = 0,
    ):
        """Make a data set of pairs of paths.

        `npy_size` is the (width, height) that `.npy` frames are resized to when read; `gt_border` pixels are cut off
        each side of a reference; with `crop_below` n, the first floor((side - 1) / n) n pixels of each side remain.
        """
        if gt_border < 0:
            raise UserError(f"gt_border: {gt_border} is not the width of a border; give pixels, or 0 for none")
        if crop_below < 0:
            raise UserError(f"crop_below: {crop_below} cannot be a multiple to crop to; give pixels, or 0 for none")
        self.pairs = pairs
        self.augment = augment
        self.npy_size = npy_size
        if npy_size is not None and min(npy_size) < 1:
            raise UserError(
                f"train_size: {list(npy_size)} is not a width and height; give pixels, for instance [960, 512]"
            )
        self.gt_border = gt_border
        self.crop_below = crop_below
        self.seed = seed
        self._cache = ImageCache() if cache == "ram" else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        index = range(len(self))[index]
        pair = self.pairs[index]
        images = [self.read(path) for path in pair if path is not None]
        if len(images) == 2 and self.gt_border:
            inner = slice(self.gt_border, -self.gt_border)
            images[1] = images[1][inner, inner]
        if len(images) == 2 and images[0].shape != images[1].shape:
            less = f" without its border (gt_border: {self.gt_border})" if self.gt_border else ""
            raise UserError(f"{describe_size(pair.lq, images[0])}, but {describe_size(pair.gt, images[1])}{less}")
        if self.crop_below:
            height, width = ((side - 1) // self.crop_below * self.crop_below for side in images[0].shape[:2])
            if not height or not width:
                raise UserError(
                    f"{describe_size(pair.lq, images[0])}; crop_below: {self.crop_below} leaves nothing of it"
                )
            images = [image[:height, :width] for image in images]
        random = generator(self.seed, epoch, index)
        if self.augment is not None:
            images = self.augment(images, random)
        images = self.degrade(images, random)
        item = {name: to_tensor(image) for name, image in zip(("lq", "gt"), images, strict=False)}
        return item | {f"{name}_path": str(path) for name, path in zip(("lq", "gt"), pair, strict=True) if path}

    def degrade(self, images: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
        """Change [input, reference] after augmentation; synthetic data sets make the input here."""
        return images

    def read(self, path: Path) -> np.ndarray:
        """Read one whole image (H, W, 3), possibly from the cache; cached images are read-only."""
        return self._read(path) if self._cache is None else self._cache.get(path, self._read)

    def load(self) -> None:
        """Fill the cache now, so that worker processes share its memory."""
        if self._cache is not None:
            self._cache.fill({path for pair in self.pairs for path in pair if path is not None}, self._read)

    def _read(self, path: Path) -> np.ndarray:
        image = read_any(path)
        if self.npy_size is not None and path.suffix == ".npy":
            # On the stored 8-bit values, as in all published loaders of these sets.
            image = cv2.resize(image, tuple(self.npy_size), interpolation=cv2.INTER_LINEAR)
        return image


def describe_size(path: Path | None, image: np.ndarray) -> str:
    """Path and size of an image, for error messages about pairs of different size."""
    return f"{path} is {image.shape[1]}x{image.shape[0]}"
