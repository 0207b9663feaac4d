"""LMDB data sets in BasicSR's format: a folder `x.lmdb` with `meta_info.txt` and PNG files under keys without ending.

The address of an image looks like a file: `x.lmdb/KEY.png`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from llie.data.folders import files_below
from llie.data.formats import IMAGE_SUFFIXES
from llie.data.readers import decode_image, read_image
from llie.errors import UserError

_META = "meta_info.txt"
_ROOM = 64 * 2**20
# LMDB allows one environment per path and process.
_environments: dict[Path, lmdb.Environment] = {}


def is_lmdb(folder: str | Path) -> bool:
    """Whether a path names an LMDB folder."""
    return Path(folder).suffix == ".lmdb"


def check_backend(io_backend: Mapping[str, Any] | None, roots: Iterable[Path]) -> None:
    """Check that BasicSR's option `io_backend: {type: disk | lmdb}` fits the folders, whose names decide without it.

    Raises:
        UserError: unknown type, or the type is lmdb but a folder is not an LMDB.
    """
    kind = (io_backend or {}).get("type", "disk")
    if kind not in ("disk", "lmdb"):
        raise UserError(f"io_backend.type must be disk or lmdb, not {kind!r}")
    for root in roots:
        if kind == "lmdb" and not is_lmdb(root):
            raise UserError(f"io_backend is lmdb, but {root} is not a folder *.lmdb; `llie data lmdb` makes one")


def list_lmdb(folder: Path) -> list[Path]:
    """The addresses of all images in an LMDB, in the order of its `meta_info.txt`.

    Raises:
        UserError: the folder has no readable `meta_info.txt`.
    """
    try:
        lines = (folder / _META).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{folder} is not an LMDB data set: cannot read its {_META} ({error.strerror})") from error
    # "a/b.png (400,600,3) 1"; the name may contain spaces.
    return [folder / line.rsplit(" (", 1)[0] for line in lines if line.strip()]


def lmdb_of(path: Path) -> Path | None:
    """The LMDB folder of an address; None for an ordinary file."""
    return next((parent for parent in path.parents if is_lmdb(parent)), None)


def read_any(path: str | Path) -> np.ndarray:
    """Read an image like `read_image`, from a file or from an address in an LMDB."""
    path = Path(path)
    folder = lmdb_of(path)
    if folder is None:
        return read_image(path)
    key = path.relative_to(folder).with_suffix("").as_posix()
    with _environment(folder).begin(write=False) as transaction:
        data = transaction.get(key.encode())
    if data is None:
        raise UserError(f"{folder} has no image under the key {key!r} that its {_META} lists; build it again")
    return decode_image(data, path)


def build(source: str | Path, target: str | Path, compression: int = 1) -> int:
    """Pack all images of a folder (recursively) into an LMDB; 8 and 16 bits are kept.

    Args:
        source: folder of images; keys are the paths below it, without ending.
        target: the new folder, `NAME.lmdb`.
        compression: PNG level, 0 to 9.

    Returns:
        The number of images.

    Raises:
        UserError: there are no images, two have the same key, the name is not `*.lmdb`, or the target exists.
    """
    source, target = Path(source), Path(target)
    if not is_lmdb(target):
        raise UserError(f"{target}: the name of an LMDB folder ends in .lmdb")
    if target.exists():
        raise UserError(f"{target} exists already; remove it first or choose another name")
    if not source.is_dir():
        raise UserError(f"there is no folder {source} to pack")
    files = [path for path in files_below(source) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UserError(f"{source} contains no images to pack")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.lmdb")
    try:
        _write(files, source, temporary, compression)
        temporary.replace(target)
    except (OSError, lmdb.Error) as error:
        raise UserError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(files)


def _write(files: list[Path], source: Path, folder: Path, compression: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    size, used = _ROOM, 0
    meta = []
    # No lock: no other process uses the folder yet, and writing to a mapped lock file kills a process on a full disk.
    with lmdb.open(str(folder), map_size=size, sync=False, lock=False) as environment:
        for path in files:
            key = path.relative_to(source).with_suffix("").as_posix()
            image = read_image(path)
            if image.dtype == np.float32:
                image = np.rint(image * 65535).astype(np.uint16)
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, compression])[1].tobytes()
            used += len(data) + 8192
            if used > size // 2:
                size = 2 * used + _ROOM
                environment.set_mapsize(size)
            with environment.begin(write=True) as transaction:
                if not transaction.put(key.encode(), data, overwrite=False):
                    raise UserError(f"{path} and another file of {source} differ only in their ending; rename one")
            meta.append(f"{key}.png ({image.shape[0]},{image.shape[1]},3) {compression}\n")
        environment.sync(True)
    (folder / _META).write_text("".join(meta), encoding="utf-8")


def _environment(folder: Path) -> lmdb.Environment:
    folder = folder.resolve()
    if folder not in _environments:
        try:
            _environments[folder] = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
        except lmdb.Error as error:
            raise UserError(f"cannot open the LMDB {folder}: {error}") from error
    return _environments[folder]


def _forget_environments() -> None:
    for environment in _environments.values():
        environment.close()
    _environments.clear()


# A forked worker must open its own environment, which LMDB allows only after the inherited one is closed.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_environments)
