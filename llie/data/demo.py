"""The demo's data: the photographs that ship inside scikit-image, darkened, with whole photographs held out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from llie.data.lowlight import LowLight
from llie.data.readers import read_image, write_image
from llie.errors import UserError

# Both views of the stereo pair show one scene, so they stand on the same side of the split.
# The grey ones and the stained tissue teach brightness and noise; colour comes from the photographs.
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


def make(folder: str | Path = "datasets/demo") -> Path:
    """Write `FOLDER/{train,val}/{low,high}/*.png`: each photograph in several degradations, the same on every machine.

    Files that are there already are left alone, so a second call costs nothing.

    Raises:
        UserError: scikit-image or one of its photographs is missing, or the folder cannot be written.
    """
    folder = Path(folder)
    written = 0
    for split, names, variants in (("train", TRAIN, TRAIN_VARIANTS), ("val", VAL, VAL_VARIANTS)):
        for number, name in enumerate(names):
            targets = [f"{Path(name).stem}_{variant}.png" for variant in range(variants)]
            if all((folder / split / side / target).is_file() for target in targets for side in ("low", "high")):
                continue
            photograph = _photograph(name)
            for variant, target in enumerate(targets):
                random = np.random.default_rng((split == "val", number, variant))
                write_image(folder / split / "high" / target, photograph)
                write_image(folder / split / "low" / target, LowLight()(photograph, random))
                written += 1
    counts = f"{len(TRAIN) * TRAIN_VARIANTS} training and {len(VAL) * VAL_VARIANTS} held-out pairs"
    print(f"{folder}: {counts}" + ("" if written else " (already there)"))
    return folder


def _photograph(name: str) -> np.ndarray:
    """One of scikit-image's photographs, with a long side of at most `LONG_SIDE`."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("the demo's photographs come with scikit-image: pip install scikit-image")
    path = Path(package.origin).parent / "data" / name
    if not path.is_file():
        raise UserError(f"scikit-image's photograph {path} is missing; reinstall it: pip install -U scikit-image")
    image = read_image(path)
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    # Area averaging keeps fine texture from aliasing when shrinking.
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
