"""Frames of a video to RGB and back, against values computed by hand from H.273's equations."""

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="needs PyAV: pip install 'llie[video]'")

import av

from llie.errors import UserError
from llie.inference.video.colour import Colour, colour_of, to_frame, to_tensor, written_colour

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
LIMITED, FULL = 1, 2


def plain(format: str, values: tuple[int, int, int], matrix: int, range: int, size=(64, 48)) -> av.VideoFrame:
    """A frame of one colour."""
    frame = av.VideoFrame(*size, format)
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    for plane, value in zip(frame.planes, values, strict=True):
        np.frombuffer(plane, kind)[:] = value
    frame.colorspace, frame.color_range = matrix, range
    return frame


def levels(frame: av.VideoFrame) -> list[float]:
    """Mean of each plane."""
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    rows = [np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
    return [float(plane.mean()) for plane in rows]


def by_hand(values: tuple[int, int, int], matrix: int, range: int, bits: int) -> np.ndarray:
    red, blue = WEIGHTS[matrix]
    y, u, v = (np.array(values, float) - np.array([0 if range == FULL else 16 << bits - 8, *[1 << bits - 1] * 2])) / (
        (1 << bits) - 1 if range == FULL else np.array([219, 224, 224]) * (1 << bits - 8)
    )
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip([r, (y - red * r - blue * b) / (1 - red - blue), b], 0, 1)


@pytest.mark.parametrize(("format", "bits"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p12le", 12)])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("range", [LIMITED, FULL])
@pytest.mark.parametrize("colour", [(90, 110, 140), (40, 128, 128), (235, 128, 128), (16, 128, 128), (150, 90, 170)])
def test_rgb_is_what_the_equations_give_and_goes_back(format, bits, matrix, range, colour):
    values = tuple(value << bits - 8 for value in colour)
    frame = plain(format, values, matrix, range)
    image = to_tensor(frame)
    assert image.shape == (3, 48, 64) and image.dtype == torch.float32
    assert np.allclose(image[:, 20, 30], by_hand(values, matrix, range, bits), atol=3e-4)
    back = to_frame(image, format, colour_of(frame))
    # swscale rounds chroma of the full range down, by half a level of 8 bits
    assert np.abs(np.array(levels(back)) - values).max() <= (0.6 if range == FULL else 0.3) * (1 << bits - 8) + 0.5 * (
        bits > 8
    )
    assert colour_of(back) == colour_of(frame)


def test_what_is_not_stated_is_taken_as_players_take_it():
    values = (90, 110, 140)
    assert np.allclose(to_tensor(plain("yuv420p", values, 2, 0))[:, 20, 30], by_hand(values, 5, LIMITED, 8), atol=3e-4)
    high = to_tensor(plain("yuv420p", values, 2, 0, size=(1280, 16)))
    assert np.allclose(high[:, 8, 30], by_hand(values, 1, LIMITED, 8), atol=3e-4)
    old = to_tensor(plain("yuvj420p", values, 6, 0))
    assert np.allclose(old[:, 20, 30], by_hand(values, 6, FULL, 8), atol=3e-4)


@pytest.mark.parametrize("format", ["gray", "rgb24", "gbrp", "bgr0", "gbrp10le", "nv12", "yuva420p"])
def test_pixel_formats_of_all_kinds_are_read(format):
    image = torch.full((3, 48, 64), 0.5)
    rgb = av.VideoFrame.from_ndarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), "rgb24")
    frame = rgb.reformat(format=format, dst_colorspace=1, src_color_range=FULL, dst_color_range=FULL)
    frame.color_range = FULL
    assert torch.allclose(to_tensor(frame), image, atol=0.01)


def test_tags_of_results():
    rgb = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
    rgb.color_primaries, rgb.color_trc = 1, 13
    assert written_colour(rgb, to_rgb=False) == Colour(matrix=6, range=LIMITED, primaries=1, transfer=13)
    assert written_colour(plain("yuv420p", (9, 9, 9), 1, LIMITED), to_rgb=True)[:2] == (0, FULL)
    assert written_colour(plain("yuvj420p", (9, 9, 9), 5, 0), to_rgb=False)[:2] == (5, FULL)
    kept = plain("yuv420p", (9, 9, 9), 9, LIMITED)
    kept.color_primaries, kept.color_trc = 9, 16
    assert written_colour(kept, to_rgb=False) == Colour(9, LIMITED, 9, 16)


def test_a_matrix_that_is_not_linear_is_reported():
    with pytest.raises(UserError, match="ICtCp"):
        to_tensor(plain("yuv420p10le", (400, 500, 500), 14, LIMITED))


def test_odd_sizes_and_another_size():
    image = torch.rand(3, 47, 63, generator=torch.Generator().manual_seed(0))
    colour = Colour(1, LIMITED, 1, 1)
    frame = to_frame(image, "yuv444p", colour)
    assert (frame.width, frame.height) == (63, 47)
    assert (to_tensor(frame) - image).abs().max() < 0.02
    assert to_tensor(to_frame(image, "yuv420p", colour, size=(32, 24))).shape == (3, 24, 32)
