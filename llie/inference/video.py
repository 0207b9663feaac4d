"""Enhancing video files: frame by frame in constant memory, with everything else in the file kept.

    packet -> frame -> RGB -> network -> RGB -> frame -> packet      of the picture, one at a time
    packet -------------------------------------------> packet      of sound and subtitles, as they are

Frames keep their number, times, size, rotation and colour tags. The result is written to a temporary file beside the
target, and renamed when it is complete. MP4 and MOV are written in fragments until then, so that whatever stops the
work, what was done before can be played.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from llie.errors import Stopped, UserError

try:
    import av
except ImportError as error:
    raise UserError("videos need PyAV: pip install 'llie[video]'") from error

from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.stream import Disposition

from llie.engine.signals import StopSignals
from llie.inference.smoothing import SECONDS, Steady
from llie.inference.video_colour import HDR_TRANSFERS, to_frame, to_tensor, written_colour
from llie.inference.video_encoding import ROTATING, Encoder, Encoding, choose_encoder, container_of

_MICRO = 1_000_000  # FFmpeg states the times of whole files in millionths of a second
_SEEK_MARGIN = 10  # seconds: in files without an index, a search may end behind the frame that it is for
_SHORTFALL = Fraction(1, 2)  # seconds that may be missing at the end: what headers state is rounded
_RESERVE = 32 * 2**20  # bytes: enough to complete a file of some hours
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STALE = ("encoder", "duration", "rotate", "major_brand", "minor_version", "compatible_brands", "bps", "number_of_")


@dataclass
class VideoResult:
    """What was written.

    Attributes:
        path: the file.
        frames: how many there are in it.
        seconds: from the beginning of the first to the end of the last.
        notes: what a user should know (a stream was left out ...).
    """

    path: Path
    frames: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def enhance_video(
    enhance: Callable[[Tensor], Tensor],
    source: str | Path,
    target: str | Path,
    *,
    encoding: Encoding | None = None,
    start: float = 0.0,
    end: float | None = None,
    smooth: float = SECONDS,
    progress: bool = True,
) -> VideoResult:
    """Enhance a video.

    Args:
        enhance: an `Enhancer`, or any function that maps a tensor (3, H, W) in [0, 1] to another of the same size.
        source: any video file that FFmpeg reads.
        target: file to write; its ending tells the format: mp4, m4v, mov, mkv, webm or ts.
        encoding: codec, quality and pixel format; H.264 of high quality if None.
        start: seconds from the beginning of the video; what is before is left out, and the result begins with 0.
        end: likewise; the end of the video if None.
        smooth: over how many seconds the brightness is steadied, see `llie.inference.smoothing`; 0: not at all.
        progress: show a progress bar (only on a terminal).

    Raises:
        UserError: there is no video in the file, it cannot be encoded as requested, or it could not be finished (the
            input is cut short, the disk is full ...); the message says what of it is in the target.
        Stopped: by Ctrl-C or SIGTERM; what was done is in the target.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    container = container_of(target)
    if target.exists() and target.samefile(source):
        raise UserError(f"{target} is the input; choose another name for the result")
    with closing(_open(source)) as file:
        reader = _Reader(file, source)
        section = _Section(file, start, end)
        first = _first_frame(source)
        encoder = choose_encoder(encoding or Encoding(), container, first.format)
        steady = Steady(enhance, smooth)
        with _Writer(target, container, encoder, reader, first, section) as writer, StopSignals() as stop:
            section.seek(file)
            total = section.frames(file, reader.stream)
            with tqdm(total=total, unit="frame", desc=source.name, disable=None if progress else True) as bar:
                problem = _carry_out(reader, section, steady, writer, stop, bar)
            if writer.result.frames == 0:
                if stop.number:
                    raise Stopped("interrupted before the first frame was done: nothing is written", stop.number)
                raise UserError(problem or f"{source}: {section.why_empty(reader)}")
            writer.finish()
        there = f"{_clock(writer.result.seconds)} ({writer.result.frames} frames)"
        if stop.number:
            raise Stopped(f"interrupted: {target} has the first {there}", stop.number)
        if problem:
            raise UserError(f"{problem}; {target} has what was done until then, {there}") from writer.full
        if reader.damaged or (end is None and reader.is_short()):
            raise UserError(f"{source} is damaged or cut short; {target} has what could be read, {there}")
        return writer.result


def _carry_out(
    reader: _Reader, section: _Section, steady: Steady, writer: _Writer, stop: StopSignals, bar: tqdm
) -> str:
    """Enhance one frame after another; returns why that could not go on, or an empty text."""
    device = getattr(steady.enhance, "device", "cpu")
    for item in reader:
        if writer.full:
            return f"cannot write {writer.result.path}: {writer.full.strerror}"
        if stop.number or section.is_over(item, reader):
            break
        if not section.holds(item):
            continue
        if isinstance(item, av.Packet):
            writer.copy(item)
            continue
        try:
            image = steady(to_tensor(item).to(device), float(_time(item)))
        except UserError as error:  # the network cannot do this frame
            return f"{reader.path}: {str(error).rstrip('.')}"
        writer.add(item, image)
        bar.update()
    return ""


class _Reader:
    """What is in a video file, in order: decoded frames of its picture, and packets of all else.

    Attributes:
        path: of the file.
        file: the file.
        stream: the picture.
        frames: how many frames were decoded.
        reached: the latest time that was read, in seconds.
        damaged: something could not be read or decoded.
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
                self._note_time(_time(packet) + (packet.duration or 0) * _base(packet))
                yield packet
            if packet is None:
                return

    def is_short(self) -> bool:
        """Whether the file ends earlier than it says; some formats do not say."""
        if self.file.duration is None or not {"matroska", "mp4"} & set(self.file.format.name.split(",")):
            return False
        stated = Fraction((self.file.start_time or 0) + self.file.duration, _MICRO)
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
            self._note_time((frame.pts + frame.duration) * _base(frame))
            yield frame

    def _note_damage(self) -> None:
        # A recording of a broadcast may begin in the middle of a group of pictures: the file is not damaged.
        self.damaged = self.damaged or self.frames > 0

    def _note_time(self, time: Fraction) -> None:
        self.reached = max(self.reached, time)


class _Section:
    """The part of a file that is wanted.

    Attributes:
        begin: its beginning, in seconds on the file's clock.
        end: its end, likewise; None: all.
        shift: subtracted from all times, in seconds.
    """

    def __init__(self, file: av.container.InputContainer, start: float, end: float | None):
        if start < 0:
            raise UserError(f"--start {start:g} is negative")
        if end is not None and end <= start:
            raise UserError(f"--end {_clock(end)} is not behind --start {_clock(start)}")
        self.start = start
        zero = Fraction(file.start_time or 0, _MICRO)
        self.begin = zero + Fraction(start).limit_denominator(_MICRO)
        self.end = None if end is None else zero + Fraction(end).limit_denominator(_MICRO)
        # The clock of a broadcast shows any time at its beginning, and its container sets another one.
        self.broadcast = file.format.name in ("mpegts", "mpeg")
        self.shift = self.begin if start or self.broadcast else Fraction(0)
        self._over: set[int] = set()

    def seek(self, file: av.container.InputContainer) -> None:
        """Go to the last key frame before the beginning."""
        if not self.start:
            return
        with suppress(av.FFmpegError):  # then frames are decoded from the file's beginning on
            file.seek(int((self.begin - (_SEEK_MARGIN if self.broadcast else 0)) * _MICRO))

    def holds(self, item: av.VideoFrame | av.Packet) -> bool:
        """Whether a frame or packet belongs to it."""
        if not self.start and self.end is None:
            return True
        time = _time(item)
        return time >= self.begin and (self.end is None or time < self.end)

    def is_over(self, item: av.VideoFrame | av.Packet, reader: _Reader) -> bool:
        """Whether the picture and all sound are behind its end; packets of the sound come later than their frames."""
        if self.end is None or _time(item) < self.end:
            return False
        self._over.add(item.stream.index if isinstance(item, av.Packet) else reader.stream.index)
        return self._over >= {reader.stream.index, *(stream.index for stream in reader.file.streams.audio)}

    def why_empty(self, reader: _Reader) -> str:
        """Why no frame belongs to it."""
        if reader.damaged or not reader.frames:
            return "no frame of its video could be read; it is damaged or cut short"
        return f"the video ends at {_clock(float(reader.reached - self.begin) + self.start)}, before --start"

    def frames(self, file: av.container.InputContainer, stream: av.VideoStream) -> int | None:
        """About how many frames there are in it, if the file tells."""
        if self.end is None and not self.start and stream.frames:
            return stream.frames
        if file.duration is None or not stream.average_rate:
            return None
        end = Fraction((file.start_time or 0) + file.duration, _MICRO)
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


class _Writer:
    """The result, in a temporary file until it is complete.

    Where the work ends before that, what is there becomes the result if it can be played. A file that cannot be
    written is reported as `UserError`.

    Attributes:
        result: what was written.
    """

    def __init__(
        self, target: Path, container: str, encoder: Encoder, reader: _Reader, first: av.VideoFrame, section: _Section
    ):
        self.container, self.encoder, self.reader, self.first, self.section = container, encoder, reader, first, section
        self.result = VideoResult(target, notes=[*encoder.notes, *_notes_about(first, container)])
        self.colour = written_colour(first, av.VideoFormat(encoder.pixel_format).is_rgb)
        self._begin: Fraction | None = None
        self._copies: dict[int, _Copy] = {}
        self._temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> _Writer:
        target = self.result.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # FFmpeg is handed an open file: closing it is the only way to leave off the trailer (see `_salvage`).
            self._file = _File(self._temporary)
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror}") from error
        self._output = av.open(self._file, "w", format=self.container, container_options=self._options())
        self._output.metadata.update(_lasting(self.reader.file.metadata))
        self._output.set_chapters(self.section.chapters(self.reader.file))
        self._stream = self._add_picture()
        for stream in self.reader.file.streams:
            if stream.index != self.reader.stream.index:
                if _can_hold(self.container, stream):
                    self._copies[stream.index] = _Copy(stream, self._output, self.container)
                elif stream.type != "data":  # sensor readings of cameras and the like
                    kind = f"{_name(stream)} {stream.type}".strip()
                    helps = "" if self.container == "matroska" else "; mkv holds more than others"
                    self.result.notes.append(
                        f"a stream of {kind} is left out, as {self.container} cannot hold it{helps}"
                    )
        return self

    @property
    def full(self) -> OSError | None:
        """The error that said that the disk is full; what is there can still be completed."""
        return self._file.full

    def add(self, frame: av.VideoFrame, image: Tensor) -> None:
        """Encode the result of a frame."""
        size = (self._stream.width, self._stream.height)
        if (frame.width, frame.height) != size:
            self._note_once(f"the picture changes its size within the video; all is written in {size[0]}x{size[1]}")
        encoded = to_frame(image, self.encoder.pixel_format, self.colour, size)
        base = _base(frame)
        encoded.time_base = base
        encoded.pts = (frame.pts or 0) - round(self.section.shift / base)
        encoded.duration = frame.duration
        self._output.mux(self._stream.encode(encoded))
        self._begin = _time(frame) if self._begin is None else self._begin
        self.result.frames += 1
        self.result.seconds = float(_time(frame) + frame.duration * base - self._begin)

    def copy(self, packet: av.Packet) -> None:
        """Write a packet of another stream as it is."""
        if packet.stream.index in self._copies:
            self._output.mux(self._copies[packet.stream.index](packet, self.section.shift))

    def finish(self) -> None:
        """Complete the file and give it its name."""
        self._output.mux(self._stream.encode(None))
        self._output.close()
        self._file.complete()
        self._temporary.replace(self.result.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        kept = self._salvage()
        if isinstance(error, OSError | av.FFmpegError):
            reason = getattr(error, "strerror", None) or str(error)
            there = f"it has the first {_clock(kept)}" if kept else "nothing of it could be kept"
            raise UserError(f"cannot write {self.result.path}: {reason}; {there}") from error

    def _salvage(self) -> float:
        """Keep what was written until now, if it can be played; returns how many seconds of it there are."""
        with suppress(OSError, ValueError):
            self._file.close()
        # The file is closed, so this frees FFmpeg's memory without writing a trailer over what is there.
        with suppress(OSError, ValueError, av.FFmpegError):
            self._output.close()
        with suppress(OSError):
            seconds = _playable(self._temporary) if self.result.frames else 0.0
            if seconds:
                self._temporary.replace(self.result.path)
                return seconds
            self._temporary.unlink(missing_ok=True)
        return 0.0

    def _options(self) -> dict[str, str]:
        """Options of the container."""
        if self.container not in ("mp4", "mov"):
            return {}
        options = {"movflags": ""}
        if not any(_can_hold(self.container, stream) for stream in self.reader.file.streams.subtitles):
            # Beside subtitles, FFmpeg gets the times of fragments wrong.
            options = {"movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "2000000"}
        if any(key.startswith("com.") for key in self.reader.file.metadata):  # Apple's: maker, place ...
            options["movflags"] += "+use_metadata_tags"
        return {name: value for name, value in options.items() if value}

    def _add_picture(self) -> av.VideoStream:
        source, first = self.reader.stream, self.first
        rate = source.average_rate or source.guessed_rate or Fraction(25)
        stream = self._output.add_stream(self.encoder.name, rate=rate, options=self.encoder.options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, self.encoder.pixel_format
        stream.time_base = stream.codec_context.time_base = _base(first)
        if source.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.colour
        context.flags |= Flags.frame_duration  # those of the frames are meant: the last one has no follower to tell
        if self.encoder.name == "libx265" and self.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the only one that Apple's players take
        rotation: Any = first.side_data.get("DISPLAYMATRIX")
        if rotation is not None and self.container in ROTATING:
            stream.set_display_matrix(np.frombuffer(bytes(rotation), np.int32).tolist())
        stream.metadata.update(_lasting(source.metadata))
        stream.disposition = source.disposition
        return stream

    def _note_once(self, note: str) -> None:
        if note not in self.result.notes:
            self.result.notes.append(note)


class _File:
    """A file to write, with a reserve of space: when the disk is full, it is given up, and the file can be completed.

    Attributes:
        full: the error that said so.
    """

    def __init__(self, path: Path):
        self.full: OSError | None = None
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._file = path.open("wb", buffering=0)
        try:
            with self._reserve.open("wb") as reserve:
                reserve.write(bytes(_RESERVE))
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise
        self.seek, self.tell = self._file.seek, self._file.tell

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Write all of it."""
        rest = memoryview(data)
        while len(rest):
            try:
                rest = rest[self._put(rest) :]
            except OSError as error:
                if error.errno not in _FULL or self.full is not None:
                    raise
                self.full = error
                self._reserve.unlink(missing_ok=True)
        return len(data)

    def _put(self, data: memoryview) -> int:
        return self._file.write(data) or 0

    def complete(self) -> None:
        """Close it when all is on the disk."""
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close it."""
        self._file.close()
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)


class _Copy:
    """Copies the packets of a stream into another container."""

    def __init__(self, source: av.stream.Stream, output: av.container.OutputContainer, container: str):
        self.stream = output.add_stream_from_template(source, opaque=True)
        self.stream.metadata.update(_lasting(source.metadata))
        self.stream.disposition = source.disposition
        # Codecs of sound need a run-up, before time 0; other containers than these would play it.
        self._skips = container in ("mp4", "mov")
        self._fills = source.name == "mov_text"  # gaps are packets without text, which FFmpeg adds by itself
        # AAC of broadcasts repeats its header in every packet; other containers hold it once.
        repeats = source.name == "aac" and not source.codec_context.extradata and container != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", source) if repeats else None

    def __call__(self, packet: av.Packet, shift: Fraction) -> list[av.Packet]:
        """The packet, as it is to be written."""
        ticks = round(shift / _base(packet))
        if packet.pts is not None:
            packet.pts -= ticks
        if packet.dts is not None:
            packet.dts -= ticks
        if (packet.pts or 0) < 0 and not self._skips:
            return []
        if self._fills and bytes(packet) == b"\0\0":
            return []
        packets = [packet] if self._filter is None else self._filter.filter(packet)
        for copied in packets:
            copied.stream = self.stream
        return packets


def _open(path: Path) -> av.container.InputContainer:
    """Open a video file.

    Raises:
        UserError: it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        # Names in odd encodings are kept as they are, rather than refused.
        return av.open(str(path), metadata_errors="surrogateescape")
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


def _first_frame(path: Path) -> av.VideoFrame:
    """The first frame of a file, which tells what its streams leave open."""
    with closing(_open(path)) as file:
        for item in _Reader(file, path):
            if isinstance(item, av.VideoFrame):
                return item
    raise UserError(f"{path}: no frame of its video could be read; it is damaged or cut short")


def _can_hold(container: str, stream: av.stream.Stream) -> bool:
    """Whether a stream can be copied into a container: tried on one in memory."""
    with suppress(ValueError, OSError, av.FFmpegError), av.open(io.BytesIO(), "w", format=container) as trial:
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
        return True
    return False


def _playable(path: Path) -> float:
    """How many seconds of video there are in a file that was not finished."""
    try:
        with av.open(str(path)) as file:
            reached = Fraction(0)
            for packet in file.demux(video=0):
                if packet.size and not packet.is_corrupt:
                    reached = max(reached, _time(packet) + (packet.duration or 0) * _base(packet))
            return float(reached)
    except (av.FFmpegError, OSError, IndexError):
        return 0.0


def _notes_about(frame: av.VideoFrame, container: str) -> list[str]:
    """What a user should know about a video that is enhanced."""
    notes = []
    if frame.color_trc in HDR_TRANSFERS:
        notes.append(
            f"the video is HDR ({HDR_TRANSFERS[frame.color_trc]}) and stays so, but networks know SDR only: look at it"
        )
    if any(component.is_alpha for component in frame.format.components):
        notes.append("its transparency is dropped")
    if frame.interlaced_frame:
        notes.append("the video is interlaced; its frames are enhanced and written as whole frames")
    if frame.rotation and container not in ROTATING:
        notes.append(
            f"{container} cannot say that the video is to be turned by {frame.rotation} degrees; mp4 and mkv can"
        )
    return notes


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    """The entries that are true of the result, too."""
    return {key: value for key, value in metadata.items() if not key.lower().startswith(_STALE)}


def _base(item: av.VideoFrame | av.Packet) -> Fraction:
    return item.time_base or Fraction(1)


def _time(item: av.VideoFrame | av.Packet) -> Fraction:
    """When it is shown, in seconds on the file's clock."""
    ticks = item.pts if item.pts is not None else item.dts
    return (ticks or 0) * _base(item)


def _name(stream: av.stream.Stream) -> str:
    return getattr(stream, "name", None) or ""


def _clock(seconds: float) -> str:
    """Seconds as people read them: 0:07.5, 1:02:03."""
    rest = round(seconds, 1)
    text = f"{rest % 60:04.1f}".removesuffix(".0")
    minutes = int(rest // 60)
    return f"{minutes // 60}:{minutes % 60:02}:{text}" if minutes >= 60 else f"{minutes}:{text}"
