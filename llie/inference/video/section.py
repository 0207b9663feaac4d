"""The section of a video from `--start` to `--end`."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from llie.errors import UserError
from llie.inference.video.reading import Reader
from llie.inference.video.times import MICRO, clock, time_of

_SEEK_MARGIN = 10  # seconds: in files without an index, seeking may end behind the requested frame


def check_section(start: float, end: float | None) -> None:
    """Check times that do not depend on the video.

    Raises:
        UserError: a time is negative, or the end is not behind the start.
    """
    if start < 0:
        raise UserError(f"--start {start:g} is negative")
    if end is not None and end <= start:
        raise UserError(f"--end {clock(end)} is not behind --start {clock(start)}")


class Section:
    """A section of a video.

    Args:
        file: the open video.
        start: beginning, in seconds from the beginning of the video.
        end: end, likewise; None: the end of the video.

    Attributes:
        begin: beginning of the section, in seconds on the file's clock.
        end: end of the section, likewise; None: the end of the video.
        shift: seconds to subtract from all times.
    """

    def __init__(self, file: av.container.InputContainer, start: float, end: float | None):
        check_section(start, end)
        self.start = start
        zero = Fraction(file.start_time or 0, MICRO)
        self.begin = zero + Fraction(start).limit_denominator(MICRO)
        self.end = None if end is None else zero + Fraction(end).limit_denominator(MICRO)
        # The times of a broadcast begin anywhere, and its container writes other ones.
        self.broadcast = file.format.name in ("mpegts", "mpeg")
        self.shift = self.begin if start or self.broadcast else Fraction(0)
        self._over: set[int] = set()

    def seek(self, file: av.container.InputContainer) -> None:
        """Go to the last key frame before the beginning."""
        if not self.start:
            return
        with suppress(av.FFmpegError):  # without seeking, frames are decoded from the beginning of the file
            file.seek(int((self.begin - (_SEEK_MARGIN if self.broadcast else 0)) * MICRO))

    def holds(self, item: av.VideoFrame | av.Packet) -> bool:
        """Whether a frame or packet belongs to the section."""
        if not self.start and self.end is None:
            return True
        time = time_of(item)
        return time >= self.begin and (self.end is None or time < self.end)

    def is_over(self, item: av.VideoFrame | av.Packet, reader: Reader) -> bool:
        """Whether the picture and all sound have passed the end; packets of sound come after their frames."""
        if self.end is None or time_of(item) < self.end:
            return False
        self._over.add(item.stream.index if isinstance(item, av.Packet) else reader.stream.index)
        return self._over >= {reader.stream.index, *(stream.index for stream in reader.file.streams.audio)}

    def why_empty(self, reader: Reader) -> str:
        """Why no frame belongs to the section, for the message."""
        if reader.damaged or not reader.frames:
            return "no frame of its video could be read; it is damaged or cut short"
        return f"the video ends at {clock(float(reader.reached - self.begin) + self.start)}, before --start"

    def frames(self, file: av.container.InputContainer, stream: av.VideoStream) -> int | None:
        """Approximate number of frames in the section; None if the file does not state it."""
        if self.end is None and not self.start and stream.frames:
            return stream.frames
        if file.duration is None or not stream.average_rate:
            return None
        end = Fraction((file.start_time or 0) + file.duration, MICRO)
        seconds = (end if self.end is None else min(end, self.end)) - self.begin
        return max(0, round(seconds * stream.average_rate))

    def chapters(self, file: av.container.InputContainer) -> list[Any]:
        """The chapters in the section, with the times of the result."""
        kept = []
        for chapter in file.chapters():
            base = chapter["time_base"] or Fraction(1)
            begin, end = (chapter[key] * base for key in ("start", "end"))
            if self.start:
                begin = max(begin, self.begin)
            if self.end is not None:
                end = min(end, self.end)
            if begin < end:
                times = {"start": round((begin - self.shift) / base), "end": round((end - self.shift) / base)}
                kept.append({**chapter, **times})
        return kept
