"""Enhancing images, videos and folders of them: nothing is overwritten, one bad file does not stop the rest."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from llie.data.decoding import MAX_PIXELS
from llie.data.readers import write_image
from llie.errors import UserError
from llie.inference.compare import sheet, small_view
from llie.inference.enhancer import Enhancer
from llie.inference.photo import open_photo
from llie.inference.plan import Inputs, Job, Plan, make_plan
from llie.inference.smoothing import SECONDS
from llie.inference.video import Encoding, enhance_video
from llie.inference.video.formats import container_of, require_pyav

Enhance = Enhancer | Callable[[np.ndarray], np.ndarray]

_STOPPING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class Outcome:
    """What became of the images and videos.

    Attributes:
        done: the results that were written.
        skipped: those that were there already.
        failures: the sources that failed, each with the reason.
        notes: what a user should know (transparency was dropped ...), with the sources that it is true of.
        stopped: why the rest was not tried, or empty.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failures: dict[Path, str] = field(default_factory=dict)
    notes: dict[str, list[Path]] = field(default_factory=dict)
    stopped: str = ""


def enhance_files(
    enhance: Enhance,
    inputs: Inputs,
    output: str | Path | None = None,
    *,
    suffix: str | None = None,
    format: str | None = None,
    compare: bool = False,
    quality: int = 95,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
    **video: Any,  # settings of `enhance_video`
) -> Outcome:
    """Enhance images, videos, folders of them (with subfolders) and patterns such as `*.jpg`.

    Results keep bit depth, transparency, EXIF data and colour profile where their format can; the network sees sRGB.
    For videos see `enhance_video`.

    Args:
        enhance: maps an array (H, W, 3) to another of the same size and type; `llie.load(...)` is one. Frames of
            videos are float32 in [0, 1].
        inputs: files, folders and patterns.
        output: a folder, or a file for a single image or video; beside the inputs if None (see `make_plan`).
        suffix: see `make_plan`.
        format: see `make_plan`.
        compare: see `make_plan`.
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.
        overwrite: replace results that exist; else their images are skipped.
        max_pixels: larger images fail before they are unpacked.
        progress: show progress bars (only on a terminal).
        **video: `encoding`, `start`, `end` and `smooth` of `enhance_video`, for all videos.

    Raises:
        UserError: see `make_plan`. Images and videos that fail raise nothing.
        Stopped: by Ctrl-C or SIGTERM within a video.
    """
    plan = make_plan(inputs, output, suffix=suffix, format=format, compare=compare)
    check_videos(plan, **video)
    settings: dict[str, Any] = {"quality": quality, "overwrite": overwrite, "max_pixels": max_pixels}
    return carry_out(plan, enhance, progress=progress, **settings, **video)


def check_videos(
    plan: Plan,
    encoding: Encoding | None = None,
    start: float = 0.0,
    end: float | None = None,
    smooth: float = SECONDS,
) -> None:
    """Report what is wrong with the settings of videos (see `enhance_video`) before any work is done.

    Raises:
        UserError: there are videos, but PyAV is absent, they cannot be encoded like that, or there is no such section.
    """
    for container, job in {container_of(job.target): job for job in plan.jobs if job.is_video}.items():
        require_pyav(job.source)
        from llie.inference.video.encoders import check_encoding
        from llie.inference.video.section import check_section

        check_encoding(encoding or Encoding(), container)
        check_section(start, end)
        if not 0 <= smooth < math.inf:
            raise UserError(f"--smooth {smooth:g} is not a number of seconds; 0 leaves every frame to itself")


def carry_out(
    plan: Plan,
    enhance: Enhance,
    *,
    quality: int = 95,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
    **video: Any,
) -> Outcome:
    """Carry out a plan; see `enhance_files`.

    Args:
        plan: from `make_plan`.
        enhance: see `enhance_files`.
        quality: see `enhance_files`.
        overwrite: see `enhance_files`.
        max_pixels: see `enhance_files`.
        progress: see `enhance_files`.
        report: called with a line for every failure, when it happens.
        **video: see `enhance_files`.
    """
    outcome = Outcome()
    unit = " files" if any(job.is_video for job in plan.jobs) else " images"
    hidden = not progress or (len(plan.jobs) == 1 and plan.jobs[0].is_video)  # which has a bar of its own
    with tqdm(plan.jobs, unit=unit, disable=True if hidden else None) as bar:
        for job in bar:
            bar.set_description(job.source.name)
            if job.target.exists() and not overwrite:
                outcome.skipped.append(job.target)
                continue
            try:
                if job.is_video:
                    result = enhance_video(_on_tensors(enhance), job.source, job.target, progress=progress, **video)
                    notes = result.notes
                else:
                    notes = _enhance_photo(job, enhance, quality, max_pixels)
                for note in notes:
                    outcome.notes.setdefault(note, []).append(job.source)
                outcome.done.append(job.target)
            except (UserError, MemoryError, RuntimeError) as error:
                reason = _reason(error, job)
                outcome.failures[job.source] = reason
                report(f"failed: {reason}")
                if getattr(error.__cause__, "errno", None) in _STOPPING:
                    outcome.stopped = reason
                    break
    return outcome


def _enhance_photo(job: Job, enhance: Enhance, quality: int, max_pixels: int) -> list[str]:
    photo = open_photo(job.source, max_pixels)
    result = enhance(photo.pixels)
    if job.comparison is not None:
        write_image(job.comparison, sheet([[small_view(photo.pixels), small_view(result)]], ["before", "enhanced"]))
    return [*photo.notes, *photo.save(result, job.target, quality)]


def _on_tensors(enhance: Enhance) -> Callable[[Tensor], Tensor]:
    if isinstance(enhance, Enhancer):
        return enhance
    return lambda frame: torch.from_numpy(enhance(frame.permute(1, 2, 0).numpy())).permute(2, 0, 1)


def _reason(error: Exception, job: Job) -> str:
    """What went wrong with an image or a video, in a line that names it."""
    text = str(error)
    if isinstance(error, RuntimeError) and "memory" not in text:
        raise error  # a fault of ours or of a network, not of the file
    if not isinstance(error, UserError):
        text = "there is not enough memory for it; set a budget (--memory 2GB), or make the picture smaller"
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"


def about(notes: dict[str, list[Path]]) -> Iterable[str]:
    """One line per note, with the names of the first images that it applies to."""
    for note, paths in notes.items():
        names = ", ".join(path.name for path in paths[:3])
        yield f"{note}: {names}" + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
