"""Further pictures in each training item that have no part in its pair: dark photographs, pictures of high quality."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from llie.data.transforms import generator
from llie.errors import UserError

Item = dict[str, Any]


class StreamedDataset(Dataset[Item]):
    """Items of a data set, each joined by one picture of every stream: `{..., "hq": (3, H, W), "hq_path": str}`.

    Which picture joins, and how it is cropped and flipped, is a pure function of (seed, epoch, index, stream): streams
    follow neither the pairs nor each other, and a resumed run needs no history. Pictures are drawn with replacement,
    so that a stream may be of any length.
    """

    def __init__(self, pairs: Dataset[Item], streams: Mapping[str, Dataset[Item]]):
        """Join data sets; a stream's picture is what its items call `lq`, and is called by the stream's name."""
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
            # A drawn epoch: the picture gets a new crop every time.
            other = stream[int(random.integers(2**32)), place]
            if "gt" in other:
                raise UserError(
                    f"datasets.train_{name} gives pairs, of which a stream would take the dark side; "
                    "name one folder of pictures: {type: UnpairedImageDataset, dataroot: ...}"
                )
            item |= {name: other["lq"], f"{name}_path": other["lq_path"]}
        return item

    @property
    def seed(self) -> int:
        """The run's seed, for all of them."""
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
