"""`llie enhance`: photographs, videos, folders of them, and patterns."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from llie.commands._network import add_network_arguments, load_enhancer
from llie.commands._numbers import count_of
from llie.errors import UserError

if TYPE_CHECKING:
    from llie.commands import Verbs
    from llie.inference.files import Outcome
    from llie.inference.plan import Plan

_VIDEO_OPTIONS = ("start", "end", "codec", "crf", "pixel_format", "smooth")
_EPILOG = """\
examples:
  llie enhance photo.jpg                     writes photo_enhanced.jpg beside it
  llie enhance holiday/ -o brighter/         a folder with its subfolders; run again, it continues
  llie enhance *.nef --format tif            camera raw, developed to 16 bit
  llie enhance clip.mp4 -o out.mp4           a video, with its sound and subtitles
  torchrun --nproc_per_node 2 -m llie enhance holiday/    shared out over processes (slurm: srun llie ...)

exit code: 0 all done, 1 some files failed (the others are done; 0 under torchrun, which would stop the others),
2 a mistake in the command (nothing was done), 130 stopped by Ctrl-C (of a video, what was done is kept as
NAME.partial.mp4)
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("enhance", help="enhance photographs, videos and folders of them", epilog=_EPILOG)
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE",
        help="images and videos, folders (with their subfolders), patterns like '*.jpg': png, jpg, webp, tif, bmp, "
        "avif; heic and camera raw with the extra [photo], videos with the extra [video]",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="PLACE",
        help="folder, or file for a single input (default: beside the input, as photo_enhanced.jpg)",
    )  # fmt: skip
    parser.add_argument("--suffix", help="put behind the names of results (default: _enhanced, or nothing with -o)")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="png, jpg, webp, tif, bmp, avif or heic; for videos mp4, mov, mkv, webm or ts (default: the input's)",
    )
    parser.add_argument(
        "--quality", type=_quality, default=95, metavar="Q", help="of lossy image formats, 1 to 100 (default: 95)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist, instead of skipping them")
    parser.add_argument(
        "--compare", action="store_true", help="write before/after pictures of images, too (photo_compare.jpg)"
    )
    parser.add_argument(
        "--max-pixels", type=count_of("pixels"), metavar="N",
        help="refuse larger images, which may be decompression bombs (default: 178956970)",
    )  # fmt: skip
    _add_video_arguments(parser)
    add_network_arguments(parser)
    parser.set_defaults(run=run)


def _add_video_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "videos", "With the extra [video]. Sound, subtitles, times and colour tags stay as they are."
    )
    group.add_argument("--start", type=_seconds, metavar="TIME", help="begin there: seconds, or like 1:02:03.5")
    group.add_argument("--end", type=_seconds, metavar="TIME", help="end there")
    group.add_argument(
        "--codec", metavar="NAME",
        help="h264, hevc, av1, vp9, ffv1 (lossless), prores, or an encoder of FFmpeg (default: h264; vp9 in webm)",
    )  # fmt: skip
    group.add_argument(
        "--crf", type=float, metavar="X", help="quality, 0 is the best (default: 18 for h264, 20 hevc, 25 av1, 24 vp9)"
    )
    group.add_argument("--pixel-format", metavar="NAME", help="default: yuv420p, with 10 bits where the input has them")
    group.add_argument(
        "--smooth", type=float, metavar="SECONDS",
        help="time over which the brightness is steadied against flicker, 0: not at all (default: 1)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Enhance; returns 1 when some files failed, except under torchrun."""
    from tqdm import tqdm

    from llie.data.decoding import MAX_PIXELS
    from llie.engine.distributed import launched_as
    from llie.inference.files import about, carry_out, check_videos
    from llie.inference.plan import make_plan

    plan = make_plan(
        options.inputs, options.output, suffix=options.suffix, format=options.format, compare=options.compare
    )
    video = _video_settings(options, plan)
    check_videos(plan, **video)
    rank, world = launched_as()
    plan = plan.share(rank, world)
    if plan.left_out:
        print(plan.left_out_text, file=sys.stderr)
    outcome = carry_out(
        plan,
        load_enhancer(options),
        quality=options.quality,
        overwrite=options.overwrite,
        max_pixels=options.max_pixels or MAX_PIXELS,
        report=lambda line: tqdm.write(line, file=sys.stderr),
        **video,
    )
    for line in about(outcome.notes):
        print(line, file=sys.stderr)
    print((f"process {rank + 1} of {world}: " if world > 1 else "") + _summary(outcome, plan))
    # torchrun would stop the other processes when this one fails.
    return 1 if outcome.failures and "TORCHELASTIC_RUN_ID" not in os.environ else 0


def _video_settings(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """What `enhance_video` is told."""
    from llie.inference.smoothing import SECONDS
    from llie.inference.video import Encoding

    given = [name for name in _VIDEO_OPTIONS if getattr(options, name) is not None]
    if given and not any(job.is_video for job in plan.jobs):
        raise UserError(f"--{given[0].replace('_', '-')} is for videos, and there are none among the inputs")
    return {
        "encoding": Encoding(options.codec, options.crf, options.pixel_format),
        "start": options.start or 0.0,
        "end": options.end,
        "smooth": SECONDS if options.smooth is None else options.smooth,
    }


def _summary(outcome: Outcome, plan: Plan) -> str:
    """What was done, in a line."""
    parts = []
    if outcome.done:
        single = len(outcome.done) == 1
        place = outcome.done[0] if single or plan.output is None else plan.output
        beside = "" if single or plan.output is not None else ", beside the originals"
        parts.append(f"{len(outcome.done)} enhanced, written to {place.parent if beside else place}{beside}")
    if outcome.skipped:
        parts.append(f"{len(outcome.skipped)} skipped, as their results exist (--overwrite replaces them)")
    if outcome.failures:
        parts.append(f"{len(outcome.failures)} failed")
    untried = len(plan.jobs) - len(outcome.done) - len(outcome.skipped) - len(outcome.failures)
    if untried:
        parts.append(f"{untried} not tried; run the same command again to continue")
    return "; ".join(parts) or "nothing to do"


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100")
    return int(text)


def _seconds(text: str) -> float:
    """90, 1:30 or 0:01:30."""
    parts = text.split(":")
    try:
        numbers = [*map(int, parts[:-1]), float(parts[-1])]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 <= number < math.inf for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write seconds (90.5) or 1:30.5 or 0:01:30.5")
    return float(sum(number * 60**place for place, number in enumerate(reversed(numbers))))
