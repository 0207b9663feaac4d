"""Chooses an encoder with its quality and pixel format, from the user's choices and the video."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from typing import NamedTuple

import av
from av.video.format import VideoFormat

from llie.errors import UserError, suggest
from llie.inference.video.encoding import Encoding
from llie.inference.video.priority import usual_priority


class Codec(NamedTuple):
    """A codec that users choose by name.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        crf: constant rate factor with hardly visible loss; None if the encoder has no such factor.
        worst: largest constant rate factor.
    """

    encoder: str
    crf: float | None = None
    worst: float = 0


CODECS = {
    "h264": Codec("libx264", 18, 51),
    "hevc": Codec("libx265", 20, 51),
    "av1": Codec("libsvtav1", 25, 63),
    "vp9": Codec("libvpx-vp9", 24, 63),
    "ffv1": Codec("ffv1"),
    "prores": Codec("prores_ks"),
}
_ALIASES = {"h265": "hevc", "x264": "h264", "x265": "hevc", "avc": "h264", "vp09": "vp9"}
_OPTIONS = {"libx265": {"x265-params": "log-level=error"}, "libvpx-vp9": {"row-mt": "1"}}


class Encoder(NamedTuple):
    """An encoder with settings for a video.

    Attributes:
        name: FFmpeg's name of the encoder.
        options: options of the encoder.
        pixel_format: FFmpeg's name of the pixel format.
        notes: what the user should know about the choice, such as fewer bits than the input has.
    """

    name: str
    options: dict[str, str]
    pixel_format: str
    notes: list[str]


def choose_encoder(encoding: Encoding, container: str, source: VideoFormat) -> Encoder:
    """Choose encoder, quality and pixel format.

    Args:
        encoding: what the user requests.
        container: FFmpeg's name of the output format.
        source: pixel format and size of the input.

    Raises:
        UserError: there is no such encoder, or it cannot encode what is requested.
    """
    name, options, available = check_encoding(encoding, container)
    format, notes = _choose_format(name, encoding.pixel_format, available, source)
    return Encoder(name, options, format, notes)


def check_encoding(encoding: Encoding, container: str) -> tuple[str, dict[str, str], list[str]]:
    """Check what can be checked before there is a video.

    Args:
        encoding: what the user requests.
        container: FFmpeg's name of the output format.

    Returns:
        FFmpeg's name of the encoder, the options for it, and the pixel formats that it has.

    Raises:
        UserError: the encoder does not exist, does not fit into the container, or lacks that quality or pixel format.
    """
    wanted = encoding.codec.lower() if encoding.codec is not None else "vp9" if container == "webm" else "h264"
    codec = CODECS.get(_ALIASES.get(wanted, wanted), Codec(wanted))
    try:
        available = [format.name for format in av.codec.Codec(codec.encoder, "w").video_formats or ()]
    except av.codec.codec.UnknownCodecError:
        if wanted in CODECS:
            raise UserError(f"this PyAV has no {codec.encoder} to encode {wanted}; choose another --codec") from None
        raise UserError(
            f"no codec {wanted!r}: it is one of {', '.join(CODECS)}, or FFmpeg's name of an encoder."
            + suggest(wanted, [*CODECS, *(known.encoder for known in CODECS.values())])
        ) from None
    if not available:
        raise UserError(f"{wanted} encodes no video; choose another --codec: {', '.join(CODECS)}")
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream(codec.encoder)
    except ValueError:
        raise UserError(f"{container} files cannot hold {wanted}; choose another --codec, or write to .mkv") from None
    options = dict(_OPTIONS.get(codec.encoder, {}))
    if codec.crf is not None:
        crf = codec.crf if encoding.crf is None else encoding.crf
        if not 0 <= crf <= codec.worst:
            raise UserError(f"--crf {crf:g} is not between 0 (best) and {codec.worst:g} (smallest file)")
        options["crf"] = f"{crf:g}"
    elif encoding.crf is not None:
        raise UserError(f"{wanted} has no --crf; leave it out, or choose --codec h264, hevc, av1 or vp9")
    if codec.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it would print its settings
    if encoding.pixel_format is not None and encoding.pixel_format not in available:
        known, near = ", ".join(available), suggest(encoding.pixel_format, available)
        raise UserError(f"{codec.encoder} has no pixel format {encoding.pixel_format!r}; it has {known}." + near)
    return codec.encoder, options, available


def _choose_format(
    encoder: str, wanted: str | None, available: list[str], source: VideoFormat
) -> tuple[str, list[str]]:
    size = f"{source.width}x{source.height}"
    if wanted is not None:
        if not _opens(encoder, wanted, source):
            raise UserError(f"{encoder} cannot encode {size} in {wanted}; leave --pixel-format out, or choose another")
        return wanted, []
    depth = _depth(source)
    for candidate in _candidates(depth, available):
        if _opens(encoder, candidate, source):
            break
    else:
        raise UserError(f"{encoder} cannot encode a video of {size}; choose another --codec: {', '.join(CODECS)}")
    notes = []
    chosen = VideoFormat(candidate)
    if _depth(chosen) < depth:
        notes.append(f"{depth} bits became {_depth(chosen)}, the most that {encoder} encodes; --codec hevc keeps 10")
    if "yuv420p" in available and chosen.chroma_width(16) == 16 and not chosen.is_rgb:
        notes.append(
            f"{size} is an odd size, which {encoder} stores only as {candidate}; not all players show it "
            "(--codec av1 and vp9 store it as they usually do)"
        )
    return candidate, notes


def _candidates(depth: int, available: list[str]) -> list[str]:
    """Pixel formats in the order of preference for a bit depth: 4:2:0 first, which all players can show."""
    depths = sorted((8, 10, 12), key=lambda bits: (bits > depth, abs(bits - depth)))
    names = [f"yuv{chroma}p{'' if bits == 8 else f'{bits}le'}" for bits in depths for chroma in (420, 422, 444)]
    return [name for name in names if name in available] + [name for name in available if name not in names]


def _depth(format: VideoFormat) -> int:
    return format.components[0].bits


def _opens(encoder: str, pixel_format: str, source: VideoFormat) -> bool:
    """Whether the encoder takes this pixel format in this size; most H.264 encoders refuse 4:2:0 of odd sizes."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = source.width, source.height, pixel_format
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = dict(_OPTIONS.get(encoder, {}))
    try:
        with usual_priority():
            context.open()
    except (av.FFmpegError, ValueError, OSError):
        return False
    return True
