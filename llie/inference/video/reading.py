"""Reads a video file: decoded frames of its picture, and packets of all other streams, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from llie.errors import UserError
from llie.inference.video.times import MICRO, base_of, time_of

# Keep metadata that is not UTF-8, rather than refusing the file. PyAV 19 always does so, and has no option for it.
_ODD_NAMES: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "surrogateescape"}
_SHORTFALL = Fraction(1, 2)  # seconds that may be missing at the end, because headers are rounded


class Reader:
    """Iterates over a video file: decoded frames of its picture, and packets of all other streams.

    Args:
        file: the open file.
        path: its path, for messages.

    Attributes:
        path: path of the file.
        file: the open file.
        stream: the stream of the picture.
        frames: number of frames decoded so far.
        reached: latest time read so far, in seconds.
        damaged: whether a part could not be read or decoded.
    """

    def __init__(self, file: av.container.InputContainer, path: Path):
        self.path, self.file = path, file
        self.stream = _picture(file, path)
        self.stream.thread_type = "AUTO"
        self.frames = 0
        self.reached = Fraction(0)
        self.damaged = False
        base, rate = self.stream.time_base or Fraction(1), self.stream.average_rate or self.stream.guessed_rate
        self._usual_duration = max(1, round(1 / (base * (rate or 25))))  # of a frame that states none
        self._last: int | None = None
        self._next = self.stream.start_time or 0

    def __iter__(self) -> Iterator[av.VideoFrame | av.Packet]:
        packets = self.file.demux()
        while True:
            packet: av.Packet | None = None
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.damaged = True
            if packet is not None and packet.is_corrupt:
                self._note_damage()
            if packet is None or packet.stream.index == self.stream.index:
                yield from self._decoded(packet)
            elif packet.size and not packet.is_corrupt:
                self._note_time(time_of(packet) + (packet.duration or 0) * base_of(packet))
                yield packet
            if packet is None:
                return

    def is_short(self) -> bool:
        """Whether the file ends earlier than its header states; false for formats that state no duration."""
        if self.file.duration is None or not {"matroska", "mp4"} & set(self.file.format.name.split(",")):
            return False
        stated = Fraction((self.file.start_time or 0) + self.file.duration, MICRO)
        return self.reached < stated - _SHORTFALL

    def _decoded(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        try:
            frames = self.stream.decode(packet)
        except EOFError:  # all frames were given out
            return
        except av.FFmpegError:
            self._note_damage()
            return
        for frame in frames:
            frame.duration = frame.duration or self._usual_duration
            if frame.pts is None:  # raw streams state no times
                frame.pts = self._next
            frame.pts = max(frame.pts, self._last + 1) if self._last is not None else frame.pts
            self._last, self._next = frame.pts, frame.pts + frame.duration
            self.frames += 1
            self._note_time((frame.pts + frame.duration) * base_of(frame))
            yield frame

    def _note_damage(self) -> None:
        # A recorded broadcast may begin in the middle of a group of pictures, which is no damage.
        self.damaged = self.damaged or self.frames > 0

    def _note_time(self, time: Fraction) -> None:
        self.reached = max(self.reached, time)


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    # Older torchvision turns PyAV's log on: closing a file then waits for decoding threads that wait for Python.
    av.logging.set_level(None)
    try:
        return av.open(str(path), **_ODD_NAMES)
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} is not a video, or is damaged or cut short: {error.strerror}") from error


def _picture(file: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The video stream that a player shows.

    Raises:
        UserError: there is none, or no decoder for it.
    """
    pictures = [stream for stream in file.streams.video if not stream.disposition & Disposition.attached_pic]
    if not pictures:
        others = ", ".join(sorted({stream.type for stream in file.streams})) or "nothing"
        raise UserError(f"{path} has no video stream, only {others}")
    readable = [stream for stream in pictures if stream.codec_context is not None]
    if not readable:
        raise UserError(f"{path}: this PyAV has no decoder for its video; convert it to another codec, or update PyAV")
    best = file.streams.best("video")
    return best if best in readable else readable[0]


def first_frame(path: Path) -> av.VideoFrame:
    """The first frame of a file, whose tags state what the stream may not.

    Raises:
        UserError: the file cannot be read, or has no frame.
    """
    with closing(open_video(path)) as file:
        for item in Reader(file, path):
            if isinstance(item, av.VideoFrame):
                return item
    raise UserError(f"{path}: no frame of its video could be read; it is damaged or cut short")
