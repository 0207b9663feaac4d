"""Copies streams without decoding them: sound and subtitles."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction

import av
from av.bitstream import BitStreamFilterContext

from llie.inference.video.times import base_of

_STALE = ("encoder", "duration", "rotate", "major_brand", "minor_version", "compatible_brands", "bps", "number_of_")


class Copy:
    """Copies the packets of a stream into another container."""

    def __init__(self, source: av.stream.Stream, output: av.container.OutputContainer, container: str):
        self.stream = output.add_stream_from_template(source, opaque=True)
        self.stream.metadata.update(lasting_metadata(source.metadata))
        self.stream.disposition = source.disposition
        # Sound codecs need packets before time 0. MP4 and MOV mark them as not to be played; others would play them.
        self._skips = container in ("mp4", "mov")
        self._fills = source.name == "mov_text"  # gaps are packets without text, which FFmpeg adds itself
        # AAC of broadcasts repeats its header in every packet; other containers hold it once.
        repeats = source.name == "aac" and not source.codec_context.extradata and container != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", source) if repeats else None

    def __call__(self, packet: av.Packet, shift: Fraction) -> list[av.Packet]:
        """The packet, as it is to be written."""
        ticks = round(shift / base_of(packet))
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


def can_hold(container: str, stream: av.stream.Stream) -> bool:
    """Whether a stream can be copied into a container, tested with a container in memory."""
    with suppress(ValueError, OSError, av.FFmpegError), av.open(io.BytesIO(), "w", format=container) as trial:
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
        return True
    return False


def lasting_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata that also holds for the result."""
    return {key: value for key, value in metadata.items() if not key.lower().startswith(_STALE)}
