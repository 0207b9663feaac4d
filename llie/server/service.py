"""Carries out a request: decodes the picture, lets a worker enhance it, encodes the result."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llie.data.decoding import TooManyPixels
from llie.errors import UserError
from llie.inference.photo import decode_photo
from llie.server.jobs import Job, JobQueue, Settings
from llie.server.limits import Gate, Limits, Refused
from llie.server.metrics import Metrics
from llie.server.models import Models
from llie.server.worker import Worker

T = TypeVar("T")

_NAME = "the picture"  # in messages, where a file's name would be


@dataclass(frozen=True)
class Answer:
    """An enhanced picture as a file.

    Attributes:
        content: of the file.
        notes: what was lost, such as transparency in a JPEG file.
    """

    content: bytes
    notes: tuple[str, ...]


class Service:
    """What all requests share: the networks, the queue, the workers, the counters.

    Args:
        models: for each device, its networks by name.
        limits: see `Limits`.
    """

    def __init__(self, models: Sequence[Models], limits: Limits):
        self.models, self.limits = models[0], limits
        self.gate = Gate(limits.queue)
        self.metrics = Metrics(lambda: self.gate.in_flight)
        self._jobs = JobQueue(limits.batch)
        self._workers = [Worker(networks, self._jobs, self.metrics.batch) for networks in models]
        # At most two batches per device are unpacked: the one in work, and the next. Others hold only their upload.
        self._unpacked = asyncio.Semaphore(2 * limits.batch * len(models))
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "llie files")

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Let the workers end when they have finished all jobs in the queue."""
        self._jobs.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def healthy(self) -> bool:
        """Whether requests are accepted, and every device has its worker."""
        return not self.gate.closed and all(worker.is_alive() for worker in self._workers)

    async def enhance(self, data: bytes, settings: Settings, suffix: str, quality: int) -> Answer:
        """Enhance a picture as `llie enhance` does.

        Args:
            data: the upload, a file of any readable format.
            settings: settings of the network.
            suffix: ending of the format of the answer, such as ".png".
            quality: of lossy formats, 1 to 100.

        Raises:
            Refused: the picture is too large (413), or cannot be read, enhanced or written (422).
        """
        async with self._unpacked:
            try:
                photo = await self._in_thread(lambda: decode_photo(data, _NAME, self.limits.pixels))
                job = Job(photo.pixels, settings)
                self._jobs.put(job)
                result = await asyncio.wrap_future(job.result)
                content, notes = await self._in_thread(lambda: photo.encode(result, Path(_NAME + suffix), quality))
            except (UserError, MemoryError, RuntimeError) as error:
                raise _refusal(error, self.limits) from error
        self.metrics.enhanced(job.area)
        return Answer(content, (*photo.notes, *notes))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)


def _refusal(error: Exception, limits: Limits) -> Exception:
    """The refusal that tells a client of this error; an error in the server itself is returned as it is."""
    if isinstance(error, TooManyPixels):
        size = f"{error.width}x{error.height}"
        return Refused(413, f"{_NAME} has {size} pixels, more than the limit of {limits.pixels}; make it smaller")
    if isinstance(error, UserError):
        return Refused(422, str(error))
    if isinstance(error, MemoryError) or "memory" in str(error):
        return Refused(413, f"the server has too little memory for {_NAME}; make it smaller")
    return error
