"""Build a data set from its section of an option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from llie.data.streams import StreamedDataset
from llie.errors import UserError
from llie.registry import DATASET_REGISTRY, build

# The loader's keys are in the same section.
_NOT_FOR_DATASET = ("name", "batch_size_per_gpu", "num_worker_per_gpu")


def build_dataset(options: Mapping[str, Any], phase: str) -> Dataset[dict[str, Any]]:
    """The data set that an option section describes.

    Args:
        options: `{type, **arguments of that class}`, with or without the loader's keys.
        phase: the section's name. "train" and its streams ("train_hq") crop and flip and take training splits; all
            others ("val", "test_1") evaluate.

    Raises:
        UserError: the class is unknown, an argument does not fit it, or its files are missing.
    """
    arguments = {key: value for key, value in options.items() if key not in _NOT_FOR_DATASET}
    name = options.get("name") or phase
    try:
        role = "train" if phase.startswith("train") else phase
        return build(DATASET_REGISTRY, arguments, where=f"datasets.{phase}", phase=role)
    except UserError as error:
        raise UserError(f"data set {name}: {error}") from error


def build_train_set(sections: Mapping[str, Mapping[str, Any]]) -> Dataset[dict[str, Any]]:
    """The data set `train`, whose items are joined by the streams `train_<name>` if there are any.

    Args:
        sections: all data sets of an option file.

    Raises:
        UserError: see `build_dataset`.
    """
    pairs = build_dataset(sections["train"], "train")
    streams = {
        key.removeprefix("train_"): build_dataset(section, key)
        for key, section in sections.items()
        if key.startswith("train_")
    }
    return StreamedDataset(pairs, streams) if streams else pairs
