"""Data for the demos: scikit-image's photographs, darkened or hazy; whole photographs are held out for validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from llie.data.haze import Haze, depth_from_disparity, normalise_depth, ramp_depth
from llie.data.lowlight import LowLight
from llie.data.readers import read_image, write_image
from llie.errors import UserError

# Both views of the stereo pair show the same scene, so they are on the same side of the split.
# Grey images and stained tissue teach brightness and noise; the photographs teach colour.
TRAIN = (
    "astronaut.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "ihc.png",
    "camera.png",
    "coins.png",
)
VAL = ("chelsea.png", "coffee.png")
TRAIN_VARIANTS = 6
VAL_VARIANTS = 2
LONG_SIDE = 480

# The only photograph with measured depth; the disparity belongs to the left view.
STEREO, DISPARITY = "motorcycle_left.png", "motorcycle_disp.npz"
PRINCIPAL_POINTS_APART = 31.086  # pixels, from the calibration in scikit-image's documentation
# No grey images: they would teach that there is no colour behind haze.
HAZE_TRAIN = tuple(name for name in TRAIN if name not in ("camera.png", "coins.png"))
HAZE_TRAIN_VARIANTS = 2

# Makes an image from the name of a photograph and a random stream.
Maker = Callable[[str, np.random.Generator], np.ndarray]


def make(folder: str | Path = "datasets/demo") -> Path:
    """Write `FOLDER/{train,val}/{low,high}/*.png`: each photograph in several degradations, the same on every machine.

    Existing files are not changed, so a second call takes no time.

    Raises:
        UserError: scikit-image or one of its photographs is missing, or the folder cannot be written.
    """
    folder = Path(folder)
    sides: dict[str, Maker] = {"high": lambda name, random: _photograph(name), "low": darkened}
    written = _write(folder / "train", sides, TRAIN, TRAIN_VARIANTS, held_out=False)
    written += _write(folder / "val", sides, VAL, VAL_VARIANTS, held_out=True)
    counts = f"{len(TRAIN) * TRAIN_VARIANTS} training and {len(VAL) * VAL_VARIANTS} held-out pairs"
    print(f"{folder}: {counts}" + ("" if written else " (already there)"))
    return folder


def make_haze(folder: str | Path = "datasets/demo_haze") -> Path:
    """Write `FOLDER/train/{clear,depth}/*.png`, for `SyntheticHazeDataset`, and pairs `FOLDER/val/{hazy,clear}/*.png`.

    The left view of the stereo pair has measured depth; for the other photographs, a tilted plane replaces it.
    Everything else is as in `make`.
    """
    folder = Path(folder)
    clear: dict[str, Maker] = {"clear": lambda name, random: _photograph(name)}
    written = _write(folder / "train", clear | {"depth": _depth16}, HAZE_TRAIN, HAZE_TRAIN_VARIANTS, held_out=False)
    written += _write(folder / "val", clear | {"hazy": _hazy}, VAL, VAL_VARIANTS, held_out=True)
    training = f"{len(HAZE_TRAIN) * HAZE_TRAIN_VARIANTS} training photographs with depth"
    counts = f"{training} and {len(VAL) * VAL_VARIANTS} held-out pairs"
    print(f"{folder}: {counts}" + ("" if written else " (already there)"))
    return folder


def _write(folder: Path, sides: Mapping[str, Maker], names: Sequence[str], variants: int, held_out: bool) -> int:
    """Write missing files `FOLDER/SIDE/NAME_VARIANT.png`; returns their number.

    Each file has its own random stream, so a file that is made again is the same.
    """
    written = 0
    for number, name in enumerate(names):
        for variant in range(variants):
            for side, maker in sides.items():
                path = folder / side / f"{Path(name).stem}_{variant}.png"
                if not path.is_file():
                    write_image(path, maker(name, np.random.default_rng((held_out, number, variant))))
                    written += 1
    return written


def darkened(name: str, random: np.random.Generator) -> np.ndarray:
    """One of the photographs, darkened with noise: uint8."""
    return LowLight()(_photograph(name), random)


def _hazy(name: str, random: np.random.Generator) -> np.ndarray:
    return Haze()(_photograph(name), _depth(name, random), random)


def _depth16(name: str, random: np.random.Generator) -> np.ndarray:
    """The depth as a 16-bit grey image (H, W, 3)."""
    return np.repeat(np.rint(_depth(name, random) * 65535).astype(np.uint16)[..., None], 3, axis=2)


def _depth(name: str, random: np.random.Generator) -> np.ndarray:
    """Depth of a photograph, (H, W) in (0, 1]: measured if available, or else a plane with a random tilt."""
    height, width = _photograph(name).shape[:2]
    if name != STEREO:
        return ramp_depth(height, width, angle=random.uniform(-np.pi / 4, np.pi / 4))
    with np.load(_shipped(DISPARITY), allow_pickle=False) as file:
        depth = normalise_depth(depth_from_disparity(file["arr_0"], PRINCIPAL_POINTS_APART))
    return cv2.resize(depth, (width, height), interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=1)
def _photograph(name: str) -> np.ndarray:
    """One of scikit-image's photographs, reduced to a long side of at most `LONG_SIDE`."""
    image = read_image(_shipped(name))
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    # Area averaging avoids aliasing of fine texture.
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def _shipped(name: str) -> Path:
    """A file that comes with scikit-image."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("the demo's photographs come with scikit-image: pip install scikit-image")
    path = Path(package.origin).parent / "data" / name
    if not path.is_file():
        raise UserError(f"scikit-image's file {path} is missing; reinstall it: pip install -U scikit-image")
    return path
