"""The worker of a device: the only thread that runs networks there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from llie.inference import Enhancer
from llie.server.jobs import Job, JobQueue


class Worker(threading.Thread):
    """Takes jobs from the queue until it is closed.

    Args:
        models: the networks on this device, by name.
        jobs: the queue that all devices share.
        done: called after every successful batch with its number of pictures.
    """

    def __init__(self, models: Mapping[str, Enhancer], jobs: JobQueue, done: Callable[[int], None]):
        # A daemon thread, so that a network that hangs does not keep the process from ending.
        super().__init__(name=f"llie worker {next(iter(models.values())).device}", daemon=True)
        self._models, self._jobs, self._done = models, jobs, done

    def run(self) -> None:
        """Work until the queue is closed and empty."""
        while batch := self._jobs.take():
            self._carry_out(batch)

    def _carry_out(self, batch: Sequence[Job]) -> None:
        try:
            results = self._enhanced(batch)
        except Exception as error:  # the error belongs to these requests; the worker goes on
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for job in batch:  # so that only the picture that fails has no result
                self._carry_out([job])
            return
        self._done(len(batch))
        for job, result in zip(batch, results, strict=True):
            job.result.set_result(result)

    def _enhanced(self, batch: Sequence[Job]) -> Sequence[np.ndarray]:
        settings = batch[0].settings
        enhance = self._models[settings.model].adjusted(settings.strength, settings.exposure, **dict(settings.controls))
        if len(batch) == 1:
            return [enhance(batch[0].pixels)]
        images = torch.from_numpy(np.stack([job.pixels for job in batch])).permute(0, 3, 1, 2)
        return list(enhance(images.contiguous()).permute(0, 2, 3, 1).contiguous().numpy())
