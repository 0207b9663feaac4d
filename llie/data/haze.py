"""Synthetic haze: a clear photograph as a camera would record it through scattering air.

    t = exp(-beta d)                 transmission of the air in front of each pixel, d its depth
    input = round8(J t + A (1 - t))  J the clear photograph, A the airlight

The unit of depth is the depth of the farthest point of the image, so beta is the optical thickness of the air up to
there, for any unit of the depth map. As in RESIDE (Li et al., IEEE TIP 2019), whose ranges are the defaults, encoded
values are mixed. Model: Narasimhan and Nayar, "Vision and the atmosphere", IJCV 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from llie.data.packing import read_any
from llie.data.readers import to_float
from llie.data.transforms import check_range
from llie.errors import UserError


@dataclass(frozen=True)
class Haze:
    """Ranges of the random haze of each image.

    Attributes:
        beta: scattering coefficient per depth of the farthest point, uniform; 0 is clear air.
        airlight: brightness of infinitely thick haze, uniform.
        tint: each channel of the airlight differs by a factor of at most 1 +- this, uniform.
    """

    beta: tuple[float, float] = (0.6, 1.8)
    airlight: tuple[float, float] = (0.7, 1.0)
    tint: float = 0.03

    def __post_init__(self) -> None:
        check_range("beta", self.beta)
        check_range("airlight", self.airlight, most=1)
        check_range("tint", (self.tint, self.tint), most=1)

    def __call__(self, image: np.ndarray, depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Add haze to an RGB image (H, W, 3) of any bit depth; `depth` (H, W) is in [0, 1].

        Returns uint8 of the same size; the same random stream gives the same result.
        """
        beta = random.uniform(*self.beta)
        tint = 1 + self.tint * random.uniform(-1, 1, size=3).astype(np.float32)
        airlight = np.float32(random.uniform(*self.airlight)) * tint
        transmission = np.exp(-np.float32(beta) * depth)[..., None]
        hazy = to_float(image) * transmission + airlight * (1 - transmission)
        return np.rint(hazy.clip(0, 1) * 255).astype(np.uint8)


def read_depth(path: str | Path) -> np.ndarray:
    """Read a depth map (H, W): the first channel of an image of 8 or 16 bits, or `.npy` of shape (H, W).

    Returns:
        float32 in (0, 1], 1 at the farthest point; for pixels without depth see `normalise_depth`.

    Raises:
        UserError: the file is missing or damaged, has another shape, or contains no depth.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        try:
            depth = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read the depth map {path}: {error}") from error
        if depth.ndim != 2 or depth.dtype.kind not in "uif":
            raise UserError(
                f"{path} is not a depth map: it contains {depth.dtype} of shape {depth.shape}, not numbers (H, W)"
            )
    else:
        depth = read_any(path)[..., 0]
    try:
        return normalise_depth(depth)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def normalise_depth(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) in any unit as float32 in (0, 1], 1 at the farthest point.

    Pixels without depth (0 or less, infinite or NaN, as from sensors and stereo matching) get that of the nearest pixel
    with depth.

    Raises:
        UserError: no pixel has depth.
    """
    depth = depth.astype(np.float32)
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise UserError("no pixel of the depth map has a depth above 0")
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    depth = depth[rows, columns]
    return depth / depth.max()


def depth_from_disparity(disparity: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Depth of a rectified stereo view, up to a factor: `1 / (disparity + offset)`.

    Args:
        disparity: (H, W) in pixels; values that are not finite have no depth.
        offset: horizontal distance in pixels between the principal points of the two cameras.
    """
    return np.where(np.isfinite(disparity), 1 / (disparity + offset), np.nan).astype(np.float32)


def ramp_depth(height: int, width: int, angle: float = 0.0, near: float = 0.3) -> np.ndarray:
    """A substitute for missing depth maps: a plane that tilts away from the viewer.

    Args:
        height: height of the map.
        width: width of the map.
        angle: direction of growing depth, in radians clockwise from upwards.
        near: depth of the nearest corner; that of the farthest is 1.

    Returns:
        (height, width) float32 in [near, 1].
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    plane = x * np.sin(angle) - y * np.cos(angle)
    plane = (plane - plane.min()) / max(float(np.ptp(plane)), 1e-6)
    return (near + (1 - near) * plane).astype(np.float32)
