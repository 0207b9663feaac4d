"""Crops with thumbnails of whole photographs, for networks that decide globally on a thumbnail and work locally."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
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
class _Record:
    """A photograph as recorded and its reference, (H, W, 3) uint8."""

    low: np.ndarray
    high: np.ndarray
    low_path: Path
    high_path: Path

    @property
    def is_real(self) -> bool:
        """Whether a camera recorded it; otherwise it was made here."""
        return self.low_path != self.high_path


@DATASET_REGISTRY.register()
class PhotographDataset(Dataset[dict[str, Any]]):
    """Real pairs, and well-lit photographs darkened by a camera model, in memory; items are crops with a thumbnail.

    Items are `{"lq": (3, H, W), "gt": same, "thumbnail": (3, 128, 128), "region": (4,), "lq_path", "gt_path"}`,
    where `region` is top, bottom, left and right of the crop in its photograph, in [0, 1]. An item depends only on
    (seed, epoch, index), in every process.
    """

    def __init__(
        self,
        dataroot_gt: Roots | None = None,
        dataroot: Roots | None = None,
        gt_size: int = 128,
        variants: int = 8,
        pair_copies: int = 4,
        pair_blends: int = 1,
        long_side: tuple[int, int] = (400, 800),
        exposure: tuple[float, float] = Camera.exposure,
        untouched: float = Camera.untouched,
        uneven: float = Camera.uneven,
        cast: float = Camera.cast,
        shot: tuple[float, float] = Camera.shot,
        read: tuple[float, float] = Camera.read,
        jpeg: float = Camera.jpeg,
        jitter: float = 0.8,
        phase: str = "train",
        seed: int = 0,
    ):
        """Find the images; they are read and darkened when training starts (`load`).

        Args:
            dataroot_gt: folder(s) of well-lit photographs, each darkened in `variants` ways.
            dataroot: folder(s) of real pairs with a known layout (`our485/{low,high}` and similar); the references
                are darkened, too, in `variants // 4` ways.
            gt_size: side of the crops.
            variants: number of records of each photograph, each of another part at another scale.
            pair_copies: number of times that each real pair is used.
            pair_blends: number of further records of a real pair, with part of the reference's light added.
            long_side: range of the long side, in pixels, that photographs are reduced to.
            exposure: see `lowlight.Camera`.
            untouched: see `lowlight.Camera`.
            uneven: see `lowlight.Camera`.
            cast: see `lowlight.Camera`.
            shot: see `lowlight.Camera`.
            read: see `lowlight.Camera`.
            jpeg: see `lowlight.Camera`.
            jitter: real records are multiplied by 2^-jitter to 2^jitter (encoded values), with slightly different
                factors for the channels.
            phase: only "train" is supported.
            seed: seed of the run.
        """
        if dataroot_gt is None and dataroot is None:
            raise UserError("set dataroot_gt to folders of well-lit photographs, dataroot to folders of pairs, or both")
        check_range("long_side", long_side, least=gt_size)
        for name, value in (
            ("variants", variants),
            ("pair_copies", pair_copies),
            ("pair_blends", pair_blends),
            ("jitter", jitter),
        ):
            check_range(name, (value, value))
        if gt_size < 1:
            raise UserError(f"gt_size: {gt_size} is not the size of a crop; give pixels")
        self.photographs = [path for root in _as_list(dataroot_gt) for path in list_images(Path(root))]
        sides = [find_sides(root, phase) for root in _as_list(dataroot)]
        self.pairs = pair_folders([low for low, _ in sides], [high for _, high in sides]) if sides else []
        self.crop, self.long_side, self.seed = gt_size, long_side, seed
        self.jitter = jitter
        self.variants, self.pair_copies, self.pair_blends = variants, pair_copies, pair_blends
        self.camera = Camera(exposure, untouched, uneven, cast, shot=shot, read=read, jpeg=jpeg)
        self._records: list[_Record] | None = None

    def __len__(self) -> int:
        per_pair = self.pair_copies + self.pair_blends + self.variants // 4
        return len(self.photographs) * self.variants + len(self.pairs) * per_pair

    def load(self) -> None:
        """Read and darken all photographs now, so that worker processes forked later share their memory."""
        if self._records is not None:
            return
        sources: list[Any] = [*self.photographs, *self.pairs]
        with ThreadPoolExecutor(1) as pool:  # reads the next one while one is darkened
            self._records = [record for records in pool.map(self._record, range(len(sources))) for record in records]

    def _record(self, source: int) -> list[_Record]:
        """All records of a photograph, or of a pair."""
        random = generator(self.seed, 0, source)
        if source < len(self.photographs):
            path = self.photographs[source]
            image = read_image(path)
            parts = [self._part(image, random) for _ in range(self.variants)]
            return [_Record(self.camera(part, random), part, path, path) for part in parts]
        pair = self.pairs[source - len(self.photographs)]
        assert pair.lq is not None and pair.gt is not None
        low, high = read_image(pair.lq), read_image(pair.gt)
        if low.shape != high.shape:
            raise UserError(f"{pair.lq} and {pair.gt} differ in size: {low.shape[:2]} and {high.shape[:2]}")
        blends = [_Record(_blend(low, high, random), high, pair.lq, pair.gt) for _ in range(self.pair_blends)]
        dark = [_Record(self.camera(high, random), high, pair.gt, pair.gt) for _ in range(self.variants // 4)]
        return [_Record(low, high, pair.lq, pair.gt)] * self.pair_copies + blends + dark

    def _part(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A part of a photograph, at least half of each side, reduced to a size within `long_side`."""
        part = image[self._window(image, random)]
        rows, columns = part.shape[:2]
        scale = random.uniform(*self.long_side) / max(rows, columns)
        scale = max(min(scale, 1), self.crop / min(rows, columns))
        size = max(self.crop, round(columns * scale)), max(self.crop, round(rows * scale))
        return np.rint(to_float(cv2.resize(part, size, interpolation=cv2.INTER_AREA)) * 255).astype(np.uint8)

    def _window(self, image: np.ndarray, random: np.random.Generator) -> tuple[slice, slice]:
        """A random window of at least half of each side, and if possible at least as large as the crop."""
        sides = [min(side, max(self.crop, round(side * random.uniform(0.5, 1)))) for side in image.shape[:2]]
        starts = [int(random.integers(side - part + 1)) for side, part in zip(image.shape[:2], sides, strict=True)]
        return slice(starts[0], starts[0] + sides[0]), slice(starts[1], starts[1] + sides[1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        self.load()
        assert self._records is not None
        epoch, index = key if isinstance(key, tuple) else (0, key)
        record = self._records[range(len(self))[index]]
        random = generator(self.seed, epoch, index)
        images = [record.low, record.high]
        if random.random() < 0.7:  # a part of it, which in the thumbnail looks like another photograph
            window = self._window(record.low, random)
            images = [image[window] for image in images]
        if random.random() < 0.5:
            images = [image[:, ::-1] for image in images]
        if random.random() < 0.2:
            images = [image[::-1] for image in images]
        if random.random() < 0.2:
            images = [image.transpose(1, 0, 2) for image in images]
        height, width = images[0].shape[:2]
        if min(height, width) < self.crop:
            raise UserError(f"{record.low_path} is {width}x{height}, smaller than gt_size {self.crop}")
        thumbnail = make_thumbnail(
            torch.from_numpy(np.ascontiguousarray(images[0].transpose(2, 0, 1)))[None], white=255
        )
        top, left = int(random.integers(height - self.crop + 1)), int(random.integers(width - self.crop + 1))
        bottom, right = top + self.crop, left + self.crop
        low, high = (to_tensor(image[top:bottom, left:right]) for image in images)
        if record.is_real:
            low, thumbnail = self._jitter(low, thumbnail, random)
        region = torch.tensor([top / height, bottom / height, left / width, right / width])
        paths = {"lq_path": str(record.low_path), "gt_path": str(record.high_path)}
        return {"lq": low, "gt": high, "thumbnail": thumbnail[0], "region": region, **paths}

    def _jitter(self, low: Tensor, thumbnail: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Vary exposure and white balance of a real record, because there are few scenes at few exposures.

        The same factor on encoded values applies to crop and thumbnail; images that it would clip do not change.
        """
        factors = np.exp2(random.uniform(-self.jitter, self.jitter) + random.normal(0, self.jitter / 8, 3))
        factor = torch.from_numpy(factors.astype(np.float32))[:, None, None]
        if (thumbnail * factor).amax() > 0.8:
            return low, thumbnail
        return (low * factor * 255).round_().clamp_(0, 255) / 255, thumbnail * factor


def _blend(low: np.ndarray, high: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add 1/100 to 1/3 of the reference's light to the dark image: another exposure with real noise."""
    share = np.float32(np.exp(random.uniform(np.log(0.01), np.log(0.33))))
    light = (1 - share) * srgb_to_linear(to_float(low)) + share * srgb_to_linear(to_float(high))
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)


def _as_list(roots: Roots | None) -> list[str]:
    return [] if roots is None else [roots] if isinstance(roots, str) else list(roots)
