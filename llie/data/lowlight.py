"""Synthetic low light: a well-lit photograph as a camera would record it with far too little light.

    linear = sRGB decoding of the photograph
    dark   = linear * exposure * white balance gains
    noisy  = dark + N(0, shot * dark + read^2)          (Poisson-Gaussian noise, in linear light)
    input  = round8(sRGB encoding(noisy) ^ gamma)

With the defaults, inputs are as dark as those of LOL (mean level about 10 to 25 of 255) and similarly noisy.
Noise model: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", TIP 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from llie.data.readers import to_float
from llie.data.transforms import check_range


@dataclass(frozen=True)
class LowLight:
    """Ranges of the random degradation of each image.

    Attributes:
        exposure: factor on linear light, log-uniform.
        gamma: exponent after encoding, uniform.
        white_balance: red and blue gains differ from green by a factor of at most 1 +- this, uniform.
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
        """Darken an RGB image (H, W, 3) of any depth; returns uint8 of the same size, reproducibly for a stream."""
        exposure = np.exp(random.uniform(*np.log(self.exposure)))
        gains = np.array(
            [1 + random.uniform(-1, 1) * self.white_balance, 1, 1 + random.uniform(-1, 1) * self.white_balance]
        )
        gamma = random.uniform(*self.gamma)
        dark = srgb_to_linear(to_float(image)) * (exposure * gains).astype(np.float32)
        noise = random.standard_normal(dark.shape, dtype=np.float32) * np.sqrt(self.shot * dark + self.read**2)
        encoded = linear_to_srgb(np.clip(dark + noise, 0, 1)) ** np.float32(gamma)
        return np.rint(encoded * 255).astype(np.uint8)


@dataclass(frozen=True)
class Camera:
    """Photographs from daylight to night, as cameras store them, for a network that must work in all light.

        stops  = global exposure + lamps, back light or vignette           (per pixel, in EV)
        linear = sRGB decoding of the photograph * 2^stops * white balance gains
        noisy  = linear + N(0, shot * linear + read^2), often smoothed as demosaicing and noise reduction do
        input  = JPEG(round8(sRGB encoding(noisy) ^ gamma))

    Attributes:
        exposure: smallest and largest global exposure in EV, uniform.
        untouched: share of photographs that are returned unchanged, which a network must not change.
        uneven: share of the others with light that differs over the image.
        cast: standard deviation of the red and blue gains in EV.
        gamma: exponent after encoding, uniform.
        shot: variance of the noise per unit of linear light, log-uniform.
        read: standard deviation of the noise in the dark, log-uniform.
        jpeg: share that is stored as JPEG, with a quality from 55 to 97; the others are only rounded to 8 bits.
    """

    exposure: tuple[float, float] = (-6.0, 0.0)
    untouched: float = 0.12
    uneven: float = 0.5
    cast: float = 0.15
    gamma: tuple[float, float] = (0.92, 1.08)
    shot: tuple[float, float] = (3e-6, 4e-4)
    read: tuple[float, float] = (5e-5, 2e-3)
    jpeg: float = 0.6

    def __post_init__(self) -> None:
        check_range("exposure", self.exposure, least=-12, most=2)
        check_range("gamma", self.gamma, least=1e-3)
        for name in ("shot", "read"):
            check_range(name, getattr(self, name), least=1e-9)
        for name in ("untouched", "uneven", "jpeg"):
            check_range(name, (getattr(self, name),) * 2, most=1)
        check_range("cast", (self.cast, self.cast))

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Record an RGB image (H, W, 3) of any depth; returns uint8 of the same size, reproducibly for a stream."""
        if random.random() < self.untouched:
            return np.rint(to_float(image) * 255).astype(np.uint8)
        light = srgb_to_linear(to_float(image))
        light *= np.exp2(self.stops(light, random)[..., None])
        light *= np.exp2(random.normal(0, self.cast, 3) * (1, 0, 1)).astype(np.float32)
        shot, read = (float(np.exp(random.uniform(*np.log(ends)))) for ends in (self.shot, self.read))
        noise = random.standard_normal(light.shape, dtype=np.float32)
        if random.random() < 0.5:
            noise = cv2.GaussianBlur(noise, (0, 0), random.uniform(0.4, 0.8))  # type: ignore[assignment]
        light += noise * np.sqrt(np.float32(shot) * light + np.float32(read**2))
        encoded = linear_to_srgb(np.clip(light, 0, 1)) ** np.float32(random.uniform(*self.gamma))
        recorded = np.rint(encoded * 255).astype(np.uint8)
        if random.random() < self.jpeg:
            quality = int(random.integers(55, 98))
            _, data = cv2.imencode(".jpg", recorded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            recorded = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        return np.ascontiguousarray(recorded)

    def stops(self, light: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Exposure of every pixel in EV, (H, W), for an image in linear light."""
        height, width = light.shape[:2]
        exposure = random.uniform(*self.exposure)
        stops = np.full((height, width), exposure, np.float32)
        if random.random() >= self.uneven:
            return stops
        kind, kept = random.integers(4), random.uniform(0.2, 0.8)
        if kind <= 1:  # back light, the most frequent: bright areas (sky, windows) keep their light
            kept = random.uniform(0.3, 1.0)
            brightness = cv2.GaussianBlur(light.max(2), (0, 0), 0.01 * max(height, width))
            lit = np.clip((brightness - 0.35) / 0.3, 0, 1)
        elif kind == 2:  # lamps and shade: a smooth random field
            field = random.standard_normal((random.integers(2, 5), random.integers(2, 5)), dtype=np.float32)
            lit = np.clip(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) + 0.3, 0, 1)
        else:  # a vignette, or a torch: light falls off around a centre
            y = np.linspace(0, 1, height, dtype=np.float32)[:, None] - random.uniform(0.2, 0.8)
            x = np.linspace(0, 1, width, dtype=np.float32) - random.uniform(0.2, 0.8)
            lit = np.exp(-(y**2 + x**2) / random.uniform(0.1, 0.6))
        return stops * (1 - np.float32(kept) * lit).astype(np.float32)


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Linear light from sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(image: np.ndarray) -> np.ndarray:
    """SRGB values from linear light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image ** (1 / 2.4) - 0.055).astype(np.float32)
