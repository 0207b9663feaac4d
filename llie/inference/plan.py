"""Which files are enhanced, and where each result goes."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from llie.data.folders import files_below
from llie.data.formats import PHOTO_SUFFIXES, RAW_SUFFIXES, image_format, missing_package
from llie.errors import UserError, suggest
from llie.inference.photo import WRITTEN_SUFFIXES, check_suffix
from llie.inference.video.formats import CONTAINERS, VIDEO_SUFFIXES, container_of, has_pyav, is_video
from llie.inference.video.result import partial_of

SUFFIX = "_enhanced"
_COMPARISON = "_compare.jpg"

Inputs = str | Path | Sequence[str | Path]


class Job(NamedTuple):
    """One image or video: read `source`, write `target`, and a before/after picture unless that is None."""

    source: Path
    target: Path
    comparison: Path | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.target.suffix.lower() in CONTAINERS


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the order of the inputs.
        left_out: how many files of each ending are neither images nor videos, or need a package that is missing.
        output: the file or folder that results go to, for messages; None if they go beside their sources.
    """

    jobs: list[Job] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    output: Path | None = None

    @property
    def left_out_text(self) -> str:
        """One line about the files that are left out, with what helps; empty if there are none."""
        if not self.left_out:
            return ""
        counts = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in sorted(self.left_out.items()))
        lacking = {
            "photo": [suffix for suffix in sorted(self.left_out) if missing_package(suffix)],
            "video": [suffix for suffix in sorted(self.left_out) if suffix in VIDEO_SUFFIXES and not has_pyav()],
        }
        helps = [
            f" (llie reads {', '.join(suffixes)} after: pip install 'llie[{extra}]')"
            for extra, suffixes in lacking.items()
            if suffixes
        ]
        return f"left out: {counts}{''.join(helps)}"

    def share(self, rank: int, world: int) -> Plan:
        """The part of process number `rank` of `world`; together they have every job once."""
        return Plan(self.jobs[rank::world], self.left_out if rank == 0 else Counter(), self.output)


class _Source(NamedTuple):
    path: Path
    folder: Path | None  # the input that it was found in; None if it was named itself


def make_plan(
    inputs: Inputs,
    output: str | Path | None = None,
    *,
    suffix: str | None = None,
    format: str | None = None,
    compare: bool = False,
) -> Plan:
    """Plan the enhancing of files, folders (with subfolders, through links) and patterns such as `*.jpg`.

    Without `output`, results go beside the inputs: `a.jpg` becomes `a_enhanced.jpg`, a folder `b` becomes
    `b_enhanced`. With it, they have the names of their sources, in the same subfolders; several folders keep their
    names there. Results of an earlier run are not inputs.

    Args:
        inputs: one or several.
        output: a folder; or a file, for a single image or video.
        suffix: put behind the names of results; "_enhanced" if None and there is no `output`.
        format: ending of the results ("png", "jpg" ... for images, "mp4", "mkv" ... for videos), instead of that of
            each source. Sources of formats that are not written become JPEG (camera raw), PNG or MP4.
        compare: write a before/after picture beside the result of each image, too.

    Raises:
        UserError: there are no such inputs or nothing to enhance, a result would overwrite an input or another result,
            its folder cannot be written, or its format is unknown.
    """
    plan = Plan()
    names = _expanded([inputs] if isinstance(inputs, str | Path) else list(inputs))
    ending = None if format is None else _ending(format)
    place = None if output is None else Path(output).expanduser()
    if len(names) == 1 and names[0].is_file() and place is not None and _names_a_file(output, place):
        if ending not in (None, place.suffix.lower()):
            raise UserError(f"the output is named {place.name}, but the format is to be {format}; leave one out")
        jobs = [Job(names[0], place)]
        if jobs[0].is_video != is_video(names[0]):
            kinds = ("a video", "an image") if is_video(names[0]) else ("no video", "a video")
            raise UserError(f"{names[0]} is {kinds[0]}, but the output {place.name} has the name of {kinds[1]}")
    else:
        if place is not None and place.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES and not place.is_dir():
            what = "image" if place.suffix.lower() in PHOTO_SUFFIXES else "video"
            raise UserError(f"several {what}s need a folder for their results; {place} names a single {what}")
        if place is not None and place.is_file():
            raise UserError(f"the output {place} is a file, not a folder; choose another name")
        mark = suffix if suffix is not None else (SUFFIX if place is None else "")
        sources = _sources(names, place, mark, plan.left_out)
        jobs = [Job(source.path, _target(source, place, mark, ending, len(names) > 1)) for source in sources]
        jobs = _distinct(jobs)
        if mark:
            made = [(job.target, _comparison(job.target), partial_of(job.target)) for job in jobs]
            results = {file.resolve() for files in made for file in files}
            jobs = [job for job in jobs if job.source.resolve() not in results]
    if compare:
        jobs = [job if job.is_video else job._replace(comparison=_comparison(job.target)) for job in jobs]
    plan.jobs, plan.output = jobs, place
    if not jobs:
        what = ", ".join(map(str, names))
        raise UserError(f"no images or videos in {what} (subfolders are searched, too)" + _behind(plan.left_out_text))
    if ending is not None and not any((ending in CONTAINERS) == job.is_video for job in jobs):
        kind = "videos" if ending in CONTAINERS else "images"
        raise UserError(f"the format {format} is for {kind}, and there are none among the inputs")
    _refuse_clashes(jobs)
    _check_places(jobs)
    return plan


def _expanded(inputs: Sequence[str | Path]) -> list[Path]:
    """Paths that exist, each once; patterns, which not every shell replaces, by what they match."""
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text).expanduser()
        matches = [path]
        if not path.exists():
            # pathlib's own would match hidden files, too
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        if not matches:
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"no such file or folder: {path}." + suggest(path.name, near))
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values())


def _sources(names: Sequence[Path], output: Path | None, mark: str, left_out: Counter[str]) -> list[_Source]:
    """The images and videos among files and in folders; what is neither is counted in `left_out`."""
    made = {_beside(name, mark).resolve() for name in names if name.is_dir()} if output is None and mark else set()
    found: dict[Path, _Source] = {}
    for name in names:
        if name.is_file():
            candidates = [_Source(name, None)]
        elif name.resolve() in made:  # the results of another input, matched by the same pattern
            continue
        else:
            candidates = [_Source(path, name) for path in files_below(name)]
            if output is not None and output.resolve() != name.resolve():  # results of an earlier run in there
                candidates = [source for source in candidates if output.resolve() not in source.path.resolve().parents]
        for source in candidates:
            ending = source.path.suffix.lower()
            if source.folder is None and len(names) == 1:  # whatever it is called, its content decides
                wanted = True
            elif is_video(source.path):
                wanted = has_pyav()
            elif ending in PHOTO_SUFFIXES:
                wanted = missing_package(ending) is None
            else:
                wanted = source.folder is None and _looks_like_an_image(source.path)
            if wanted:
                found.setdefault(source.path.resolve(), source)
            else:
                left_out[ending] += 1
    return list(found.values())


def _looks_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return image_format(file.read(16)) is not None
    except OSError:
        return True  # reading it will say what is wrong


def _target(source: _Source, output: Path | None, mark: str, ending: str | None, several: bool) -> Path:
    path, folder = source
    new = _new_ending(path, ending)
    name = path.stem + mark + new
    if folder is None:
        return (path.parent if output is None else output) / name
    inside = path.relative_to(folder).parent
    if output is None:
        return _beside(folder, mark) / inside / (path.stem + new)
    return (output / folder.resolve().name if several else output) / inside / name


def _new_ending(path: Path, ending: str | None) -> str:
    """The ending of a source's result: the requested one if it is of its kind, else its own if that is written."""
    own = path.suffix.lower()
    if is_video(path):
        return ending if ending in CONTAINERS else path.suffix if own in CONTAINERS else ".mp4"
    if ending is not None and ending not in CONTAINERS:
        return ending
    return path.suffix if own in WRITTEN_SUFFIXES else ".jpg" if own in RAW_SUFFIXES else ".png"


def _beside(folder: Path, mark: str) -> Path:
    real = folder.resolve()
    return (folder if real.name == folder.name else real).with_name(real.name + mark)


def _comparison(target: Path) -> Path:
    return target.with_name(target.stem + _COMPARISON)


def _distinct(jobs: list[Job]) -> list[Job]:
    """Sources that differ only in their ending (a.nef beside a.jpg) get results that say which (a_nef.jpg)."""
    groups = Counter(job.target for job in jobs)
    plain: set[Path] = set()
    for job in jobs:  # whose ending stays the same keeps its name
        if groups[job.target] > 1 and job.source.suffix == job.target.suffix:
            plain.add(job.source)
    renamed = []
    for job in jobs:
        target = job.target
        if groups[target] > 1 and job.source not in plain and job.source.suffix:
            target = target.with_name(f"{target.stem}_{job.source.suffix[1:].lower()}{target.suffix}")
        renamed.append(job._replace(target=target))
    return renamed


def _names_a_file(output: str | Path | None, place: Path) -> bool:
    if place.is_dir() or str(output).endswith(("/", os.sep)) or not place.suffix:
        return False
    if place.suffix.lower() in VIDEO_SUFFIXES:
        container_of(place)
        return True
    try:
        check_suffix(place)
    except UserError as error:
        raise UserError(f"{error} If it is to be a folder, end its name with a slash") from None
    return True


def _ending(format: str) -> str:
    """The ending of a format's files: "jpg", ".jpg", "JPG" and "jpeg" are understood."""
    ending = "." + format.lower().removeprefix(".")
    if ending in CONTAINERS:
        return ending
    if ending not in WRITTEN_SUFFIXES:
        known = [*sorted(suffix[1:] for suffix in WRITTEN_SUFFIXES), *(suffix[1:] for suffix in CONTAINERS)]
        raise UserError(f"no format {format!r} is written; it is one of {' '.join(known)}." + suggest(format, known))
    return check_suffix(Path("result" + ending))


def _refuse_clashes(jobs: Iterable[Job]) -> None:
    inputs = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        for file in (job.target, job.comparison):
            if file is None:
                continue
            place = file.resolve()
            if place in inputs:
                raise UserError(f"the result would overwrite {file}, an input; choose another output folder or suffix")
            if place in taken:
                raise UserError(f"{job.source} and {taken[place]} would both become {file}; rename one")
            taken[place] = job.source


def _check_places(jobs: Iterable[Job]) -> None:
    """Report a folder that cannot be written before any work is done."""
    for folder in sorted({job.target.parent for job in jobs}):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            reason = "it may not be written" if there.is_dir() else f"{there} is a file"
            raise UserError(f"cannot write results into {folder}: {reason}; choose another folder (-o)")


def _behind(text: str) -> str:
    return f"; {text}" if text else ""
