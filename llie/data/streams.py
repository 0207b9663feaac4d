"""Data streams: further pictures in each training item, independent of its pair (dark, or of high quality)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from llie.data.transforms import generator
from llie.errors import UserError

Item = dict[str, Any]


class StreamedDataset(Dataset[Item]):
    """Items of a data set with one picture of every stream: `{..., "hq": (3, H, W), "hq_path": str}`.

    The choice of the picture, its crop and its flips are a pure function of (seed, epoch, index, stream): streams are
    independent of the pairs and of each other, and a resumed run needs no history. Pictures are drawn with replacement,
    so a stream may have any length.
    """

    def __init__(self, pairs: Dataset[Item], streams: Mapping[str, Dataset[Item]]):
        """Combine data sets; the `lq` of a stream's item gets the name of the stream."""
        self.pairs = pairs
        self.streams = dict(streams)
        self._seed = 0

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        item = dict(self.pairs[epoch, index])
        for name, stream in self.streams.items():
            random = generator(self.seed, epoch, index, zlib.crc32(name.encode()))
            place = int(random.integers(len(stream)))  # type: ignore[arg-type]
            # A random epoch, so that the picture gets a new crop every time.
            other = stream[int(random.integers(2**32)), place]
            if "gt" in other:
                raise UserError(
                    f"datasets.train_{name} contains pairs, but a stream needs single pictures; "
                    "use one folder of pictures: {type: UnpairedImageDataset, dataroot: ...}"
                )
            item |= {name: other["lq"], f"{name}_path": other["lq_path"]}
        return item

    @property
    def seed(self) -> int:
        """The run's seed, for all data sets."""
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._seed = value
        for dataset in (self.pairs, *self.streams.values()):
            dataset.seed = value  # type: ignore[attr-defined]

    def load(self) -> None:
        """Fill all caches."""
        for dataset in (self.pairs, *self.streams.values()):
            if hasattr(dataset, "load"):
                dataset.load()
