"""The files of each open page, which are deleted when the page is closed."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class _Session:
    uploads: set[Path] = field(default_factory=set)
    results: Path | None = None
    working: int = 0
    closed: bool = False


class Sessions:
    """Keeps the files of open pages apart, and deletes those of closed pages.

    Pages that upload the same photograph share its file; it is deleted with the last of them.

    Args:
        folder: contains the folders of all results.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._open: dict[str, _Session] = {}
        self._lock = threading.Lock()

    @contextmanager
    def results(self, session: str, upload: Path) -> Iterator[Path]:
        """Context of one enhancement: gives a new, empty folder for its results, and deletes the page's last one.

        Args:
            session: name of the page's session.
            upload: the file that the page sent; it is deleted with the page.
        """
        with self._lock:
            page = self._open.setdefault(session, _Session())
            page.working += 1
            page.uploads.add(upload)
            # The browser chose the name of the session; it must not become a part of a path.
            before, page.results = page.results, Path(tempfile.mkdtemp(dir=self.folder))
            after = page.results
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)
        try:
            yield after
        finally:
            with self._lock:
                page.working -= 1
                closed = page.closed and not page.working
            if closed:  # the page was closed during the work
                self._delete(page)

    def close(self, session: str) -> None:
        """Delete the files of a page that was closed."""
        with self._lock:
            page = self._open.pop(session, None)
            if page is None:
                return
            page.closed = True
            if page.working:
                return
        self._delete(page)

    def _delete(self, page: _Session) -> None:
        with self._lock:
            shared = {upload for other in self._open.values() for upload in other.uploads}
        for upload in page.uploads - shared:
            upload.unlink(missing_ok=True)
            with suppress(OSError):  # gradio puts each upload into a folder of its own
                upload.parent.rmdir()
        if page.results is not None:
            shutil.rmtree(page.results, ignore_errors=True)
