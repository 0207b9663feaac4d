"""A file that can be completed even when the disk is full."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

_RESERVE = 32 * 2**20  # bytes: enough to complete a file of some hours
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ReservedFile:
    """A file to write, with a second file beside it that reserves space.

    When the disk is full, the second file is deleted, so that there is room to complete the first.

    Args:
        path: file to write.

    Attributes:
        full: the error of the full disk; None until then.

    Raises:
        OSError: the file, or the reserve of 32 MiB, cannot be written.
    """

    def __init__(self, path: Path):
        self.full: OSError | None = None
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._file = path.open("wb", buffering=0)
        try:
            with self._reserve.open("wb") as reserve:
                reserve.write(bytes(_RESERVE))
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise
        self.seek, self.tell = self._file.seek, self._file.tell

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Write all bytes.

        Raises:
            OSError: the disk is full without the reserve, too, or another error.
        """
        rest = memoryview(data)
        while len(rest):
            try:
                rest = rest[self._put(rest) :]
            except OSError as error:
                if error.errno not in _FULL or self.full is not None:
                    raise
                self.full = error
                self._reserve.unlink(missing_ok=True)
        return len(data)

    def _put(self, data: memoryview) -> int:
        return self._file.write(data) or 0

    def complete(self) -> None:
        """Close the file after all bytes have reached the disk."""
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close the file, and delete the reserve."""
        self._file.close()
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)
