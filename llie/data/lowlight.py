"""A synthetic low light: how a camera would have recorded a well-lit photograph with far too little light.

    linear = sRGB decoding of the photograph
    dark   = linear * exposure * white balance gains
    noisy  = dark + N(0, shot * dark + read^2)          (Poisson-Gaussian noise, in linear light)
    input  = round8(sRGB encoding(noisy) ^ gamma)

The defaults give inputs as dark as those of LOL (mean level about 10 to 25 of 255) and about as noisy.
Noise model: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", TIP 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llie.data.readers import to_float
from llie.data.transforms import check_range


@dataclass(frozen=True)
class LowLight:
    """Ranges from which each image's degradation is drawn.

    Attributes:
        exposure: factor on linear light, log-uniform.
        gamma: exponent after encoding, uniform.
        white_balance: red and blue gains are within a factor of 1 +- this of green, uniform.
        shot: variance of the noise per unit of linear light (Poisson part).
        read: standard deviation of the noise in the dark (Gaussian part).
    """

    exposure: tuple[float, float] = (0.016, 0.032)
    gamma: tuple[float, float] = (0.95, 1.05)
    white_balance: float = 0.06
    shot: float = 4e-5
    read: float = 2e-4

    def __post_init__(self) -> None:
        check_range("exposure", self.exposure, least=1e-6)
        check_range("gamma", self.gamma)
        check_range("white_balance", (self.white_balance, self.white_balance), most=1)
        for name, value in (("shot", self.shot), ("read", self.read)):
            check_range(name, (value, value))

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Darken an RGB image (H, W, 3) of any depth; returns uint8 of the same size, the same for the same stream."""
        exposure = np.exp(random.uniform(*np.log(self.exposure)))
        gains = np.array(
            [1 + random.uniform(-1, 1) * self.white_balance, 1, 1 + random.uniform(-1, 1) * self.white_balance]
        )
        gamma = random.uniform(*self.gamma)
        dark = srgb_to_linear(to_float(image)) * (exposure * gains).astype(np.float32)
        noise = random.standard_normal(dark.shape, dtype=np.float32) * np.sqrt(self.shot * dark + self.read**2)
        encoded = linear_to_srgb(np.clip(dark + noise, 0, 1)) ** np.float32(gamma)
        return np.rint(encoded * 255).astype(np.uint8)


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Linear light from sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(image: np.ndarray) -> np.ndarray:
    """SRGB values from linear light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image ** (1 / 2.4) - 0.055).astype(np.float32)
