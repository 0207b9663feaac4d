"""Enhancing image files and folders: nothing is overwritten, and one bad file does not stop the others."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from llie.data.decoding import MAX_PIXELS
from llie.data.readers import to_float, write_image
from llie.errors import UserError
from llie.inference.compare import sheet
from llie.inference.photo import open_photo
from llie.inference.plan import Inputs, Job, Plan, make_plan

Enhance = Callable[[np.ndarray], np.ndarray]

_COMPARED_SIDE = 1600  # pixels; before/after pictures are only for viewing, so they are reduced to this
_STOPPING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class Outcome:
    """The outcome for all images.

    Attributes:
        done: the results that were written.
        skipped: results that existed already.
        failures: the images that failed, each with the reason.
        notes: notes for the user (transparency was dropped ...), with the images that they apply to.
        stopped: why the other images were not tried, or empty.
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
) -> Outcome:
    """Enhance images, folders of images (with subfolders) and patterns such as `*.jpg`.

    Results keep bit depth, transparency, EXIF data and colour profile if their format can; the network gets sRGB.

    Args:
        enhance: function from an array (H, W, 3) to another of the same size and type, such as `llie.load(...)`.
        inputs: files, folders and patterns.
        output: a folder, or a file for a single image; None: beside the inputs (see `make_plan`).
        suffix: see `make_plan`.
        format: see `make_plan`.
        compare: see `make_plan`.
        quality: quality of JPEG, WebP, AVIF and HEIC, 1 to 100.
        overwrite: replace existing results; otherwise their images are skipped.
        max_pixels: larger images are refused before they are unpacked.
        progress: show a progress bar (only on a terminal).

    Raises:
        UserError: see `make_plan`. Failing images raise nothing; they are in the outcome.
    """
    plan = make_plan(inputs, output, suffix=suffix, format=format, compare=compare)
    return carry_out(plan, enhance, quality=quality, overwrite=overwrite, max_pixels=max_pixels, progress=progress)


def carry_out(
    plan: Plan,
    enhance: Enhance,
    *,
    quality: int = 95,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Carry out a plan; see `enhance_files`.

    Args:
        plan: from `make_plan`.
        enhance: see `enhance_files`.
        quality: see `enhance_files`.
        overwrite: see `enhance_files`.
        max_pixels: see `enhance_files`.
        progress: see `enhance_files`.
        report: called with a line about each failure when it happens.
    """
    outcome = Outcome()
    with tqdm(plan.jobs, unit="image", disable=None if progress else True) as bar:
        for job in bar:
            bar.set_description(job.source.name)
            if job.target.exists() and not overwrite:
                outcome.skipped.append(job.target)
                continue
            try:
                _enhance_one(job, enhance, quality, max_pixels, outcome.notes)
                outcome.done.append(job.target)
            except (UserError, MemoryError, RuntimeError) as error:
                reason = _reason(error, job)
                outcome.failures[job.source] = reason
                report(f"failed: {reason}")
                if getattr(error.__cause__, "errno", None) in _STOPPING:
                    outcome.stopped = reason
                    break
    return outcome


def _enhance_one(job: Job, enhance: Enhance, quality: int, max_pixels: int, notes: dict[str, list[Path]]) -> None:
    photo = open_photo(job.source, max_pixels)
    result = enhance(photo.pixels)
    if job.comparison is not None:
        write_image(job.comparison, sheet([[_small(photo.pixels), _small(result)]], ["before", "enhanced"]))
    for note in (*photo.notes, *photo.save(result, job.target, quality)):
        notes.setdefault(note, []).append(job.source)


def _reason(error: Exception, job: Job) -> str:
    """The reason of a failure, in a line that names the image."""
    text = str(error)
    if isinstance(error, RuntimeError) and "memory" not in text:
        raise error  # an error in llie or in a network, not in the image
    if not isinstance(error, UserError):
        text = "there is not enough memory for it; set a budget (--memory 2GB), or make the picture smaller"
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"


def _small(image: np.ndarray) -> np.ndarray:
    factor = _COMPARED_SIDE / max(image.shape[:2])
    if factor < 1:
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.rint(to_float(image) * 255).astype(np.uint8)


def about(notes: dict[str, list[Path]]) -> Iterable[str]:
    """One line per note, with the names of the first images that it applies to."""
    for note, paths in notes.items():
        names = ", ".join(path.name for path in paths[:3])
        yield f"{note}: {names}" + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
