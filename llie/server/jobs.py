"""Pictures that wait for a device: first come, first served, those that fit together as one batch."""

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
    """What a client asks of a network.

    Attributes:
        model: one of the names that the server goes by.
        strength: see `llie.inference.Enhancer`.
        exposure: see `llie.inference.Enhancer`.
        controls: names and values, sorted.
    """

    model: str
    strength: float = 1.0
    exposure: float = 0.0
    controls: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """One picture for a network.

    Attributes:
        pixels: (H, W, 3), sRGB, as `llie.inference.photo.Photo` holds them.
        settings: what is to be done with it.
        result: gets the result, of the same shape and type; one who cancels it before it runs gets nothing.
    """

    pixels: np.ndarray
    settings: Settings
    result: Future[np.ndarray] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind can be one batch."""
        return self.settings, self.pixels.shape, self.pixels.dtype.str

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.pixels.shape[0] * self.pixels.shape[1]


class JobQueue:
    """Jobs of all clients for the workers of all devices.

    Args:
        batch: most jobs that are given out at once.
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
        """Wait for a job; it, and those of its kind that wait behind it; nothing when the queue is closed.

        A batch never waits for more jobs to come. Jobs that were cancelled are left out, the others begin to run.
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
        """Let the workers end when they have done what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> list[Job]:
        first = self._jobs[0]
        room = max(1, min(self._batch, BATCH_PIXELS // max(1, first.area)))
        batch = [job for job in self._jobs if job.kind == first.kind][:room]
        self._jobs = deque(job for job in self._jobs if job not in batch)
        return batch
