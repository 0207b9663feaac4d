"""Decoded images in memory, once for all worker processes of a loader, however these are started."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import context, reduction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llie.errors import UserError

ALIGNMENT = 64  # bytes; of every image, as NumPy and PyTorch align their own

Read = Callable[[Path], np.ndarray]


class _Place(NamedTuple):
    """Where an image lies in the shared memory."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


class ImageCache:
    """Images by path, read-only.

    Those of `fill` lie in one file in memory, which forked workers inherit and spawned ones are given, so that they
    exist once. The file has no name, and disappears with the last process that uses it. Further images are kept by the
    process that read them; so are all images on Windows, where spawned workers start with an empty cache.
    """

    def __init__(self) -> None:
        self._places: dict[Path, _Place] = {}
        self._file: Any = None
        self._memory: mmap.mmap | None = None
        self._own: dict[Path, np.ndarray] = {}

    def get(self, path: Path, read: Read) -> np.ndarray:
        """The image, by `read` if it is not in the cache yet."""
        if path in self._places:
            assert self._memory
            start, shape, dtype = self._places[path]
            return np.ndarray(shape, dtype, self._memory, start)
        if path not in self._own:
            image = read(path)
            image.flags.writeable = False
            self._own[path] = image
        return self._own[path]

    def fill(self, paths: Iterable[Path], read: Read) -> None:
        """Read images into the shared memory, several at a time; call before workers start.

        Raises:
            UserError: there is too little memory; or what `read` raises.
        """
        new = sorted(set(paths) - self._places.keys())
        if not new:
            return
        if self._file is None:
            self._file = _file_in_memory()
        lock, places = threading.Lock(), {}

        def put(path: Path) -> None:
            image = np.ascontiguousarray(read(path))
            with lock:
                start = self._file.seek(-(-self._file.seek(0, os.SEEK_END) // ALIGNMENT) * ALIGNMENT)
                self._file.write(image.data)
                places[path] = _Place(start, image.shape, image.dtype)

        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(put, new):
                    pass
            self._file.flush()
        except OSError as error:
            raise UserError(f"cache: too little memory for all images ({error.strerror}); set cache: none") from error
        self._memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._places.update(places)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing but places, and the file for a worker that is being started: pixels would fill a pipe."""
        if self._file is None or context.get_spawning_popen() is None or sys.platform == "win32":
            return {}
        return {"places": self._places, "file": reduction.DupFd(self._file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if state:
            self._places = state["places"]
            self._file = os.fdopen(state["file"].detach(), "rb")
            self._memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)


def _file_in_memory() -> Any:
    """An empty file without a name: in memory on Linux, elsewhere in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("llie images"), "w+b")
    return tempfile.TemporaryFile(prefix="llie-")
