"""Pairing inputs with references: by a key in the file names, never by the position in a sorted list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from llie.data.folders import files_below
from llie.data.formats import IMAGE_SUFFIXES
from llie.data.packing import is_lmdb, list_lmdb
from llie.errors import UserError

Roots = str | Path | Sequence[str | Path]

# Names of inputs, references and splits in published sets and their copies; lower case.
LOW_NAMES = ("low", "input", "lq", "low_blur", "short", "short_sid2", "smid_lq_np", "hazy", "rain", "rainy")
HIGH_NAMES = (
    *("high", "normal", "target", "gt", "high_sharp_scaled"),
    *("long", "long_sid2", "smid_long_np", "clear", "norain"),
)
TRAIN_NAMES = ("our485", "train")
TEST_NAMES = ("eval15", "test", "eval", "val", "minival")

# LOLv2 has low00690.png and normal00690.png, Rain100H rain-001.png and norain-001.png; "lowlands" is not a prefix.
_PREFIX = re.compile(r"^(low|normal|high|rain|norain)([_-]|(?=\d))", re.IGNORECASE)
_SHOWN = 5


class Pair(NamedTuple):
    """One item of a data set: the path of the input, and that of its reference, or None."""

    lq: Path
    gt: Path | None = None


Key = Callable[[Path], str]


def list_images(folder: str | Path) -> list[Path]:
    """All images below a folder (through links) or in an LMDB, sorted; hidden files and folders are left out.

    Raises:
        UserError: the folder is missing or contains no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; put the data there or correct the path (see datasets/README.md)")
    if is_lmdb(folder):
        found = list_lmdb(folder)
    else:
        found = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise UserError(
            f"{folder} contains no images (searched for {' '.join(sorted(IMAGE_SUFFIXES))}, also in subfolders)"
        )
    return found


def name_key(path: Path) -> str:
    """The key of a path below its root: subfolders and name, without ending and prefix (low, normal ...)."""
    return (path.parent / _PREFIX.sub("", path.stem)).as_posix()


def template_key(template: str) -> Key:
    """The key of inputs that are named by BasicSR's `filename_tmpl`, for instance "{}_low"."""
    before, brace, after = template.partition("{}")
    if not brace:
        raise UserError(f"filename_tmpl {template!r} needs '{{}}' for the name of the reference")

    def key(path: Path) -> str:
        return name_key(path.with_name(path.stem.removeprefix(before).removesuffix(after) + path.suffix))

    return name_key if template == "{}" else key


def pattern_key(pattern: str) -> Key:
    """The key is the first group of a regular expression, searched in the path below the root (with `/`)."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"key_pattern {pattern!r} is not a regular expression: {error}") from error
    if compiled.groups < 1:
        raise UserError(f"key_pattern {pattern!r} needs a group in parentheses: the common part of the names of a pair")

    def key(path: Path) -> str:
        match = compiled.search(path.as_posix())
        if match is None:
            raise UserError(f"key_pattern {pattern!r} does not fit the name {path.as_posix()}")
        return match.group(1)

    return key


def read_meta_info(file: str | Path) -> list[str]:
    """The names in BasicSR's `meta_info_file`, one per line, optionally with a size: `0001.png (480,480,3)`.

    Raises:
        UserError: the file cannot be read, or contains no names.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"meta_info_file: cannot read {file}: {reason}") from None
    names = [re.sub(r"\s+\(.*", "", line).strip() for line in lines]
    if not any(names):
        raise UserError(f"meta_info_file: {file} names no images")
    return [name for name in names if name]


def pair_folders(
    lq: Roots,
    gt: Roots,
    lq_key: Key = name_key,
    gt_key: Key = name_key,
    shared: bool = False,
    only: Sequence[str] | None = None,
) -> list[Pair]:
    """Pair the images of two folders, or of two lists of folders of the same length, by key.

    Args:
        lq: folder or folders of inputs.
        gt: folder or folders of references.
        lq_key: function from the path of an input below its root to its key.
        gt_key: likewise for references.
        shared: whether several inputs may have the same reference.
        only: paths of the references to use, below their root; other references and their inputs are left out.

    Raises:
        UserError: a folder is missing or empty, an image has no partner, or two have the same key.
    """
    lq_roots, gt_roots = as_list(lq), as_list(gt)
    if len(lq_roots) != len(gt_roots):
        raise UserError(
            f"dataroot_lq has {len(lq_roots)} folders, but dataroot_gt has {len(gt_roots)}; give the same number"
        )
    pairs = []
    for low, high in zip(lq_roots, gt_roots, strict=True):
        inputs = list_images(low)
        # In some copies of Rain100H, the folder of inputs is inside the folder of references.
        references = [path for path in list_images(high) if low == high or low not in path.parents]
        if only is not None:
            references = _chosen(references, high, only)
        by_key = unique(((gt_key(path.relative_to(high)), path) for path in references), high)
        keyed = [(lq_key(path.relative_to(low)), path) for path in inputs]
        if only is not None:
            keyed = [(key, path) for key, path in keyed if key in by_key]
        if not shared:
            unique(keyed, low)
        lonely = [path for key, path in keyed if key not in by_key]
        lonely += [by_key[key] for key in by_key.keys() - {key for key, _ in keyed}]
        if lonely:
            names = [path.relative_to(low) for path in inputs], [path.relative_to(high) for path in references]
            raise UserError(
                f"{len(lonely)} images of {low} and {high} have no partner: {shorten(lonely)}; if the names of a pair "
                f"differ, set key_pattern to their common part, {_example_of_pattern(*names)}"
            )
        pairs += [Pair(path, by_key[key]) for key, path in keyed]
    return pairs


def _example_of_pattern(inputs: Sequence[Path], references: Sequence[Path]) -> str:
    """A `key_pattern` that pairs exactly these names by leaving out the first or last word, or a general example."""
    sides = [[path.as_posix() for path in side] for side in (inputs, references)]
    for word, pattern in (
        (r"[-_. ][^-_. /]+(?=\.\w+$)", r"^(.*?)(?:{})?\.\w+$"),
        (r"^[^-_. /]+[-_. ]", r"^(?:{})?(.*)\.\w+$"),
    ):
        found = {match.group() for side in sides for name in side if (match := re.search(word, name))}
        if 0 < len(found) <= 2:
            compiled = re.compile(pattern.format("|".join(map(re.escape, sorted(found)))))
            keys = [sorted(match.group(1) for name in side if (match := compiled.search(name))) for side in sides]
            if keys[0] == keys[1] and len(set(keys[0])) == len(inputs):
                return f"here key_pattern: '{compiled.pattern}'"
    return r"for instance key_pattern: '(\d+)' for a number"


def _chosen(paths: Iterable[Path], root: Path, names: Sequence[str]) -> list[Path]:
    known = {path.relative_to(root).as_posix(): path for path in paths}
    missing = [Path(name) for name in names if name not in known]
    if missing:
        raise UserError(f"meta_info_file: {len(missing)} of {len(names)} images are not in {root}: {shorten(missing)}")
    return [known[name] for name in names]


def unique(keyed: Iterable[tuple[str, Path]], folder: Path) -> dict[str, Path]:
    """A dictionary from (key, path); two paths with the same key are a `UserError`."""
    by_key: dict[str, Path] = {}
    for key, path in keyed:
        if key in by_key:
            raise UserError(
                f"{by_key[key].name} and {path.name} in {folder} have the same key {key!r}; keep one of them"
            )
        by_key[key] = path
    return by_key


def shorten(paths: Iterable[Path]) -> str:
    """The first paths in sorted order, for an error message."""
    names = [path.as_posix() for path in sorted(paths)]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def as_list(roots: Roots) -> list[Path]:
    """One root or several, as a list of paths."""
    return [Path(roots)] if isinstance(roots, str | Path) else [Path(root) for root in roots]


def find_sides(dataroot: str | Path, phase: str) -> tuple[Path, Path]:
    """The folders of inputs and of references below the folder of a data set, in any common layout and spelling.

    Searches for `low`/`high` (or `input`/`target`, `Low`/`Normal` ...) in the folder itself and in its split
    (`our485`, `Train` ... for the phase "train", otherwise `eval15`, `Test` ...), also one or two folders deeper.

    Raises:
        UserError: none or several are found.
    """
    root = Path(dataroot)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; put the data there or correct the path (see datasets/README.md)")
    splits = TRAIN_NAMES if phase == "train" else TEST_NAMES
    level = [root]
    for _ in range(3):
        found = [sides for folder in level for sides in _sides_of(folder, splits)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(str(low.parent) for low, _ in found)
            raise UserError(f"{root} contains several data sets: {choices}; set dataroot to one of them")
        level = [child for folder in level for child in _folders(folder).values()]
    raise UserError(
        f"no pair of folders such as low/high, input/target or hazy/clear for {phase!r} was found below {root}; "
        f"set dataroot_lq and dataroot_gt, or arrange the data as in datasets/README.md"
    )


def _sides_of(folder: Path, splits: Sequence[str]) -> list[tuple[Path, Path]]:
    """Pairs of folders in the split of a folder, or in the folder itself; the first split with a pair is used."""
    children = _folders(folder)
    for place in [*(children[name] for name in splits if name in children), folder]:
        inside = _folders(place)
        for low in LOW_NAMES:
            for high in HIGH_NAMES:
                if low in inside and high in inside:
                    return [(inside[low], inside[high])]
    # VE-LOL: VE-LOL-L-Cap-Low_train beside VE-LOL-L-Cap-Normal_train.
    return [
        (path, children[name.replace("low_", "normal_")])
        for name, path in children.items()
        if name.endswith(tuple(f"low_{split}" for split in splits)) and name.replace("low_", "normal_") in children
    ]


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
