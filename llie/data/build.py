"""Building a data set from its section of an option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from llie.data.split import split_off
from llie.data.streams import StreamedDataset
from llie.errors import UserError
from llie.registry import DATASET_REGISTRY, build

# Keys of the loader, which are in the same section.
_NOT_FOR_DATASET = ("name", "batch_size_per_gpu", "num_worker_per_gpu")


def build_dataset(options: Mapping[str, Any], phase: str) -> Dataset[dict[str, Any]]:
    """Build the data set that a section of an option file describes.

    Args:
        options: `{type, **arguments of that class}`, with or without the loader's keys.
        phase: name of the section. "train" and its streams ("train_hq") use the training split, with crops and flips;
            all others ("val", "test_1") are for evaluation.

    Raises:
        UserError: the class is unknown, an argument does not fit, or files are missing.
    """
    arguments = {key: value for key, value in options.items() if key not in _NOT_FOR_DATASET}
    name = options.get("name") or phase
    try:
        role = "train" if phase.startswith("train") else phase
        return build(DATASET_REGISTRY, arguments, where=f"datasets.{phase}", phase=role)
    except UserError as error:
        raise UserError(f"data set {name}: {error}") from error


def build_train_set(sections: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Dataset[dict[str, Any]]:
    """Build the data set `train`, with the streams `train_<name>` if there are any.

    Args:
        sections: all data sets of an option file.
        seed: decides which images a section `{split: SHARE}` takes for validation; the training set lacks them.

    Raises:
        UserError: see `build_dataset` and `split_off`.
    """
    pairs = build_dataset(sections["train"], "train")
    for section in sections.values():
        if "split" in section:
            pairs, _ = split_off(pairs, section["split"], seed)
    streams = {
        key.removeprefix("train_"): build_dataset(section, key)
        for key, section in sections.items()
        if key.startswith("train_")
    }
    return StreamedDataset(pairs, streams) if streams else pairs


def build_validation_set(sections: Mapping[str, Mapping[str, Any]], key: str, seed: int = 0) -> Dataset[dict[str, Any]]:
    """Build the data set of one section for validation; `{split: SHARE}` is a part of the training set.

    Args:
        sections: all data sets of an option file.
        key: of the section.
        seed: as of `build_train_set`.

    Raises:
        UserError: see `build_dataset` and `split_off`.
    """
    if "split" not in sections[key]:
        return build_dataset(sections[key], key)
    return split_off(build_dataset(sections["train"], "train"), sections[key]["split"], seed)[1]
