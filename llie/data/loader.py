"""Training batches: an endless stream in which the n-th batch depends only on the seed and n.

The stream consists of random permutations of the data set. A batch may contain the end of one epoch and the beginning
of the next, so every image is used equally often and none is dropped. A data set smaller than one batch over all
processes is an error: the same image would occur twice in one step.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from llie.errors import UserError
from llie.registry import LoadedPlugins

_SHUFFLE = 0x5EED  # makes the random stream of the order different from those of the items


class TrainLoader:
    """The endless micro-batches of one process.

    Attributes:
        dataset: data set with items under keys (epoch, index).
        batch_size: images per micro-batch and process.
        workers: number of worker processes; 0: loading in this process, with the same result.
    """

    def __init__(
        self,
        dataset: Dataset[dict[str, Any]],
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        """Check that a batch can be filled, and fill the cache of the data set.

        Raises:
            UserError: the data set has fewer images than one batch over all processes.
        """
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.order = Order(len(dataset), batch_size, seed, rank, world_size)  # type: ignore[arg-type]
        if hasattr(dataset, "seed"):
            dataset.seed = seed
        if hasattr(dataset, "load"):
            dataset.load()

    def __len__(self) -> int:
        """Number of micro-batches per epoch and process, rounded up."""
        return -(-self.order.items // self.order.stride)

    def batches(self, first: int = 0) -> Generator[dict[str, Any], None, None]:
        """The micro-batches from number `first` on; they do not depend on where the stream starts.

        Raises:
            UserError: an image cannot be read (in any process), or images of one batch differ in size.
        """
        loader = DataLoader(
            _Guarded(self.dataset),
            batch_sampler=_Keys(self.order, first),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker,
            prefetch_factor=4 if self.workers else None,
        )
        batches: Any = iter(loader)
        try:
            for batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        finally:
            # A traceback would keep the workers alive, and as they ignore SIGTERM, Python would wait for them at exit.
            if self.workers:
                with suppress(RuntimeError):  # all batches are here: a worker that aborts on its way out costs nothing
                    batches._shutdown_workers()


class Order:
    """The items of the n-th micro-batch of a process, as a closed formula, so a resumed run needs no history."""

    def __init__(self, items: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.items = items
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.stride = batch_size * world_size
        if items < self.stride:
            share = f" x {world_size} processes" if world_size > 1 else ""
            mend = (
                f"set batch_size_per_gpu to {items // world_size} or less" if items >= world_size else "use fewer GPUs"
            )
            raise UserError(f"a batch of {batch_size}{share} cannot be filled from {items} images; {mend}")
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def keys(self, number: int) -> list[tuple[int, int]]:
        """The (epoch, index) keys of micro-batch `number`."""
        start = number * self.stride + self.rank * self.batch_size
        places = (divmod(start + offset, self.items) for offset in range(self.batch_size))
        return [(epoch, int(self._permutation(epoch)[place])) for epoch, place in places]

    def _draw(self, epoch: int) -> np.ndarray:
        sequence = np.random.SeedSequence((self.seed, _SHUFFLE, epoch))
        return np.random.Generator(np.random.Philox(sequence)).permutation(self.items)


class _Keys:
    """The endless batch sampler for PyTorch's loader."""

    def __init__(self, order: Order, first: int):
        self.order = order
        self.first = first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        number = self.first
        while True:
            yield self.order.keys(number)
            number += 1


class _Guarded(Dataset[Any]):
    """Returns a `UserError` in a worker as an item; PyTorch would hide its message in the traceback of the worker."""

    def __init__(self, dataset: Dataset[Any]):
        self.plugins = LoadedPlugins()  # before the data set, because spawned workers unpickle in this order
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


def _collate(items: list[Any]) -> dict[str, Any] | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    images = [name for name in items[0] if f"{name}_path" in items[0]]  # lq, gt, and those of the streams
    for item in items[1:]:
        for name in images:
            if item[name].shape != items[0][name].shape:
                both = ((i[f"{name}_path"], i[name].shape) for i in (items[0], item))
                sizes = ", ".join(f"{path} ({width}x{height})" for path, (_, height, width) in both)
                return UserError(
                    f"images of one batch differ in size: {sizes}; set gt_size, or batch_size_per_gpu to 1"
                )
    return default_collate(items)


def _quiet_worker(worker: int) -> None:
    """Turn off OpenCV's threads, which would compete with the other workers for the cores, and ignore stop signals.

    Signals reach the whole process group, but the main process must finish its step.
    """
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def build_train_loader(
    dataset: Dataset[dict[str, Any]], options: Mapping[str, Any], seed: int, rank: int = 0, world_size: int = 1
) -> TrainLoader:
    """Build the training loader that the options of a data set describe.

    Args:
        dataset: from `build_dataset`.
        options: `batch_size_per_gpu` and `num_worker_per_gpu` are read.
        seed: the run's `manual_seed`.
        rank: number of this process.
        world_size: number of processes.
    """
    batch_size = options.get("batch_size_per_gpu", 1)
    return TrainLoader(dataset, batch_size, options.get("num_worker_per_gpu", 2), seed, rank, world_size)
