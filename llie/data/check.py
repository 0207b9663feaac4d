"""Checking all images of an option file before hours of training: `llie data check OPTIONS`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from llie.data.build import build_dataset
from llie.data.formats import mislabelled
from llie.data.loader import Order
from llie.data.packing import lmdb_of, read_any
from llie.data.pairing import Pair
from llie.data.readers import to_float
from llie.errors import UserError

# Two views of one LOL scene correlate above this, different scenes below (measured on LOLv1).
SAME_VIEW = 0.96
_SHOWN = 5
_MOST_PROBLEMS = 20


@dataclass
class Survey:
    """The content of one data set, and its problems.

    Attributes:
        name: its name in the option file (`train`, `val` ...).
        pairs: the paths of its items.
        sizes: number of images by size and type, such as "600x400 uint8".
        hashes: hash of the pixels of each image, by path.
        views: thumbnail of each reference (or of the input if there is none), by path.
        problems: one line per problem.
    """

    name: str
    pairs: list[Pair] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    hashes: dict[Path, str] = field(default_factory=dict)
    views: dict[Path, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.pairs:
            return f"{self.name}: nothing usable"
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes.most_common(3))
        more = f" and {len(self.sizes) - 3} other sizes" if len(self.sizes) > 3 else ""
        examples = (f"  {pair.lq}" + (f" -> {pair.gt}" if pair.gt else "") for pair in self.pairs[:2])
        what = "pairs" if self.pairs[0].gt else "images without reference"
        return "\n".join([f"{self.name}: {len(self.pairs)} {what}, {sizes}{more}", *examples])


def check(options: Mapping[str, Any]) -> int:
    """Print the content of all data sets in resolved options, and any overlap of training and test data.

    Args:
        options: from `load_options`; its `datasets` are read.

    Returns:
        0, or 1 if a test image is identical to a training image. Overlaps in official splits and recipes are only
        reported: similar views (LOLv1), and test inputs used as photographs without reference (DRBN).

    Raises:
        UserError: an empty set, a missing partner, different sizes in a pair, an unreadable or mislabelled file, or an
            input that is its own reference; the message lists all of them.
    """
    surveys = []
    for name, section in options["datasets"].items():
        if "split" in section:  # a part of the training set
            continue
        surveys.append(survey(name, section))
        print(surveys[-1], flush=True)
    problems = [problem for found in surveys for problem in found.problems]
    if problems:
        more = [f"... and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        listed = "\n  ".join(problems[:_MOST_PROBLEMS] + more)
        raise UserError(f"the data has {len(problems)} problems:\n  {listed}")
    leaks = 0
    for train in (found for found in surveys if found.name.startswith("train")):
        for test in (found for found in surveys if not found.name.startswith("train")):
            identical = shared_pixels(train, test)
            unlabelled = {pair.lq for pair in train.pairs if pair.gt is None}
            inputs = {pair.lq for pair in test.pairs}
            seen = [pair for pair in identical if pair[0] in unlabelled and pair[1] in inputs]
            leaked = [pair for pair in identical if pair not in seen]
            _report(f"LEAK: images of {test.name} that are also in {train.name}, pixel for pixel", leaked)
            _report(f"note: TRANSDUCTIVE, {train.name} holds inputs of {test.name}, without references", seen)
            known = {path for pair in identical for path in pair}
            alike = [pair for pair in same_views(train, test) if not known.intersection(pair)]
            _report(f"note: images of {test.name} that show the same view as one of {train.name}", alike)
            leaks += len(leaked)
    return 1 if leaks else 0


def survey(name: str, section: Mapping[str, Any]) -> Survey:
    """Read all images of one data set, given its section of the option file."""
    found = Survey(name)
    try:
        dataset: Any = build_dataset(section, name)
    except UserError as error:
        found.problems.append(str(error))
        return found
    if name.startswith("train"):
        try:
            Order(len(dataset), section.get("batch_size_per_gpu", 1), seed=0)
        except UserError as error:
            found.problems.append(f"data set {name}: {error}")
    found.pairs = list(getattr(dataset, "pairs", ()))
    paths = list(dict.fromkeys(path for pair in found.pairs for path in pair if path is not None))
    references = {pair.gt or pair.lq for pair in found.pairs}
    sizes: dict[Path, str] = {}
    with ThreadPoolExecutor(cpu_count()) as pool:
        for look in tqdm(pool.map(_look, paths), total=len(paths), desc=name, leave=False, disable=None):
            if look.problem:
                found.problems.append(look.problem)
                continue
            sizes[look.path] = look.size
            found.sizes[f"{look.size} {look.depth}"] += 1
            found.hashes[look.path] = look.pixels
            if look.path in references:
                found.views[look.path] = look.view
    own = [low for low, high in found.pairs if high is not None and low.resolve() == high.resolve()]
    if own:
        found.problems.append(f"{len(own)} inputs are their own references, dataroot_lq is dataroot_gt: {own[0]} ...")
    border = getattr(dataset, "gt_border", 0)
    for low, high in found.pairs:
        if high is None or low not in sizes or high not in sizes:
            continue
        if sizes[low] != _without_border(sizes[high], border):
            less = f" with a border of {border} to cut off" if border else ""
            found.problems.append(f"{low} is {sizes[low]}, but its reference {high} is {sizes[high]}{less}")
    return found


def shared_pixels(train: Survey, test: Survey) -> list[tuple[Path, Path]]:
    """Pairs of (train, test) paths of images with identical pixels, both inputs and references."""
    by_pixels = {pixels: path for path, pixels in train.hashes.items()}
    return [(by_pixels[pixels], path) for path, pixels in test.hashes.items() if pixels in by_pixels]


def same_views(train: Survey, test: Survey) -> list[tuple[Path, Path]]:
    """Pairs of (train, test) paths of references with the same view, up to a shift of a tenth; the best per test."""
    if not train.views or not test.views:
        return []
    paths = list(train.views)
    coarse = np.stack([_coarse(train.views[path]) for path in paths])
    found = []
    for path, view in test.views.items():
        # Such a shift hardly changes a tiny thumbnail, so one matrix product rules out nearly all candidates.
        candidates = np.flatnonzero(coarse @ _coarse(view) > 0.3)
        scored = [(correlation(train.views[paths[i]], view), paths[i]) for i in candidates]
        if scored and max(scored)[0] > SAME_VIEW:
            found.append((max(scored)[1], path))
    return found


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A grey float32 thumbnail of 64x64 pixels of an image of any size."""
    grey = cv2.cvtColor(to_float(image), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Largest normalised cross-correlation of the middle of one thumbnail with the other; 0 for flat ones."""
    margin = a.shape[0] // 10
    middle = b[margin:-margin, margin:-margin]
    if min(a.std(), middle.std()) < 1e-3:
        return 0.0
    return float(cv2.matchTemplate(a, middle, cv2.TM_CCOEFF_NORMED).max())


def _coarse(view: np.ndarray) -> np.ndarray:
    small = cv2.resize(view, (8, 8), interpolation=cv2.INTER_AREA).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def _without_border(size: str, border: int) -> str:
    width, height = (int(side) - 2 * border for side in size.split("x"))
    return f"{width}x{height}"


class _Look(NamedTuple):
    """The facts to keep about an image; `problem` says why it could not be read."""

    path: Path
    size: str = ""
    depth: str = ""
    pixels: str = ""
    view: np.ndarray = np.empty(0)
    problem: str = ""


def _look(path: Path) -> _Look:
    try:
        if lmdb_of(path) is None and (really := mislabelled(path)):
            return _Look(path, problem=f"{path} is mislabelled: its content is {really}")
        image = read_any(path)
    except UserError as error:
        return _Look(path, problem=str(error))
    size = f"{image.shape[1]}x{image.shape[0]}"
    pixels = hashlib.blake2b(f"{size}{image.dtype}".encode() + image.tobytes(), digest_size=16).hexdigest()
    return _Look(path, size, str(image.dtype), pixels, thumbnail(image))


def _report(title: str, pairs: list[tuple[Path, Path]]) -> None:
    if not pairs:
        return
    print(f"{title}: {len(pairs)}")
    for train, test in pairs[:_SHOWN]:
        print(f"  {test} ({train})")
    if len(pairs) > _SHOWN:
        print(f"  ... and {len(pairs) - _SHOWN} more")
