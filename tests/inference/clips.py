"""Small video files for tests, made with PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 4
TICK = Fraction(1, 600)
SOUND_RATE = 8000


def make_clip(
    path: Path,
    *,
    times: Sequence[float] = tuple(number / RATE for number in range(12)),
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    sound: str | None = "aac",
    subtitles: str | None = None,
    rotation: int | None = None,
    colour: tuple[int, int, int, int] = (6, 1, 6, 6),
    aspect: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    chapters: list[dict[str, Any]] | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Write a dark clip with noise; `colour` is matrix, range, primaries and transfer, as FFmpeg's numbers."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=format, container_options=options or {}) as file:
        file.metadata.update(metadata or {})
        file.set_chapters(chapters or [])
        picture = file.add_stream(codec, rate=Fraction(RATE), options={"g": "4"})
        picture.width, picture.height, picture.pix_fmt = *size, pixel_format
        picture.time_base = picture.codec_context.time_base = TICK
        context = picture.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation is not None:
            picture.set_display_rotation(rotation)
        audio = file.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        text = None
        if subtitles == "mov_text":
            text = file.add_mux_stream("mov_text")
            text.time_base = Fraction(1, 1000)
        elif subtitles == "srt":
            srt = av.open(io.BytesIO(b"1\n00:00:00,500 --> 00:00:01,500\nHello\n\n"), format="srt")
            text = file.add_stream_from_template(srt.streams[0])
            text.metadata["language"] = "eng"
        samples = 0
        for time in times:
            frame = av.VideoFrame.from_ndarray(random.integers(30, 60, (size[1], size[0], 3), np.uint8), "rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=5, dst_color_range=colour[1])
            frame.pts, frame.time_base = round(Fraction(time) / TICK), TICK
            file.mux(picture.encode(frame))
            while audio is not None and samples / SOUND_RATE < time + 1 / RATE:
                wave = np.sin(np.arange(samples, samples + 1024) / 5) * 8000
                block = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, samples, Fraction(1, SOUND_RATE)
                samples += 1024
                file.mux(audio.encode(block))
        if subtitles == "mov_text":
            for start, words in ((500, b"Hello"), (1500, b"there")):
                packet = av.Packet(len(words).to_bytes(2, "big") + words)
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = 800, Fraction(1, 1000), text
                packet.is_keyframe = True
                file.mux(packet)
        elif subtitles == "srt":
            for packet in srt.demux():
                if packet.size:
                    packet.stream = text
                    file.mux(packet)
        file.mux(picture.encode(None))
        if audio is not None:
            file.mux(audio.encode(None))
    return path


def cut_short(path: Path, share: float) -> Path:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def frames_of(path: Path) -> list[av.VideoFrame]:
    """All frames of the picture."""
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times_of(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def packets_of(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Content and time of the packets of the first stream of a kind."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return [(bytes(packet), packet.pts * packet.time_base) for packet in file.demux(stream) if packet.size]
