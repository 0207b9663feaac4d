"""The part of a video that is wanted, from `--start` to `--end`."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from llie.errors import UserError
from llie.inference.video.reading import Reader
from llie.inference.video.times import MICRO, clock, time_of

_SEEK_MARGIN = 10  # seconds: in files without an index, a search may end behind the frame that it is for


def check_section(start: float, end: float | None) -> None:
    """Raise a `UserError` if there can be no such section, in whatever video."""
    if start < 0:
        raise UserError(f"--start {start:g} is negative")
    if end is not None and end <= start:
        raise UserError(f"--end {clock(end)} is not behind --start {clock(start)}")


class Section:
    """The part of a file that is wanted.

    Attributes:
        begin: its beginning, in seconds on the file's clock.
        end: its end, likewise; None: all.
        shift: subtracted from all times, in seconds.
    """

    def __init__(self, file: av.container.InputContainer, start: float, end: float | None):
        check_section(start, end)
        self.start = start
        zero = Fraction(file.start_time or 0, MICRO)
        self.begin = zero + Fraction(start).limit_denominator(MICRO)
        self.end = None if end is None else zero + Fraction(end).limit_denominator(MICRO)
        # The clock of a broadcast shows any time at its beginning, and its container sets another one.
        self.broadcast = file.format.name in ("mpegts", "mpeg")
        self.shift = self.begin if start or self.broadcast else Fraction(0)
        self._over: set[int] = set()

    def seek(self, file: av.container.InputContainer) -> None:
        """Go to the last key frame before the beginning."""
        if not self.start:
            return
        with suppress(av.FFmpegError):  # then frames are decoded from the file's beginning on
            file.seek(int((self.begin - (_SEEK_MARGIN if self.broadcast else 0)) * MICRO))

    def holds(self, item: av.VideoFrame | av.Packet) -> bool:
        """Whether a frame or packet belongs to it."""
        if not self.start and self.end is None:
            return True
        time = time_of(item)
        return time >= self.begin and (self.end is None or time < self.end)

    def is_over(self, item: av.VideoFrame | av.Packet, reader: Reader) -> bool:
        """Whether the picture and all sound are behind its end; packets of the sound come later than their frames."""
        if self.end is None or time_of(item) < self.end:
            return False
        self._over.add(item.stream.index if isinstance(item, av.Packet) else reader.stream.index)
        return self._over >= {reader.stream.index, *(stream.index for stream in reader.file.streams.audio)}

    def why_empty(self, reader: Reader) -> str:
        """Why no frame belongs to it."""
        if reader.damaged or not reader.frames:
            return "no frame of its video could be read; it is damaged or cut short"
        return f"the video ends at {clock(float(reader.reached - self.begin) + self.start)}, before --start"

    def frames(self, file: av.container.InputContainer, stream: av.VideoStream) -> int | None:
        """About how many frames there are in it, if the file tells."""
        if self.end is None and not self.start and stream.frames:
            return stream.frames
        if file.duration is None or not stream.average_rate:
            return None
        end = Fraction((file.start_time or 0) + file.duration, MICRO)
        seconds = (end if self.end is None else min(end, self.end)) - self.begin
        return max(0, round(seconds * stream.average_rate))

    def chapters(self, file: av.container.InputContainer) -> list[Any]:
        """The chapters, on the clock of the result."""
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
