"""`llie enhance`: photographs, folders of them, and patterns."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llie.commands._network import add_network_arguments, load_enhancer
from llie.commands._numbers import count_of

if TYPE_CHECKING:
    from llie.commands import Verbs
    from llie.inference.files import Outcome
    from llie.inference.plan import Plan

_EPILOG = """\
examples:
  llie enhance photo.jpg                     writes photo_enhanced.jpg beside it
  llie enhance holiday/ -o brighter/         a folder with its subfolders; run again, it continues
  llie enhance *.nef --format tif            camera raw, developed to 16 bit
  torchrun --nproc_per_node 2 -m llie enhance holiday/    shared out over processes (slurm: srun llie ...)

exit code: 0 all done, 1 some images failed (the others are done), 2 a mistake in the command (nothing was done)
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "enhance", help="enhance photographs and folders of them", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "inputs", nargs="+", metavar="PHOTO",
        help="image files, folders (with their subfolders), patterns like '*.jpg': png, jpg, webp, tif, bmp, avif, "
        "and heic and camera raw with the extra [photo]",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="PLACE",
        help="folder, or file for a single image (default: beside the input, as photo_enhanced.jpg)",
    )  # fmt: skip
    parser.add_argument("--suffix", help="put behind the names of results (default: _enhanced, or nothing with -o)")
    parser.add_argument(
        "--format", metavar="FORMAT", help="png, jpg, webp, tif, bmp, avif or heic (default: the input's)"
    )
    parser.add_argument(
        "--quality", type=_quality, default=95, metavar="Q", help="of lossy formats, 1 to 100 (default: 95)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist, instead of skipping them")
    parser.add_argument("--compare", action="store_true", help="write before/after pictures, too (photo_compare.jpg)")
    parser.add_argument(
        "--max-pixels", type=count_of("pixels"), metavar="N",
        help="refuse larger images, which may be decompression bombs (default: 178956970)",
    )  # fmt: skip
    add_network_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Enhance; returns 1 when some images failed."""
    from tqdm import tqdm

    from llie.data.decoding import MAX_PIXELS
    from llie.engine.distributed import launched_as
    from llie.inference.files import about, carry_out
    from llie.inference.plan import make_plan

    plan = make_plan(
        options.inputs, options.output, suffix=options.suffix, format=options.format, compare=options.compare
    )
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
    )
    for line in about(outcome.notes):
        print(line, file=sys.stderr)
    print((f"process {rank + 1} of {world}: " if world > 1 else "") + _summary(outcome, plan))
    return 1 if outcome.failures else 0


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
