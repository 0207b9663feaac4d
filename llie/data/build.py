"""From a data set's section of an option file to the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from llie.errors import UserError
from llie.registry import DATASET_REGISTRY, build

# The loader's keys, which stand in the same section.
_NOT_FOR_DATASET = ("name", "batch_size_per_gpu", "num_worker_per_gpu")


def build_dataset(options: Mapping[str, Any], phase: str) -> Dataset[dict[str, Any]]:
    """The data set that an option section describes.

    Args:
        options: `{type, **arguments of that class}`, with or without the loader's keys.
        phase: "train" crops and flips and takes training splits; all others ("val", "test_1") evaluate.

    Raises:
        UserError: the class is unknown, an argument does not fit it, or its files are not there.
    """
    arguments = {key: value for key, value in options.items() if key not in _NOT_FOR_DATASET}
    name = options.get("name") or phase
    try:
        return build(DATASET_REGISTRY, arguments, where=f"datasets.{phase}", phase=phase)
    except UserError as error:
        raise UserError(f"data set {name}: {error}") from error
