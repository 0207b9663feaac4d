"""Enhancing image files and folders of them: any size, upright, one bad file does not stop the rest."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from llie.data.formats import IMAGE_SUFFIXES
from llie.data.readers import read_image, write_file, write_image
from llie.errors import UserError

_ORIENTATION = 0x0112  # EXIF tag
_WITH_METADATA = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
_DEEP = {".png", ".tif", ".tiff"}


def enhance_files(
    enhance: Callable[[np.ndarray], np.ndarray], source: str | Path, output: str | Path, progress: bool = True
) -> dict[Path, str]:
    """Enhance one image, or all images in a folder and its subfolders.

    The results bear the names of the inputs, and stand in the same subfolders of `output`; an image becomes one file
    if `output` ends like an image file. Bit depth, EXIF data and colour profile are kept where the format can.

    Args:
        enhance: maps an array (H, W, 3) to another of the same size and type.
        source: image file or folder.
        output: where the results go; made if missing. Never the inputs themselves.
        progress: show a progress bar (only on a terminal).

    Returns:
        The images that failed, each with the reason.

    Raises:
        UserError: there is no image, or the output is the input.
    """
    source, output = Path(source).expanduser(), Path(output).expanduser()
    targets = plan(source, output)
    failures: dict[Path, str] = {}
    with tqdm(targets.items(), unit="image", disable=None if progress else True) as bar:
        for path, target in bar:
            bar.set_description(path.name)
            try:
                write_like(path, target, enhance(read_image(path)))
            except UserError as error:
                failures[path] = str(error)
    return failures


def plan(source: Path, output: Path) -> dict[Path, Path]:
    """Input file -> output file, for all images of `source`; see `enhance_files`."""
    if source.is_file():
        single = output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir()
        targets = {source: output if single else output / _name(source)}
    elif source.is_dir():
        if output.suffix.lower() in IMAGE_SUFFIXES or output.is_file():
            raise UserError(f"{source} is a folder, so the output must be one too, not {output}")
        inside = output.resolve()
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        # Results of an earlier run, where the output lies inside the input, are no inputs.
        found = [p for p in found if inside == source.resolve() or inside not in p.resolve().parents]
        if not found:
            raise UserError(f"no images in {source} (looked for {', '.join(sorted(IMAGE_SUFFIXES))}, subfolders too)")
        targets = {path: output / path.relative_to(source).parent / _name(path) for path in found}
    else:
        raise UserError(f"no such file or folder: {source}")
    _refuse_clashes(targets)
    return targets


def write_like(source: Path, target: Path, image: np.ndarray) -> None:
    """Write an image with the EXIF data and the colour profile of its source.

    The orientation is already applied to the pixels, so its tag is set to upright. 16-bit images and formats without
    metadata are written plain.
    """
    suffix = target.suffix.lower()
    if image.dtype == np.uint16 and suffix not in _DEEP:
        image = np.rint(image / 257).astype(np.uint8)
    if image.dtype != np.uint8 or suffix not in _WITH_METADATA:
        write_image(target, image)
        return
    content = io.BytesIO()
    Image.fromarray(image).save(content, Image.registered_extensions()[suffix], quality=95, **_metadata(source))
    write_file(target, content.getvalue())


def _metadata(source: Path) -> dict[str, object]:
    try:
        with Image.open(source) as original:
            exif = original.getexif()
            profile = original.info.get("icc_profile")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return {}  # Pillow cannot read it, OpenCV could: the pixels matter more
    kept: dict[str, object] = {}
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1
    if len(exif):
        kept["exif"] = exif
    if profile and _is_rgb(profile):
        kept["icc_profile"] = profile
    return kept


def _is_rgb(profile: bytes) -> bool:
    """Whether a colour profile describes RGB: grey and CMYK images were converted, and theirs no longer hold."""
    return profile[16:20] == b"RGB "


def _name(path: Path) -> str:
    """Name of the result: the input's own; `.npy` becomes a picture."""
    return path.with_suffix(".png").name if path.suffix.lower() == ".npy" else path.name


def _refuse_clashes(targets: dict[Path, Path]) -> None:
    inputs = {path.resolve() for path in targets}
    taken: dict[Path, Path] = {}
    for path, target in targets.items():
        place = target.resolve()
        if place in inputs:
            raise UserError(f"the result would overwrite {target}, an input; choose another output folder")
        if place in taken:
            raise UserError(f"{path} and {taken[place]} would both become {target}; rename one")
        taken[place] = path
