"""Whole photographs with crops: for networks that decide from a thumbnail of everything and work on a part of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from llie.data.lowlight import Camera, linear_to_srgb, srgb_to_linear
from llie.data.pairing import find_sides, list_images, pair_folders
from llie.data.readers import read_image, to_float, to_tensor
from llie.data.transforms import check_range, generator
from llie.errors import UserError
from llie.ops.bilateral_grid import make_thumbnail
from llie.registry import DATASET_REGISTRY

Roots = str | list[str]


@dataclass(frozen=True)
class _Photograph:
    """A recorded photograph and what it should be, (H, W, 3) uint8, with the thumbnail (3, 128, 128) of the record."""

    low: np.ndarray
    high: np.ndarray
    thumbnail: torch.Tensor
    low_path: Path
    high_path: Path


@DATASET_REGISTRY.register()
class PhotographDataset(Dataset[dict[str, Any]]):
    """Real pairs and well-lit photographs that a camera model darkens, in memory; items are crops with their thumbnail.

    Items are `{"lq": (3, H, W), "gt": same, "thumbnail": (3, 128, 128), "region": (4,), "lq_path", "gt_path"}`,
    where `region` is top, bottom, left and right of the crop in its photograph, in [0, 1]. The same (seed, epoch,
    index) gives the same item in every process.
    """

    def __init__(
        self,
        dataroot_gt: Roots | None = None,
        dataroot: Roots | None = None,
        gt_size: int = 128,
        variants: int = 8,
        pair_copies: int = 3,
        pair_blends: int = 1,
        long_side: tuple[int, int] = (400, 800),
        exposure: tuple[float, float] = Camera.exposure,
        untouched: float = Camera.untouched,
        uneven: float = Camera.uneven,
        cast: float = Camera.cast,
        shot: tuple[float, float] = Camera.shot,
        read: tuple[float, float] = Camera.read,
        jpeg: float = Camera.jpeg,
        phase: str = "train",
        seed: int = 0,
    ):
        """Find the images; they are read and darkened when training starts (`load`).

        Args:
            dataroot_gt: folder(s) of well-lit photographs, each darkened in `variants` ways.
            dataroot: folder(s) of real pairs with a known layout (`our485/{low,high}` and the like); the references
                are darkened, too, in `variants // 4` ways.
            gt_size: side of the crops.
            variants: how many records are made of each photograph, each of another part at another scale.
            pair_copies: how many records are made of each real pair: the whole, then random parts of it.
            pair_blends: how many further records of a real pair have part of the reference's light mixed in.
            long_side: photographs are reduced to a long side between these numbers of pixels.
            exposure: see `lowlight.Camera`, as for all further ones.
            untouched: see there.
            uneven: see there.
            cast: see there.
            shot: see there.
            read: see there.
            jpeg: see there.
            phase: only training uses this set.
            seed: seed of the run.
        """
        if dataroot_gt is None and dataroot is None:
            raise UserError("set dataroot_gt to folders of well-lit photographs, dataroot to folders of pairs, or both")
        check_range("long_side", long_side, least=gt_size)
        for name, value in (("variants", variants), ("pair_copies", pair_copies), ("pair_blends", pair_blends)):
            check_range(name, (value, value))
        if gt_size < 1:
            raise UserError(f"gt_size: {gt_size} is no size of a crop; give pixels")
        self.photographs = [path for root in _as_list(dataroot_gt) for path in list_images(Path(root))]
        sides = [find_sides(root, phase) for root in _as_list(dataroot)]
        self.pairs = pair_folders([low for low, _ in sides], [high for _, high in sides]) if sides else []
        self.crop, self.long_side, self.seed = gt_size, long_side, seed
        self.variants, self.pair_copies, self.pair_blends = variants, pair_copies, pair_blends
        self.camera = Camera(exposure, untouched, uneven, cast, shot=shot, read=read, jpeg=jpeg)
        self._records: list[_Photograph] | None = None

    def __len__(self) -> int:
        per_pair = self.pair_copies + self.pair_blends + self.variants // 4
        return len(self.photographs) * self.variants + len(self.pairs) * per_pair

    def load(self) -> None:
        """Read and darken all photographs now; worker processes forked afterwards share the memory."""
        if self._records is not None:
            return
        sources: list[Any] = [*self.photographs, *self.pairs]
        with ThreadPoolExecutor(1) as pool:  # reading ahead of darkening
            self._records = [record for records in pool.map(self._record, range(len(sources))) for record in records]

    def _record(self, source: int) -> list[_Photograph]:
        """All records of a photograph, or of a pair."""
        random = generator(self.seed, 0, source)
        if source < len(self.photographs):
            path = self.photographs[source]
            image = read_image(path)
            parts = (self._part(image, random) for _ in range(self.variants))
            return [_photograph(self.camera(part, random), part, path, path) for part in parts]
        pair = self.pairs[source - len(self.photographs)]
        assert pair.lq is not None and pair.gt is not None
        low, high = read_image(pair.lq), read_image(pair.gt)
        if low.shape != high.shape:
            raise UserError(f"{pair.lq} and {pair.gt} differ in size: {low.shape[:2]} and {high.shape[:2]}")
        real = _photograph(low, high, pair.lq, pair.gt)
        shares = [
            _photograph(low[window], high[window], pair.lq, pair.gt)
            for window in (self._window(low, random) for _ in range(1, self.pair_copies))
        ]
        blends = [_photograph(_blend(low, high, random), high, pair.lq, pair.gt) for _ in range(self.pair_blends)]
        dark = [_photograph(self.camera(high, random), high, pair.gt, pair.gt) for _ in range(self.variants // 4)]
        return [real] * min(1, self.pair_copies) + shares + blends + dark

    def _part(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A part of a photograph, half of each side or more, reduced to a size within `long_side`."""
        part = image[self._window(image, random)]
        rows, columns = part.shape[:2]
        scale = random.uniform(*self.long_side) / max(rows, columns)
        scale = max(min(scale, 1), self.crop / min(rows, columns))
        size = max(self.crop, round(columns * scale)), max(self.crop, round(rows * scale))
        return np.rint(to_float(cv2.resize(part, size, interpolation=cv2.INTER_AREA)) * 255).astype(np.uint8)

    def _window(self, image: np.ndarray, random: np.random.Generator) -> tuple[slice, slice]:
        """Where to cut a part of at least half of each side, and at least as large as the crop if the image is."""
        sides = [min(side, max(self.crop, round(side * random.uniform(0.5, 1)))) for side in image.shape[:2]]
        starts = [int(random.integers(side - part + 1)) for side, part in zip(image.shape[:2], sides, strict=True)]
        return slice(starts[0], starts[0] + sides[0]), slice(starts[1], starts[1] + sides[1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        self.load()
        assert self._records is not None
        epoch, index = key if isinstance(key, tuple) else (0, key)
        photograph = self._records[range(len(self))[index]]
        random = generator(self.seed, epoch, index)
        images, thumbnail = [photograph.low, photograph.high], photograph.thumbnail
        if random.random() < 0.5:
            images, thumbnail = [image[:, ::-1] for image in images], thumbnail.flip(-1)
        if random.random() < 0.2:
            images, thumbnail = [image[::-1] for image in images], thumbnail.flip(-2)
        if random.random() < 0.2:
            images, thumbnail = [image.transpose(1, 0, 2) for image in images], thumbnail.mT
        height, width = images[0].shape[:2]
        if min(height, width) < self.crop:
            raise UserError(f"{photograph.low_path} is {width}x{height}, smaller than gt_size {self.crop}")
        top, left = int(random.integers(height - self.crop + 1)), int(random.integers(width - self.crop + 1))
        bottom, right = top + self.crop, left + self.crop
        low, high = (to_tensor(image[top:bottom, left:right]) for image in images)
        region = torch.tensor([top / height, bottom / height, left / width, right / width])
        paths = {"lq_path": str(photograph.low_path), "gt_path": str(photograph.high_path)}
        return {"lq": low, "gt": high, "thumbnail": thumbnail.contiguous(), "region": region, **paths}


def _photograph(low: np.ndarray, high: np.ndarray, low_path: Path, high_path: Path) -> _Photograph:
    return _Photograph(low, high, make_thumbnail(to_tensor(low)[None])[0], low_path, high_path)


def _blend(low: np.ndarray, high: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The dark image with 1/100 to 1/3 of the reference's light in it: other exposures with real noise."""
    share = np.float32(np.exp(random.uniform(np.log(0.01), np.log(0.33))))
    light = (1 - share) * srgb_to_linear(to_float(low)) + share * srgb_to_linear(to_float(high))
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)


def _as_list(roots: Roots | None) -> list[str]:
    return [] if roots is None else [roots] if isinstance(roots, str) else list(roots)
