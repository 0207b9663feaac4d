"""Data sets of image folders, by their names in option files; scenes of frames are in `scenes.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from llie.data.haze import Haze, read_depth
from llie.data.lowlight import LowLight
from llie.data.packing import check_backend
from llie.data.pairing import (
    Pair,
    Roots,
    as_list,
    find_sides,
    list_images,
    pair_folders,
    pattern_key,
    read_meta_info,
    template_key,
)
from llie.data.pairs import PairDataset, describe_size
from llie.data.transforms import Augmentation, check_size, resize_lanczos
from llie.errors import UserError
from llie.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class PairedImageDataset(PairDataset):
    """Two folders of images, or two lists of folders, paired by name (LOLv1, LOLv2, RESIDE, Rain100H, your own ...).

    Subfolders are searched; endings may differ; a leading `low`, `normal`, `high`, `rain` or `norain` is ignored.
    """

    def __init__(
        self,
        dataroot_lq: str | list[str] | None = None,
        dataroot_gt: str | list[str] | None = None,
        dataroot: str | list[str] | None = None,
        train_size: tuple[int, int] | None = None,
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        geometric_augs: bool = False,
        filename_tmpl: str = "{}",
        key_pattern: str | None = None,
        meta_info_file: str | None = None,
        gt_border: int = 0,
        crop_below: int = 0,
        io_backend: dict[str, Any] | None = None,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Find and pair the images.

        Args:
            dataroot_lq: folder(s) of inputs, or LMDB(s).
            dataroot_gt: folder(s) of references, or LMDB(s).
            dataroot: instead of both: folder(s) with a known layout (`our485/{low,high}` and similar).
            train_size: width and height that images are resized to in training, before anything else.
            gt_size: side of the random crop in training; null: whole images. Smaller images are enlarged.
            use_hflip: flip left to right at random.
            use_vflip: flip upside down at random.
            use_rot: flip upside down and transpose at random (BasicSR's meaning).
            geometric_augs: all three flips (the key of the Retinexformer family).
            filename_tmpl: template for the name of an input, with `{}` for the name of its reference.
            key_pattern: regular expression whose first group is the common part of the names of a pair; several inputs
                may then have the same reference.
            meta_info_file: text file with the names of the references to use, one per line (BasicSR's).
            gt_border: pixels to cut off each side of the references, if these show more than the inputs (SOTS: 10).
            crop_below: in evaluation, crop height and width, at their end, to the largest multiple of this that is
                less than them (8: the protocol of DRBN's second stage).
            io_backend: `{type: disk}` or `{type: lmdb}`; a folder `*.lmdb` is recognised without it.
            cache: "ram" keeps decoded images in memory, once for all workers.
            phase: "train" uses the training split of `dataroot`, with augmentation.
            seed: seed of the augmentation.
        """
        low, high = _sides(dataroot_lq, dataroot_gt, dataroot, phase)
        check_backend(io_backend, [*low, *high])
        only = None if meta_info_file is None else read_meta_info(meta_info_file)
        if only is not None and len(high) > 1:
            raise UserError(f"meta_info_file needs a single dataroot_gt, not {len(high)}")
        if key_pattern is None:
            pairs = pair_folders(low, high, template_key(filename_tmpl), only=only)
        else:
            key = pattern_key(key_pattern)
            pairs = pair_folders(low, high, key, key, shared=True, only=only)
        augment = Augmentation(
            crop=gt_size,
            hflip=use_hflip or geometric_augs,
            vflip=use_vflip or use_rot or geometric_augs,
            transpose=use_rot or geometric_augs,
            size=train_size,
        )
        trains = phase == "train"
        super().__init__(
            pairs,
            augment if trains else None,
            gt_border=gt_border,
            crop_below=0 if trains else crop_below,
            cache=cache,
            seed=seed,
        )


@DATASET_REGISTRY.register()
class LOLBlurDataset(PairDataset):
    """LOL-Blur: `{train,test}/{low_blur,...,high_sharp_scaled}/CLIP/FRAME.png`, frame by frame.

    The other arguments are those of `PairedImageDataset`.

    Args:
        dataroot: folder that contains `train` and `test`.
        input: low_blur, low_blur_noise or low_sharp.
        target: high_sharp_scaled or high_sharp_original.
    """

    def __init__(
        self,
        dataroot: str,
        input: str = "low_blur",
        target: str = "high_sharp_scaled",
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Pair two versions of each frame."""
        split = Path(dataroot) / ("train" if phase == "train" else "test")
        pairs = pair_folders(split / input, split / target)
        augment = Augmentation(gt_size, use_hflip, use_vflip or use_rot, use_rot)
        super().__init__(pairs, augment if phase == "train" else None, cache=cache, seed=seed)


@DATASET_REGISTRY.register()
class SICEDataset(PairDataset):
    """SICE: numbered folders of exposures; every exposure of folder N has the reference `label/N`."""

    def __init__(
        self,
        dataroot: str | None = None,
        dataroot_lq: str | None = None,
        dataroot_gt: str | None = None,
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Pair exposures with labels.

        `dataroot` contains numbered folders and `label`, or `train`, `label` and `eval/{test,target}`. Instead of it,
        `dataroot_lq` is the folder of numbered folders, or a folder of images with the names of their references, and
        `dataroot_gt` the folder of references. The other arguments are those of `PairedImageDataset`.
        """
        if dataroot is not None:
            low, high = _sice_sides(Path(dataroot), phase)
        else:
            (low,), (high,) = _sides(dataroot_lq, dataroot_gt, None, phase)
        labels = {path.stem: path for path in list_images(high)}
        pairs, lonely = [], []
        for path in list_images(low):
            if high in path.parents:
                continue
            label = labels.get(path.stem) if path.parent == low else labels.get(path.parent.name)
            (lonely.append(path) if label is None else pairs.append(Pair(path, label)))
        if lonely:
            raise UserError(f"{len(lonely)} exposures have no label in {high}: {lonely[0]} and others")
        augment = Augmentation(gt_size, use_hflip, use_vflip or use_rot, use_rot)
        super().__init__(pairs, augment if phase == "train" else None, cache=cache, seed=seed)


@DATASET_REGISTRY.register()
class UnpairedImageDataset(PairDataset):
    """Photographs without reference (DICM, LIME, your own), for training or evaluation.

    They are cropped and flipped in training only, as `datasets.train` or a stream `datasets.train_<name>`. The other
    arguments are those of `PairedImageDataset`.

    Args:
        dataroot_lq: folder(s) of photographs, with subfolders, or LMDB(s).
        dataroot: another name for `dataroot_lq`.
        train_size: width and height that images are resized to in training when read (Lanczos, as in Zero-DCE).
        gt_size: side of the random crop in training; smaller images are refused.
    """

    has_reference = False

    def __init__(
        self,
        dataroot_lq: str | list[str] | None = None,
        dataroot: str | list[str] | None = None,
        train_size: tuple[int, int] | None = None,
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        io_backend: dict[str, Any] | None = None,
        cache: Literal["none", "ram"] = "none",
        phase: str = "test",
        seed: int = 0,
    ):
        """Find the images."""
        roots = dataroot_lq or dataroot
        if roots is None:
            raise UserError("set dataroot_lq to the folder of photographs")
        check_backend(io_backend, as_list(roots))
        check_size(train_size)
        pairs = [Pair(path) for root in as_list(roots) for path in list_images(root)]
        augment = Augmentation(gt_size, use_hflip, use_vflip or use_rot, use_rot)
        trains = phase == "train"
        super().__init__(pairs, augment if trains else None, cache=cache, seed=seed)
        self.train_size = train_size if trains else None

    def _read(self, path: Path) -> np.ndarray:
        image = super()._read(path)
        if self.train_size is not None:
            image = resize_lanczos(image, self.train_size)
        crop = self.augment.crop if self.augment else None
        if crop and min(image.shape[:2]) < crop:
            # Enlarging would blur it, so it would not be an example of a photograph.
            raise UserError(f"{describe_size(path, image)}, less than gt_size {crop}; remove it, or lower gt_size")
        return image


@DATASET_REGISTRY.register()
class SyntheticLowLightDataset(PairDataset):
    """Well-lit photographs, with new synthetic dark inputs in each epoch (see `lowlight.py`).

    The other arguments are those of `PairedImageDataset`.

    Args:
        exposure: range of the factor on linear light, drawn log-uniformly.
        gamma: range of the exponent after encoding.
        white_balance: red and blue gains differ from green by a factor of at most 1 +- this.
        shot: variance of the noise per unit of linear light (Poisson part).
        read: standard deviation of the noise in the dark (Gaussian part).
    """

    def __init__(
        self,
        dataroot_gt: str | list[str],
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        exposure: tuple[float, float] = LowLight.exposure,
        gamma: tuple[float, float] = LowLight.gamma,
        white_balance: float = LowLight.white_balance,
        shot: float = LowLight.shot,
        read: float = LowLight.read,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Find the photographs."""
        pairs = [Pair(path, path) for root in as_list(dataroot_gt) for path in list_images(root)]
        augment = Augmentation(gt_size, use_hflip, use_vflip or use_rot, use_rot)
        super().__init__(pairs, augment if phase == "train" else None, cache=cache, seed=seed)
        self.low_light = LowLight(exposure, gamma, white_balance, shot, read)

    def degrade(self, images: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
        """Darken the photograph into the input."""
        return [self.low_light(images[1], random), images[1]]


@DATASET_REGISTRY.register()
class SyntheticHazeDataset(PairDataset):
    """Clear photographs with depth maps, with new synthetic hazy inputs in each epoch (see `haze.py`).

    The `lq_path` of an item is that of the depth map. The other arguments are those of `PairedImageDataset`.

    Args:
        dataroot_depth: folder(s) of depth maps, see `haze.read_depth`.
        beta: range of the scattering coefficient, per depth of the farthest point; 0 is clear air.
        airlight: range of the brightness of infinitely thick haze.
        tint: each channel of the airlight differs by a factor of at most 1 +- this.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str],
        dataroot_depth: str | list[str],
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        beta: tuple[float, float] = Haze.beta,
        airlight: tuple[float, float] = Haze.airlight,
        tint: float = Haze.tint,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Pair photographs with depth maps by name."""
        pairs = pair_folders(dataroot_depth, dataroot_gt)
        self.depth_maps = frozenset(pair.lq for pair in pairs)
        augment = Augmentation(gt_size, use_hflip, use_vflip or use_rot, use_rot)
        super().__init__(pairs, augment if phase == "train" else None, cache=cache, seed=seed)
        self.haze = Haze(beta, airlight, tint)

    def _read(self, path: Path) -> np.ndarray:
        # Three equal channels, so that augmentation treats depth like an image.
        return np.repeat(read_depth(path)[..., None], 3, axis=2) if path in self.depth_maps else super()._read(path)

    def degrade(self, images: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
        """Replace the depth by the hazy photograph."""
        depth, clear = images
        return [self.haze(clear, depth[..., 0], random), clear]


def _sides(low: Roots | None, high: Roots | None, dataroot: Roots | None, phase: str) -> tuple[list[Path], list[Path]]:
    """The folders of inputs and references, from `dataroot_lq` and `dataroot_gt` or from `dataroot`."""
    if dataroot is not None and low is None and high is None:
        found = [find_sides(root, phase) for root in as_list(dataroot)]
        return [low for low, _ in found], [high for _, high in found]
    if low is None or high is None or dataroot is not None:
        raise UserError("set both dataroot_lq and dataroot_gt, or only dataroot")
    return as_list(low), as_list(high)


def _sice_sides(root: Path, phase: str) -> tuple[Path, Path]:
    if phase != "train" and (root / "eval" / "target").is_dir():
        return root / "eval" / "test", root / "eval" / "target"
    label = next((path for path in sorted(root.glob("*")) if path.name.lower() == "label"), root / "label")
    return (root / "train" if (root / "train").is_dir() else root), label
