"""Small generated images and folders of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from llie.data.readers import write_image


def picture(seed: int, height: int = 24, width: int = 32, dtype=np.uint8) -> np.ndarray:
    """A smooth colourful image, different for each seed."""
    small = np.random.default_rng(seed).random((6, 8, 3), dtype=np.float32)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


def put(root: Path, *names: str) -> None:
    """Write a picture under each name; the same last number in a name gives the same picture, darker in low folders."""
    for name in names:
        path = root / name
        seed = int("".join(c for c in path.stem if c.isdigit())[-4:] or 0)
        image = picture(seed)
        if path.suffix == ".npy":
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, image[..., ::-1])
        else:
            write_image(path, image)


@pytest.fixture(name="picture")
def _picture():
    return picture


@pytest.fixture(name="put")
def _put():
    return put
