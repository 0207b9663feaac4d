"""The queue of pictures that wait for a device: first come, first served; equal ones form a batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

BATCH_PIXELS = 2_000_000  # larger batches are no faster: the network would cut them into pieces


@dataclass(frozen=True)
class Settings:
    """The settings that a client asks for.

    Attributes:
        model: name of the network on this server.
        strength: see `llie.inference.Enhancer`.
        exposure: see `llie.inference.Enhancer`.
        controls: (name, value) of each control, sorted by name.
    """

    model: str
    strength: float = 1.0
    exposure: float = 0.0
    controls: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """A picture that waits for a network.

    Attributes:
        pixels: (H, W, 3), sRGB, of the types of `llie.inference.photo.Photo`.
        settings: settings of the network.
        result: will hold the result, of the same shape and type. A job that is cancelled before it runs is left out.
    """

    pixels: np.ndarray
    settings: Settings
    result: Future[np.ndarray] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """Jobs of the same kind can be one batch."""
        return self.settings, self.pixels.shape, self.pixels.dtype.str

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.pixels.shape[0] * self.pixels.shape[1]


class JobQueue:
    """The jobs of all clients, for the workers of all devices.

    Args:
        batch: largest number of jobs in a batch.
    """

    def __init__(self, batch: int):
        self._batch = batch
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> None:
        """Add a job at the end."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def take(self) -> list[Job]:
        """Wait for a job, and take it with those of the same kind that wait behind it.

        A batch does not wait for further jobs. Cancelled jobs are left out; all others are marked as running.

        Returns:
            The batch; an empty list when the queue is closed and empty.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                batch = self._next()
            batch = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if batch:
                return batch

    def close(self) -> None:
        """Let the workers end when they have finished all jobs in the queue."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> list[Job]:
        first = self._jobs[0]
        room = max(1, min(self._batch, BATCH_PIXELS // max(1, first.area)))
        batch = [job for job in self._jobs if job.kind == first.kind][:room]
        self._jobs = deque(job for job in self._jobs if job not in batch)
        return batch
