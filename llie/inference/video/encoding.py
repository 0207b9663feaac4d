"""The user's choices for the encoding of a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """The user's choices for the encoding; None leaves a choice to llie.

    Attributes:
        codec: h264, hevc, av1, vp9, ffv1 (lossless), prores, or FFmpeg's name of any encoder. H.264 if None; VP9 in
            WebM.
        crf: constant rate factor; lower is better. 18 for H.264 if None.
        pixel_format: FFmpeg's name. yuv420p if None, with 10 or 12 bits where the input has them and the codec can.
    """

    codec: str | None = None
    crf: float | None = None
    pixel_format: str | None = None
