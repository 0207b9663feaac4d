"""Enhances a video: the loop over its frames, and the messages when it ends early."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

from llie.engine.signals import StopSignals
from llie.errors import Stopped, UserError
from llie.inference.smoothing import SECONDS, Steady
from llie.inference.video.encoding import Encoding
from llie.inference.video.formats import container_of, require_pyav
from llie.inference.video.result import VideoResult

if TYPE_CHECKING:  # all of these need PyAV
    from llie.inference.video.reading import Reader
    from llie.inference.video.section import Section
    from llie.inference.video.writing import Writer


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

    Frames keep their number, times, size, rotation and colour tags. The result is written to a temporary file beside
    the target, and renamed when it is complete. If the work is interrupted, the frames written so far are kept as
    `NAME.partial.mp4`, which can be played.

    Args:
        enhance: an `Enhancer`, or any function that maps a tensor (3, H, W) in [0, 1] to another of the same size.
        source: any video file that FFmpeg reads.
        target: file to write; its ending tells the format: mp4, m4v, mov, mkv, webm or ts.
        encoding: codec, quality and pixel format; H.264 of high quality if None.
        start: seconds from the beginning of the video; what is before is left out, and the result begins with 0.
        end: likewise; the end of the video if None.
        smooth: seconds over which the brightness is steadied, see `llie.inference.smoothing`; 0: not at all.
        progress: show a progress bar (only on a terminal).

    Raises:
        UserError: PyAV is not installed, the file contains no video, the video cannot be encoded as requested, or the
            work cannot be finished, for instance because the disk is full; the message says which part was written. If
            the input is damaged or cut short, the target has all that can be read.
        Stopped: Ctrl-C or SIGTERM; the message says which part was written.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    require_pyav(source)
    from llie.inference.video.encoders import choose_encoder
    from llie.inference.video.reading import Reader, first_frame, open_video
    from llie.inference.video.section import Section
    from llie.inference.video.times import clock
    from llie.inference.video.writing import Writer

    container = container_of(target)
    if target.exists() and target.samefile(source):
        raise UserError(f"{target} is the input; choose another name for the result")
    with closing(open_video(source)) as file:
        reader = Reader(file, source)
        section = Section(file, start, end)
        first = first_frame(source)
        encoder = choose_encoder(encoding or Encoding(), container, first.format)
        steady = Steady(enhance, smooth)
        with StopSignals() as stop, Writer(target, container, encoder, reader, first, section) as writer:
            section.seek(file)
            total = section.frames(file, reader.stream)
            with tqdm(
                total=total, unit=" frames", desc=source.name, leave=False, disable=None if progress else True
            ) as bar:
                problem = _carry_out(reader, section, steady, writer, stop, bar)
            if writer.result.frames == 0:
                if stop.number:
                    raise Stopped("interrupted before the first frame was done: nothing is written", stop.number)
                raise UserError(problem or f"{source}: {section.why_empty(reader)}")
            writer.finish(complete=not (stop.number or problem))
        result = writer.result
        there = f"{clock(result.seconds)} ({result.frames} frames)"
        if stop.number:
            raise Stopped(f"interrupted: {result.path} has the first {there}", stop.number)
        if problem:
            raise UserError(f"{problem}; {result.path} has what was done until then, {there}") from writer.full
        if reader.damaged or (end is None and reader.is_short()):
            raise UserError(f"{source} is damaged or cut short; {result.path} has what could be read, {there}")
        return result


def _carry_out(reader: Reader, section: Section, steady: Steady, writer: Writer, stop: StopSignals, bar: tqdm) -> str:
    """Enhance one frame after the other.

    Returns:
        Why the work ended early; an empty text if all frames were done, or a signal came.
    """
    from av import Packet

    from llie.inference.video.colour import to_tensor
    from llie.inference.video.times import time_of

    device = getattr(steady.enhance, "device", "cpu")
    for item in reader:
        if writer.full:
            return f"cannot write {writer.target}: {writer.full.strerror}"
        if stop.number or section.is_over(item, reader):
            break
        if not section.holds(item):
            continue
        if isinstance(item, Packet):
            writer.copy(item)
            continue
        try:
            image = steady(to_tensor(item).to(device), float(time_of(item)))
        except UserError as error:  # the network cannot do this frame
            return f"{reader.path}: {str(error).rstrip('.')}"
        writer.add(item, image)
        bar.update()
    return ""
