"""Converts frames to RGB tensors and back, with the colour matrix and the range of the stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from av import VideoFrame
from av.video.reformatter import ColorRange
from torch import Tensor

from llie.errors import UserError

_RGB_MATRIX, _UNSPECIFIED = 0, 2
# Matrix numbers of H.273, which FFmpeg's tags use -> numbers of swscale. BT.470BG and SMPTE 170M are both BT.601.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_UNKNOWN_MATRICES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085", 14: "ICtCp"}
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

_WHITE = 255 << 8  # white in swscale's RGB with 16 bits
# Slower than swscale's defaults, which are wrong by 1 % here and there: bicubic, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT.
_EXACT = 0x4 | 0x40000 | 0x2000


class Colour(NamedTuple):
    """The colour tags of a frame, with the numbers of H.273.

    Attributes:
        matrix: matrix from RGB to luma and chroma.
        range: 1: limited (16 to 235 of 255), 2: full, 0: not stated, which means limited.
        primaries: primaries of RGB.
        transfer: transfer function, from light to stored values.
    """

    matrix: int
    range: int
    primaries: int
    transfer: int


def colour_of(frame: VideoFrame) -> Colour:
    """The tags of a frame."""
    return Colour(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)


def written_colour(frame: VideoFrame, to_rgb: bool) -> Colour:
    """The tags for the result of a frame: those of the frame, except where the pixel format changes them.

    Args:
        frame: frame of the input.
        to_rgb: whether the result is stored as RGB, rather than as luma and chroma.
    """
    colour = colour_of(frame)
    if to_rgb:
        return colour._replace(matrix=_RGB_MATRIX, range=ColorRange.JPEG)
    if _is_rgb(frame):
        return colour._replace(matrix=_guessed_matrix(frame), range=ColorRange.MPEG)
    if frame.format.name.startswith("yuvj"):
        return colour._replace(range=ColorRange.JPEG)
    return colour


def to_tensor(frame: VideoFrame) -> Tensor:
    """A frame of any pixel format as RGB.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        UserError: swscale does not have the matrix of the frame.
    """
    if frame.colorspace in _UNKNOWN_MATRICES and not _is_rgb(frame):
        raise UserError(f"its colours are stored as {_UNKNOWN_MATRICES[frame.colorspace]}, which llie does not read")
    full = _is_rgb(frame) or _is_full(frame.format.name, frame.color_range)
    rgb = frame.reformat(
        format="rgb48le",
        src_colorspace=_swscale_matrix(frame.colorspace, frame),
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT,
    )
    values = torch.from_numpy(rgb.to_ndarray().astype(np.float32)).permute(2, 0, 1)
    bits = frame.format.components[0].bits
    # swscale shifts the bits of a frame up: 255 becomes 255 * 256, and 1023 becomes 1023 * 64.
    white = ((1 << bits) - 1) << (16 - bits) if full else _WHITE
    return values.div_(white).clamp_(max=1)


def to_frame(image: Tensor, format: str, colour: Colour, size: tuple[int, int] | None = None) -> VideoFrame:
    """An RGB image as a frame.

    Args:
        image: (3, H, W) in [0, 1].
        format: FFmpeg's name of the pixel format.
        colour: tags of the frame.
        size: (width, height) of the frame; None: those of the image.
    """
    empty = VideoFrame(16, 16, format)
    to_rgb = empty.format.is_rgb
    full = to_rgb or _is_full(format, colour.range)
    bits = empty.format.components[0].bits
    white = ((1 << bits) - 1) << (16 - bits) if to_rgb else _WHITE
    values = (image * white).round_().to(torch.int32).cpu()
    rgb = VideoFrame.from_ndarray(values.permute(1, 2, 0).contiguous().numpy().astype(np.uint16), "rgb48le")
    rgb.colorspace = colour.matrix  # PyAV 17 does not take BT.2020 as an argument
    width, height = size or (rgb.width, rgb.height)
    frame = rgb.reformat(
        width=width,
        height=height,
        format=format,
        dst_colorspace=None if to_rgb else _swscale_matrix(colour.matrix, rgb),
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        interpolation=_EXACT,
    )
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = colour
    return frame


def _is_rgb(frame: VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.has_palette


def _is_full(format: str, range: int) -> bool:
    return range == ColorRange.JPEG or format.startswith("yuvj")


def _swscale_matrix(matrix: int, frame: VideoFrame) -> int:
    return _MATRICES[matrix if matrix in _MATRICES else _guessed_matrix(frame)]


def _guessed_matrix(frame: VideoFrame) -> int:
    """The matrix of a frame without a tag, by the rule of players: BT.709 for HD, BT.601 for smaller frames."""
    return 1 if frame.width >= 1280 or frame.height > 576 else 6
