"""Writes the result to a temporary file beside the target, which is renamed when it is complete."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from torch import Tensor

from llie.errors import UserError
from llie.inference.video.colour import HDR_TRANSFERS, to_frame, written_colour
from llie.inference.video.encoders import Encoder
from llie.inference.video.priority import usual_priority
from llie.inference.video.reading import Reader
from llie.inference.video.reserved_file import ReservedFile
from llie.inference.video.result import VideoResult, partial_of
from llie.inference.video.section import Section
from llie.inference.video.streams import Copy, can_hold, lasting_metadata
from llie.inference.video.times import base_of, clock, time_of

ROTATING = {"mp4", "mov", "matroska", "webm"}  # formats that can store a rotation


class Writer:
    """Writes the result, in a temporary file until it is complete.

    If the work ends early, the frames written so far are kept under another name (see `partial_of`), if they can be
    played. If the file cannot be written, the context raises a `UserError`.

    Args:
        target: file to write.
        container: FFmpeg's name of its format.
        encoder: encoder and its settings.
        reader: the input.
        first: first frame of the input.
        section: the section to write.

    Attributes:
        target: file to write.
        result: what was written.
    """

    def __init__(
        self, target: Path, container: str, encoder: Encoder, reader: Reader, first: av.VideoFrame, section: Section
    ):
        self.container, self.encoder, self.reader, self.first, self.section = container, encoder, reader, first, section
        self.target = target
        self.result = VideoResult(target, notes=[*encoder.notes, *_notes_about(first, container)])
        self.colour = written_colour(first, av.VideoFormat(encoder.pixel_format).is_rgb)
        self._begin: Fraction | None = None
        self._copies: dict[int, Copy] = {}
        self._temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Writer:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            # FFmpeg gets an open file: only closing this file keeps FFmpeg from writing a trailer (see `_salvage`).
            self._file = ReservedFile(self._temporary)
        except OSError as error:
            raise UserError(f"cannot write {self.target}: {error.strerror}") from error
        try:
            self._output = av.open(self._file, "w", format=self.container, container_options=self._options())
            self._output.metadata.update(lasting_metadata(self.reader.file.metadata))
            self._output.set_chapters(self.section.chapters(self.reader.file))
            self._stream = self._add_picture()
            self._add_copies()
        except BaseException:  # Ctrl-C, too
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            raise
        return self

    @property
    def full(self) -> OSError | None:
        """The error of a full disk, or None; the file can still be completed."""
        return self._file.full

    def add(self, frame: av.VideoFrame, image: Tensor) -> None:
        """Encode the result of a frame."""
        size = (self._stream.width, self._stream.height)
        if (frame.width, frame.height) != size:
            self._note_once(f"the picture changes its size within the video; all is written in {size[0]}x{size[1]}")
        encoded = to_frame(image, self.encoder.pixel_format, self.colour, size)
        base = base_of(frame)
        encoded.time_base = base
        encoded.pts = (frame.pts or 0) - round(self.section.shift / base)
        encoded.duration = frame.duration
        with usual_priority():  # the first call opens the encoder
            packets = self._stream.encode(encoded)
        self._output.mux(packets)
        self._begin = time_of(frame) if self._begin is None else self._begin
        self.result.frames += 1
        self.result.seconds = float(time_of(frame) + frame.duration * base - self._begin)

    def copy(self, packet: av.Packet) -> None:
        """Write a packet of another stream as it is."""
        if packet.stream.index in self._copies:
            self._output.mux(self._copies[packet.stream.index](packet, self.section.shift))

    def finish(self, complete: bool) -> None:
        """Complete the file and give it its name: that of the target, or that of a partial result."""
        self._output.mux(self._stream.encode(None))
        self._output.close()
        self._file.complete()
        self._keep(self.target if complete else partial_of(self.target))
        if complete:
            with suppress(OSError):
                partial_of(self.target).unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        kept = self._salvage()
        if isinstance(error, OSError | av.FFmpegError):
            reason = getattr(error, "strerror", None) or str(error)
            there = f"{self.result.path} has the first {clock(kept)}" if kept else "nothing of it could be kept"
            raise UserError(f"cannot write {self.target}: {reason}; {there}") from error

    def _salvage(self) -> float:
        """Keep the frames written so far, if they can be played.

        Returns:
            Their seconds; 0 if nothing was kept.
        """
        with suppress(OSError, ValueError):
            self._file.close()
        # The file is closed, so this only frees FFmpeg's memory; no trailer overwrites the frames.
        with suppress(OSError, ValueError, av.FFmpegError):
            self._output.close()
        with suppress(OSError):
            seconds = playable_seconds(self._temporary) if self.result.frames else 0.0
            if seconds:
                self._keep(partial_of(self.target))
                return seconds
            self._temporary.unlink(missing_ok=True)
        return 0.0

    def _keep(self, path: Path) -> None:
        self._temporary.replace(path)
        self.result.path = path

    def _options(self) -> dict[str, str]:
        """Options of the container."""
        if self.container not in ("mp4", "mov"):
            return {}
        options = {"movflags": ""}
        if not any(can_hold(self.container, stream) for stream in self.reader.file.streams.subtitles):
            # With subtitles, FFmpeg writes wrong times for fragments.
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
        stream.time_base = stream.codec_context.time_base = base_of(first)
        if source.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.colour
        context.flags |= Flags.frame_duration  # use the frames' durations: the last one has no next frame
        if self.encoder.name == "libx265" and self.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the only tag that Apple's players accept
        rotation: Any = first.side_data.get("DISPLAYMATRIX")
        if rotation is not None and self.container in ROTATING:
            stream.set_display_matrix(np.frombuffer(bytes(rotation), np.int32).tolist())
        stream.metadata.update(lasting_metadata(source.metadata))
        stream.disposition = source.disposition
        return stream

    def _add_copies(self) -> None:
        for stream in self.reader.file.streams:
            if stream.index == self.reader.stream.index:
                continue
            if can_hold(self.container, stream):
                self._copies[stream.index] = Copy(stream, self._output, self.container)
            elif stream.type != "data":  # for instance sensor readings of cameras
                kind = f"{getattr(stream, 'name', None) or ''} {stream.type}".strip()
                helps = "" if self.container == "matroska" else "; mkv holds more than others"
                self.result.notes.append(f"a stream of {kind} is left out, as {self.container} cannot hold it{helps}")

    def _note_once(self, note: str) -> None:
        if note not in self.result.notes:
            self.result.notes.append(note)


def playable_seconds(path: Path) -> float:
    """Seconds of video in a file that was not finished; 0 if it cannot be played."""
    try:
        with av.open(str(path)) as file:
            reached = Fraction(0)
            for packet in file.demux(video=0):
                if packet.size and not packet.is_corrupt:
                    reached = max(reached, time_of(packet) + (packet.duration or 0) * base_of(packet))
            return float(reached)
    except (av.FFmpegError, OSError, IndexError):
        return 0.0


def _notes_about(frame: av.VideoFrame, container: str) -> list[str]:
    """Notes for the user about the input: HDR, transparency, interlacing, rotation."""
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
