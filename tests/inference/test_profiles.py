"""Colours of other spaces, against LittleCMS."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from llie.inference.profiles import SRGB, ColourSpace
from tests.data import icc

CURVES = {
    "gamma": icc.gamma(563 / 256),
    "linear": icc.gamma(1),
    "sRGB": icc.SRGB_CURVE,
    "table": icc.table(np.linspace(0, 1, 1024) ** 1.8),
    "identity": icc.table(np.zeros(0)),
    "power": icc.parametric(0, 1.8),
    "power with toe": icc.parametric(1, 2.2, 0.9, 0.1),
    "raised power": icc.parametric(2, 2.2, 0.88, 0.1, 0.01),
    "both": icc.parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0),
}


def colours() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    image[:20] //= 8  # many dark ones
    return image


def littlecms(image: np.ndarray, profile: bytes, mode: str = "RGB") -> np.ndarray:
    source = Image.fromarray(image if mode == "RGB" else image[..., 0])
    srgb = ImageCms.createProfile("sRGB")
    colorimetric = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return np.array(ImageCms.profileToProfile(source, io.BytesIO(profile), srgb, colorimetric, outputMode="RGB"))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("primaries", icc.PRIMARIES)
def test_to_srgb_is_what_littlecms_says(primaries, curve):
    profile = icc.rgb_profile(primaries, CURVES[curve])
    space = ColourSpace(profile)
    assert not space.is_srgb
    image = colours()
    found = space.to_srgb(image)
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found / 257, littlecms(image, profile), atol=1)
    deep = space.to_srgb(image.astype(np.uint16) * 257)
    np.testing.assert_array_equal(deep, found)
    floating = space.to_srgb(image.astype(np.float32) / 255)
    assert floating.dtype == np.float32
    np.testing.assert_allclose(floating, found / 65535, atol=3e-4)


@pytest.mark.parametrize("curve", ["gamma", "linear", "sRGB", "table", "both"])
@pytest.mark.parametrize("primaries", icc.PRIMARIES)
def test_the_inverse_returns_the_input(primaries, curve):
    space = ColourSpace(icc.rgb_profile(primaries, CURVES[curve]))
    image = colours()
    srgb = space.to_srgb(image)
    inside = ((srgb > 0) & (srgb < 65535)).all(-1)  # others were clipped
    assert inside.mean() > 0.2
    back = space.from_srgb(srgb)
    np.testing.assert_array_equal(np.rint(back / 257)[inside], image[inside])
    floating = space.from_srgb(space.to_srgb(image.astype(np.float32) / 255))
    np.testing.assert_allclose(floating[inside], image[inside] / 255, atol=2e-3)


def test_grey_profiles():
    image = np.repeat(colours()[..., :1], 3, axis=2)
    profile = icc.grey_profile(icc.gamma(1.8))
    found = ColourSpace(profile).to_srgb(image)
    np.testing.assert_allclose(found / 257, littlecms(image, profile, "L"), atol=1.6)  # coarse in the dark
    light = (image / 255) ** (round(1.8 * 256) / 256)
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found / 65535, expected, atol=3e-5)


def test_srgb_is_recognised_however_it_is_written():
    assert ColourSpace(SRGB).is_srgb
    assert not ColourSpace(icc.grey_profile(icc.SRGB_CURVE)).is_srgb


def test_profiles_with_tables_go_through_littlecms():
    """A Lab profile with a table would be large; a profile that claims to have tables is enough for this."""
    profile = icc.rgb_profile("Adobe RGB", icc.gamma(2.2))
    space = ColourSpace(profile)
    space._curves = None
    image = colours()
    np.testing.assert_allclose(space.to_srgb(image) / 257, littlecms(image, profile), atol=2)
    srgb = space.to_srgb(image)
    inside = ((srgb > 0) & (srgb < 65535)).all(-1)
    assert np.abs(space.from_srgb(srgb) / 257.0 - image)[inside].mean() < 1


@pytest.mark.parametrize("profile", [b"", b"nonsense" * 40, SRGB[:300], SRGB[:16] + b"CMYK" + SRGB[20:]])
def test_damaged_and_unfitting_profiles(profile):
    with pytest.raises(ValueError):
        ColourSpace(profile)


def test_profiles_changed_at_random_raise_value_errors_only():
    random = np.random.default_rng(1)
    profile = icc.rgb_profile("Display P3", icc.SRGB_CURVE)
    for _ in range(300):
        broken = bytearray(profile)
        for at in random.integers(0, len(broken), 4):
            broken[at] = random.integers(256)
        try:
            space = ColourSpace(bytes(broken[: random.integers(100, len(broken) + 1)]))
            space.to_srgb(np.zeros((2, 2, 3), np.uint8))
        except ValueError:
            pass
