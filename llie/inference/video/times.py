"""Times of frames and packets."""

from __future__ import annotations

from fractions import Fraction

import av

MICRO = 1_000_000  # FFmpeg states the times of whole files in millionths of a second


def base_of(item: av.VideoFrame | av.Packet) -> Fraction:
    """The unit of the times of a frame or packet, in seconds."""
    return item.time_base or Fraction(1)


def time_of(item: av.VideoFrame | av.Packet) -> Fraction:
    """The time at which a frame or packet is shown, in seconds on the file's clock."""
    ticks = item.pts if item.pts is not None else item.dts
    return (ticks or 0) * base_of(item)


def clock(seconds: float) -> str:
    """Seconds as text, such as 0:07.5 or 1:02:03."""
    rest = round(seconds, 1)
    text = f"{rest % 60:04.1f}".removesuffix(".0")
    minutes = int(rest // 60)
    return f"{minutes // 60}:{minutes % 60:02}:{text}" if minutes >= 60 else f"{minutes}:{text}"
